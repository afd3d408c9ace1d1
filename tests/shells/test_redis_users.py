"""The sample of ACL users: each may do what its control plane needs, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.redis_deployments import Node, server, users_file
from tests.redis_server import needs_redis
from zonemesh.errors import FateUnknownError, UnavailableError
from zonemesh.log.keys import Keys
from zonemesh.log.port import Lease, SnapshotInfo
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisfacts import weaknesses
from zonemesh.log.redisrights import DANGEROUS, Command, forbidden, needed
from zonemesh.model import START, Position
from zonemesh.travel import GLOBAL_LOG, copy_log, up_log
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

ROLES: tuple[tuple[str, str | None], ...] = (("global", None), ("west", "west"), ("east", "east"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    needs_redis(7)
    directory = tmp_path_factory.mktemp("users")
    with server(directory / "node", ("aclfile", str(users_file(directory)))) as found:
        yield found


@asynccontextmanager
async def store_of(node: Node, user: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(node.url(user))
    try:
        yield store
    finally:
        await store.close()


def chain_of(length: int) -> list[Sealed]:
    chain: list[Sealed] = []
    for seq in range(length):
        entry = Entry(
            incarnation="inc-1",
            position=Position(1, seq),
            previous=chain[-1].entry.position if chain else START,
            writer="writer",
            time_ms=seq,
            mono_delta_ms=0,
            log_time_ms=0,
        )
        chain.append(seal(entry, chain[-1].h if chain else NO_HASH))
    return chain


def snapshot_of(sealed: Sealed) -> SnapshotInfo:
    position = sealed.entry.position
    return SnapshotInfo(incarnation="inc-1", position=position, h=sealed.h, chunks=1)


async def refused(store: RedisStore, command: Command) -> bool:
    """Whether the server's answer to the very command is that this user may not."""
    try:
        await store.commands.call(*command)
    except UnavailableError as error:
        return "NOPERM" in str(error)
    return False


@pytest.mark.parametrize("user, zone", ROLES)
async def test_a_control_planes_user_is_allowed_each_command_that_it_needs(
    node: Node, user: str, zone: str | None
) -> None:
    async with store_of(node, user) as store:
        denied = [one for one in needed(Keys(), zone) if await refused(store, one)]
    async with store_of(node, "admin") as admin:
        await admin.commands.call("FLUSHALL")

    assert denied == []


@pytest.mark.parametrize("user, zone", ROLES)
async def test_a_control_planes_user_is_refused_each_command_that_would_harm_others(
    node: Node, user: str, zone: str | None
) -> None:
    async with store_of(node, user) as store:
        allowed = [one for one in forbidden(Keys(), zone) if not await refused(store, one)]

    assert allowed == []


@pytest.mark.parametrize("user, zone", ROLES)
async def test_the_check_at_start_finds_nothing_wrong_with_these_users(
    node: Node, user: str, zone: str | None
) -> None:
    found = await weaknesses(node.url(user), zone=zone)

    assert [weakness.code for weakness in found] == ["config_refused"]


async def test_the_check_names_users_that_may_too_much_or_too_little(node: Node) -> None:
    found = {
        (user, zone): {weakness.code for weakness in await weaknesses(node.url(user), zone=zone)}
        for user, zone in (("admin", None), ("global", "west"), ("west", "east"))
    }

    assert found["admin", None] == {"rights_too_wide"}
    assert found["global", "west"] == {"rights_too_wide", "config_refused"}
    assert found["west", "east"] == {"rights_too_narrow", "config_refused"}


async def test_nobody_comes_in_without_a_user(node: Node) -> None:
    store = RedisStore(node.url())

    with pytest.raises(UnavailableError, match=r"wants a password: give one in redis\.url"):
        await store.log(GLOBAL_LOG).head()
    await store.close()


@pytest.mark.parametrize("user", ["global", "west", "replica", "sentinel"])
async def test_only_the_administrator_may_do_what_endangers_the_server(
    node: Node, user: str
) -> None:
    async with store_of(node, user) as store:
        harmless_to_sentinel = [
            command for command in DANGEROUS
            if not (user == "sentinel" and command[0] in ("REPLICAOF", "CLIENT", "SCRIPT"))
        ]  # fmt: skip
        allowed = [command for command in harmless_to_sentinel if not await refused(store, command)]

    assert allowed == []


async def test_a_zone_and_global_work_together_with_these_users(node: Node) -> None:
    chain = chain_of(4)
    lease = Lease(writer="writer", url="http://g:5681")
    async with store_of(node, "global") as of_global, store_of(node, "west") as of_west:
        shared = of_global.log(GLOBAL_LOG)
        assert await shared.acquire(lease)
        await shared.create(chain[0])
        await shared.append(chain[1])
        await shared.put_snapshot(snapshot_of(chain[1]), [b"chunk"])
        await of_global.present(GLOBAL_LOG, "writer", b"about")
        assert await of_global.replicas(GLOBAL_LOG) == {"writer": b"about"}

        await of_west.announce("west")
        up = of_west.log(up_log("west"))
        await up.create(chain[0], owner="uid")
        for sealed in chain[1:]:
            await up.append(sealed)
            await up.put_snapshot(snapshot_of(sealed), [b"chunk"])
        assert await up.load_snapshot(snapshot_of(chain[3])) == [b"chunk"]
        await up.trim(Position(1, 1))
        await of_west.commands.call("DEL", Keys().of(up_log("west")).head)
        assert await up.repair(chain[3], owner="uid")
        offered = of_west.log(copy_log("west"))
        await offered.put_snapshot(snapshot_of(chain[1]), [b"copy"])
        seen = of_west.log(GLOBAL_LOG)
        assert len(await seen.read(START, block_s=0.01)) == 2
        assert await seen.head() is not None
        assert await seen.load_snapshot(snapshot_of(chain[1])) == [b"chunk"]

        assert await of_global.zones() == {"west"}
        copy = of_global.log(copy_log("west"))
        assert await copy.load_snapshot(snapshot_of(chain[1])) == [b"copy"]
        read = await of_global.read_many({up_log("west"): START}, block_s=0.01)
        assert len(read[up_log("west")]) == 3
        assert await of_global.log(up_log("west")).trim(Position(1, 2)) == 1
        await shared.resign(chain[2], lease)
        assert await shared.holder() is None

        for foreign in (of_west.log(GLOBAL_LOG), of_west.log(up_log("east"))):
            with pytest.raises(FateUnknownError, match="ACL"):
                await foreign.append(chain[3])
            with pytest.raises(FateUnknownError, match="ACL"):
                await foreign.create(chain[0])
        with pytest.raises(UnavailableError, match="ACL"):
            await of_west.log(up_log("east")).head()

        await of_global.forget("west")
        assert await of_global.zones() == frozenset()
        assert await of_global.log(up_log("west")).head() is None
