"""A mesh in a real Redis Cluster: every key on one node, redirections, and a failover there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chains import chain_of, snapshot_of
from tests.ports import free_port
from tests.redis_deployments import HOST, Node, server, until, weaknesses
from tests.redis_server import needs_redis
from zonemesh.errors import FateUnknownError, RefusedError, UnavailableError
from zonemesh.log.port import Lease
from zonemesh.log.redis import RedisStore
from zonemesh.model import START, Position
from zonemesh.travel import GLOBAL_LOG, up_log

SLOTS = 16384
LEASE = Lease(writer="writer", url="http://g:5681")


async def asked(node: Node, *command: str) -> bytes:
    """A node's answer, as text; never redirected."""
    store = RedisStore(node.url())
    try:
        reply = await store.commands.call(*command)
    finally:
        await store.close()
    return reply if isinstance(reply, bytes) else repr(reply).encode()


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    """Three masters, by their share of the slots, and a replica of the one that has ours."""
    needs_redis(7)
    with ExitStack() as stack:
        yield await clustered(tmp_path, stack)


async def clustered(directory: Path, stack: ExitStack) -> list[Node]:
    settings = (("cluster-enabled", "yes"), ("cluster-node-timeout", "1000"))
    bus = [str(free_port()) for _ in range(4)]  # by default the port + 10,000, which may not exist
    found = [
        stack.enter_context(server(directory / f"{n}", *settings, ("cluster-port", bus[n])))
        for n in range(4)
    ]
    bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
    for node, first, beyond in zip(found[:3], bounds, bounds[1:], strict=False):
        await asked(node, "CLUSTER", "ADDSLOTSRANGE", str(first), str(beyond - 1))
    for number, node in enumerate(found):
        await asked(node, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        await asked(node, "CLUSTER", "MEET", HOST, str(found[0].port), bus[0])

    async def met() -> bool:
        return all(
            [b"cluster_known_nodes:4" in await asked(one, "CLUSTER", "INFO") for one in found]
        )

    await until(met)
    owner = found[await owner_of(found)]
    name = (await asked(owner, "CLUSTER", "MYID")).decode()
    await until(lambda: done(found[3], "CLUSTER", "REPLICATE", name))

    async def sound() -> bool:
        states = [b"cluster_state:ok" in await asked(one, "CLUSTER", "INFO") for one in found]
        return all(states) and b"state=online" in await asked(owner, "INFO", "replication")

    await until(sound)
    return found


async def done(node: Node, *command: str) -> bool:
    return await asked(node, *command) == b"OK"


async def owner_of(nodes: list[Node]) -> int:
    """Which of the three has the mesh's slot."""
    slot = int(await asked(nodes[0], "CLUSTER", "KEYSLOT", "{zm}"))
    return slot * 3 // SLOTS


def url_of(nodes: list[Node]) -> str:
    return f"redis+cluster://{','.join(node.address for node in nodes)}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_every_operation_works_from_whichever_node_is_named(
    nodes: list[Node], scheme: str
) -> None:
    owner = await owner_of(nodes)
    for node in nodes:
        await works(RedisStore(node.url(scheme=scheme)))
    sizes = [await asked(node, "DBSIZE") for node in nodes[:3]]

    assert [size for n, size in enumerate(sizes) if n != owner] == [b"0", b"0"]


async def works(store: RedisStore) -> None:
    """The contract's main operations, from and to an empty server."""
    chain = chain_of(5)
    try:
        await store.announce("west")
        for name in (GLOBAL_LOG, up_log("west"), up_log("east")):
            log = store.log(name)
            assert await log.acquire(LEASE)
            await log.create(chain[0])
            for sealed in chain[1:4]:
                await log.append(sealed)
            await log.append(chain[3])  # again
            with pytest.raises(RefusedError):
                await log.append(chain[2])
            await log.put_snapshot(snapshot_of(chain[3]), [b"chunk"] * 1)
            assert await log.load_snapshot(snapshot_of(chain[3])) == [b"chunk"]
            assert await log.trim(Position(1, 2)) == 2
            await log.resign(chain[4], LEASE)
            assert await log.holder() is None
            assert len(await log.read(START, block_s=0.5)) == 3
        names = {up_log("west"): START, up_log("east"): START, GLOBAL_LOG: START}
        read = await store.read_many(names, block_s=0.5)
        assert {name: len(raws) for name, raws in read.items()} == dict.fromkeys(names, 3)
        await store.present(GLOBAL_LOG, "writer", b"about")
        assert await store.replicas(GLOBAL_LOG) == {"writer": b"about"}
        assert await store.zones() == {"west"}
        for zone in ("west", "east"):
            await store.forget(zone)
            assert await store.log(up_log(zone)).head() is None
        for key in await store.commands.call("KEYS", "*"):
            await store.commands.call("DEL", key)
    finally:
        await store.close()


@pytest.mark.timeout(60)
async def test_a_forgotten_zone_is_gone_though_the_first_question_went_to_another_node(
    nodes: list[Node],
) -> None:
    owner = await owner_of(nodes)
    other = nodes[(owner + 1) % 3]
    store = RedisStore(nodes[owner].url())
    await store.log(up_log("west")).create(chain_of(1)[0])
    await store.close()

    fresh = RedisStore(other.url())
    await fresh.forget("west")
    await fresh.close()

    assert await asked(nodes[owner], "DBSIZE") == b"0"


@pytest.mark.timeout(90)
async def test_a_failover_within_the_cluster_is_followed(nodes: list[Node]) -> None:
    owner = nodes[await owner_of(nodes)]
    chain = chain_of(3)
    store = RedisStore(url_of([owner, *(node for node in nodes if node is not owner)]))
    log = store.log(GLOBAL_LOG)
    await log.create(chain[0])
    await store.commands.call("WAIT", "1", "5000")

    owner.kill()

    async def appended() -> bool:
        try:
            await log.append(chain[1])
        except FateUnknownError:
            return False
        return True

    await until(appended)
    assert store.commands.where == nodes[3].address
    assert len(await log.read(START)) == 2
    await store.close()


@pytest.mark.timeout(60)
async def test_a_slot_on_its_way_to_another_node_is_said_and_passes(nodes: list[Node]) -> None:
    number = await owner_of(nodes)
    source, target = nodes[number], nodes[(number + 1) % 3]
    slot = (await asked(source, "CLUSTER", "KEYSLOT", "{zm}")).decode()
    ids = [(await asked(node, "CLUSTER", "MYID")).decode() for node in (source, target)]
    store = RedisStore(url_of(nodes[:3]))
    chain = chain_of(2)
    log = store.log(GLOBAL_LOG)

    await asked(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    await asked(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    with pytest.raises(UnavailableError, match="being moved"):
        await log.create(chain[0])
    for node in (target, source):
        await asked(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    await log.create(chain[0])

    assert len(await log.read(START)) == 1
    assert await asked(target, "DBSIZE") == b"2"
    await store.close()


@pytest.mark.timeout(60)
async def test_the_check_asks_the_node_that_has_the_keys(nodes: list[Node]) -> None:
    owner = nodes[await owner_of(nodes)]
    await asked(owner, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")

    found = await weaknesses(url_of(nodes[:3]))

    assert "may_evict" in {weakness.code for weakness in found}
    assert {weakness.where for weakness in found} == {owner.address}
