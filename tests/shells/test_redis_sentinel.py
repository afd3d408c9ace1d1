"""Failovers by real sentinels under a writer and readers: what is lost is never lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.redis_deployments import (
    HOST,
    Node,
    sentinel,
    server,
    store_at,
    until,
    users_file,
    weaknesses,
)
from tests.redis_server import needs_redis
from zonemesh.errors import RefusedError, UnavailableError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.redis import RedisStore
from zonemesh.model import START, Change, Position
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG
from zonemesh.wire import Sealed

PASSWORD = "change-me-sentinels"


@dataclass(slots=True)
class Deployment:
    """A master, three replicas that only follow it, and three sentinels."""

    servers: list[Node]
    sentinels: list[Node]

    @property
    def url(self) -> str:
        """As global's user."""
        addresses = ",".join(one.address for one in self.sentinels)
        parameters = f"sentinel_password={PASSWORD}"
        return f"redis+sentinel://global:change-me-global@{addresses}/master?{parameters}"

    @asynccontextmanager
    async def admin(self, node: Node) -> AsyncIterator[RedisStore]:
        async with store_at(node.url("admin")) as store:
            yield store

    async def info(self, node: Node) -> bytes:
        async with self.admin(node) as admin:
            text: bytes = await admin.commands.call("INFO", "replication")
            return text

    async def master(self) -> Node:
        """The one that a majority of the sentinels names."""
        named = [await self._named(one) for one in self.sentinels]
        port = max(set(named), key=named.count)
        return next(node for node in self.servers if node.port == port)

    async def _named(self, one: Node) -> int:
        store = RedisStore(f"redis://:{PASSWORD}@{one.address}")
        try:
            found = await store.commands.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "master")
            return int(found[1])
        finally:
            await store.close()

    async def all_know(self, replicas: int) -> None:
        """Wait until each sentinel knows the replicas and both other sentinels."""

        async def known() -> bool:
            counts = []
            for one in self.sentinels:
                store = RedisStore(f"redis://:{PASSWORD}@{one.address}")
                try:
                    found = await store.commands.call("SENTINEL", "MASTER", "master")
                finally:
                    await store.close()
                facts = dict(zip(found[::2], found[1::2], strict=True))
                counts.append((int(facts[b"num-slaves"]), int(facts[b"num-other-sentinels"])))
            return all(slaves >= replicas and others == 2 for slaves, others in counts)

        await until(known)

    async def fail_over(self) -> tuple[Node, Node]:
        """Kill the master and wait for another; both."""
        old = await self.agreed()
        old.kill()
        return old, await self.agreed()

    async def agreed(self) -> Node:
        """Wait until all sentinels name one server that runs as master.

        A minority still names the one before for a while after a failover.
        """
        found: list[Node] = []

        async def settled() -> bool:
            named = {await self._named(one) for one in self.sentinels}
            found[:] = [node for node in self.servers if node.process and {node.port} == named]
            return len(found) == 1 and b"role:master" in await self.info(found[0])

        await until(settled)
        return found[0]

    async def in_step(self, replicas: int) -> None:
        """Wait until so many replicas follow the master."""

        async def attached() -> bool:
            return (await self.info(await self.master())).count(b"state=online") >= replicas

        await until(attached)


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    needs_redis(7)
    with ExitStack() as stack:
        yield await deployed(tmp_path, stack)


async def deployed(directory: Path, stack: ExitStack) -> Deployment:
    settings = [
        ("aclfile", str(users_file(directory))),
        ("masteruser", "replica"),
        ("masterauth", "change-me-replica"),
    ]
    first = stack.enter_context(server(directory / "1", *settings))
    following = (*settings, ("replicaof", f"{HOST} {first.port}"))
    others = [stack.enter_context(server(directory / f"{n}", *following)) for n in (2, 3, 4)]
    found = Deployment([first, *others], [])

    async def attached() -> bool:
        return (await found.info(first)).count(b"state=online") == 3

    await until(attached)  # a sentinel asks a master for its replicas each 10 s only
    watching = [
        ("requirepass", PASSWORD),
        ("sentinel", f"monitor master {HOST} {first.port} 2"),
        ("sentinel", "auth-user master sentinel"),
        ("sentinel", "auth-pass master change-me-sentinel"),
        # A sentinel pings each second at most: a shorter time and it now and then takes the master
        # that it has just made for dead too.
        ("sentinel", "down-after-milliseconds master 2000"),
        ("sentinel", "failover-timeout master 3000"),
    ]
    found.sentinels += [
        stack.enter_context(sentinel(directory / f"sentinel-{n}", *watching)) for n in range(3)
    ]
    await found.all_know(3)
    return found


@dataclass(slots=True)
class Writer:
    """Writes for ever; after a refusal it reads anew and opens the next term, as a leader does."""

    store: RedisStore
    acknowledged: list[Sealed] = field(default_factory=list)
    refusals: int = 0

    async def run(self) -> None:
        while True:
            try:
                await self._term()
            except RefusedError:
                self.refusals += 1
            except UnavailableError:
                await asyncio.sleep(0.05)

    async def _term(self) -> None:
        registry = Registry()
        log = self.store.log(GLOBAL_LOG)
        follower = Follower(log, registry, clock=Clock(), on_entries=lambda _: None)
        head = await follower.catch_up()
        appender = Appender(log, writer="w", clock=Clock(), place=follower.place)
        if head is None:
            self.acknowledged.append(await appender.create("inc-1", term=1))
        else:
            self.acknowledged.append(await appender.open(head.position.term + 1))
        while True:
            change = Change("X", f"default/w//{len(self.acknowledged) % 50}", b"x")
            self.acknowledged.append(await appender.commit(changes=[change]))
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class Reader:
    """Follows for ever, and keeps what it saw in each stretch between two faults."""

    store: RedisStore
    registry: Registry = field(default_factory=Registry)
    seen: list[Sealed] = field(default_factory=list)
    forgotten: list[Sealed] = field(default_factory=list)
    """What it saw before a fault that it found."""
    faults: list[str] = field(default_factory=list)

    async def run(self) -> None:
        follower = Follower(
            self.store.log(GLOBAL_LOG),
            self.registry,
            clock=Clock(),
            on_entries=self._saw,
            on_replaced=lambda: self._replaced(follower),
        )
        while True:
            with suppress(UnavailableError):
                await follower.run()
            await asyncio.sleep(0.05)

    def _saw(self, entries: Sequence[Sealed]) -> None:
        self.seen += entries

    def _replaced(self, follower: Follower) -> None:
        self.faults = sorted(follower.resyncs)
        self.forgotten += self.seen
        self.seen = []


@dataclass(slots=True)
class Traffic:
    writer: Writer
    readers: list[Reader]

    async def flows(self, more: int = 20) -> None:
        """Wait until more is acknowledged and every reader has the newest of it."""
        wanted = len(self.writer.acknowledged) + more

        async def arrived() -> bool:
            acknowledged = self.writer.acknowledged
            if len(acknowledged) < wanted:
                return False
            newest = acknowledged[wanted - 1].entry.position
            return all(reader.registry.position >= newest for reader in self.readers)

        await until(arrived)


@asynccontextmanager
async def traffic(url: str, readers: int = 2) -> AsyncIterator[Traffic]:
    async with AsyncExitStack() as stack:
        stores = [RedisStore(url) for _ in range(readers + 1)]
        for store in stores:
            stack.push_async_callback(store.close)
        found = Traffic(Writer(stores[0]), [Reader(store) for store in stores[1:]])
        tasks = [asyncio.ensure_future(found.writer.run())]
        tasks += [asyncio.ensure_future(reader.run()) for reader in found.readers]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def nothing_was_lost_in_silence(url: str, found: Traffic) -> set[Position]:
    """Compare with what Redis has now; the positions that were acknowledged and are lost."""
    store = RedisStore(url)
    kept: dict[Position, bytes] = {}

    async def read() -> bool:
        while raws := await store.log(GLOBAL_LOG).read(max(kept, default=START)):
            kept.update({raw.position: raw.data for raw in raws})
        return True

    try:
        await until(read)  # soon after a failover the sentinels name no master for a moment
    finally:
        await store.close()

    def gone(sealed: Sealed) -> bool:
        return kept.get(sealed.entry.position) != sealed.data

    lost = {sealed.entry.position for sealed in found.writer.acknowledged if gone(sealed)}
    assert not lost or found.writer.refusals > 0, "the writer was told"
    for reader in found.readers:
        assert not any(map(gone, reader.seen)), "what a reader still holds is in the log"
        if any(map(gone, reader.forgotten)):
            assert set(reader.faults) & {"rolled_back", "fork", "gap"}
    return lost


@pytest.mark.timeout(120)
async def test_three_failovers_in_a_row_lose_nothing_in_silence(deployment: Deployment) -> None:
    masters = [(await deployment.master()).port]
    async with traffic(deployment.url) as found:
        await found.flows()
        for left in (2, 1, 0):
            _, new = await deployment.fail_over()
            masters.append(new.port)
            await found.flows()
            await deployment.in_step(left)
        assert len(set(masters)) == 4
        await found.flows()

    await nothing_was_lost_in_silence(deployment.url, found)


@pytest.mark.timeout(120)
async def test_a_failover_to_replicas_that_lack_entries_is_found_by_every_reader(
    deployment: Deployment,
) -> None:
    first = await deployment.master()
    async with traffic(deployment.url) as found:
        await found.flows()
        async with deployment.admin(first) as admin:
            await admin.commands.call("ACL", "SETUSER", "replica", "off")
            await admin.commands.call("CLIENT", "KILL", "TYPE", "replica")
        await found.flows(50)

        await deployment.fail_over()
        await found.flows(50)

    lost = await nothing_was_lost_in_silence(deployment.url, found)
    assert len(lost) >= 50
    assert found.writer.refusals >= 1
    for reader in found.readers:
        assert set(reader.faults) & {"rolled_back", "fork", "gap"}


@pytest.mark.timeout(120)
async def test_a_master_that_comes_back_follows_and_what_it_had_alone_is_found_missing(
    deployment: Deployment,
) -> None:
    async with traffic(deployment.url) as found:
        await found.flows()
        old, new = await deployment.fail_over()
        old.start()  # as a master: until the sentinels demote it, it answers as one
        await found.flows()

        async def demoted() -> bool:
            return b"role:slave" in await deployment.info(old)

        await until(demoted)
        await found.flows()
        assert await deployment.master() is new

    await nothing_was_lost_in_silence(deployment.url, found)


@pytest.mark.timeout(60)
async def test_dead_sentinels_are_passed_over_and_all_dead_leave_the_known_master(
    deployment: Deployment,
) -> None:
    async with traffic(deployment.url, readers=1) as found:
        await found.flows()
        for one in deployment.sentinels[:2]:
            one.kill()
        await found.flows()
        deployment.sentinels[2].kill()
        await found.flows()


@pytest.mark.timeout(60)
async def test_a_sentinels_deployment_is_checked_at_its_master(deployment: Deployment) -> None:
    found = await weaknesses(deployment.url)
    two = deployment.url.replace(f",{deployment.sentinels[2].address}", "")

    assert [weakness.code for weakness in found] == ["config_refused"]
    assert found[0].where == (await deployment.master()).address
    assert "few_sentinels" in {weakness.code for weakness in await weaknesses(two)}

    with pytest.raises(UnavailableError, match="by any sentinel"):
        await weaknesses(deployment.url.replace("/master?", "/another?"))
