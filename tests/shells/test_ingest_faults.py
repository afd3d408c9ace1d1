"""What a zone puts into its own keys stops that zone, and neither the leader nor another zone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest

from globalcp import ingest
from globalcp.app import Replica
from globalcp.config import GlobalConfig
from globalcp.inputs import Merge
from tests.patience import SLOWER
from tests.redis_server import RedisServer
from tests.scenarios.nodes import Copy
from tests.zones_up import SERVICE, key_of, service
from zonemesh.errors import InputError
from zonemesh.log import snapshot
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.memory import MemoryStore
from zonemesh.log.port import SnapshotInfo
from zonemesh.log.redis import RedisStore
from zonemesh.model import Change, Position
from zonemesh.runtime.supervise import Backoff, supervise
from zonemesh.seen import Seen
from zonemesh.travel import SEEN, up_log
from zonemesh.wire import Entry, Sealed, chain

EVIL = "{zm}:zone:evil:up"
HEAD = (
    *("incarnation", "x", "position", "1-0", "h", "12345678"),
    *("time", "1", "format", "1", "owner", "u"),
)


class Mesh:
    """A leading replica over a real Redis that a hostile zone shares."""

    def __init__(self, url: str) -> None:
        self.store = RedisStore(url)
        self.appenders: dict[str, Appender] = {}
        self.start()

    def start(self) -> None:
        disk = Copy(MemoryStore(lambda: 0.0), "global")
        self.replica = Replica(GlobalConfig(), self.store, disk, clock=Clock(), url="http://g")
        components = self.replica.components()
        self.task = asyncio.create_task(supervise(components, Backoff(), random.Random(1)))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def redis(self, *command: str | bytes | int) -> Any:
        return await self.store.commands.call(*command)

    async def write(
        self,
        zone: str,
        *changes: Change,
        note: dict[str, Any] | None = None,
        bytes_max: int = 1 << 20,
    ) -> Sealed:
        await self.store.announce(zone)
        if zone in self.appenders:
            return await self.appenders[zone].commit(changes=changes, note=note or {})
        log = self.store.log(up_log(zone))
        appender = Appender(log, writer="w", clock=Clock(), bytes_max=bytes_max)
        self.appenders[zone] = appender
        return await appender.create(f"inc-{zone}", term=1, owner="u", note=note, changes=changes)

    def has(self, name: str, zone: str = "west") -> bool:
        return self.replica.state.registry.get(SERVICE, key_of(name, zone)) is not None

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(SLOWER * 10):
            while not done():
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.02)

    async def west_is_merged(self, name: str = "web") -> None:
        await self.write("west", service(name))
        await self.until(lambda: self.has(name))

    def resyncs(self, zone: str = "evil") -> set[str]:
        counts = self.replica.plane.counts.resyncs
        return {reason for of, reason in counts if of == zone}


@pytest.fixture
async def mesh(redis_server: RedisServer) -> AsyncIterator[Mesh]:
    redis_server.command("FLUSHALL")
    mesh = Mesh(redis_server.url)
    await mesh.until(lambda: mesh.replica.leadership.writer is not None)
    yield mesh
    await mesh.stop()
    await mesh.store.close()


@pytest.mark.parametrize("name", ["a b", b"\xff", "", "UPPER", "x" * 64])
async def test_a_name_that_is_no_zones_is_ignored(mesh: Mesh, name: str | bytes) -> None:
    await mesh.redis("SADD", "{zm}:zones", name)

    await mesh.west_is_merged()

    assert await mesh.store.zones() == {"west"}
    assert mesh.store.odd_zones == {name.encode() if isinstance(name, str) else name}


UNREADABLE = {
    "a head without fields": [("HSET", f"{EVIL}:head", "incarnation", "x", "position", "zzz")],
    "a head beyond any position": [
        ("HSET", f"{EVIL}:head", *HEAD, "position", "99999999999999999999999-0")
    ],
    "a head with a long hash": [("HSET", f"{EVIL}:head", *HEAD, "h", "x" * 1_000)],
    "a head that is no hash": [("SET", f"{EVIL}:head", "x")],
    "a log that is no stream": [
        ("HSET", f"{EVIL}:head", *HEAD),
        ("SET", f"{EVIL}:log", "x"),
    ],
}


@pytest.mark.parametrize("commands", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_zone_whose_keys_cannot_be_read_waits_alone(
    mesh: Mesh, commands: list[tuple[str, ...]]
) -> None:
    await mesh.west_is_merged()
    await mesh.redis("SADD", "{zm}:zones", "evil")
    for command in commands:
        await mesh.redis(*command)
    await mesh.until(lambda: mesh.resyncs() == {"wrong_key"})

    await mesh.west_is_merged("api")

    await mesh.redis("DEL", f"{EVIL}:head", f"{EVIL}:log")
    await mesh.write("evil", service("cured", "evil"))
    await mesh.until(lambda: mesh.has("cured", "evil"))


async def test_an_announcement_that_cannot_be_read_stops_nobody_else(mesh: Mesh) -> None:
    await mesh.redis("SADD", "{zm}:zones", "evil")
    await mesh.redis("HSET", f"{EVIL}:head", *HEAD)
    await mesh.redis("XADD", mesh.store.keys.of(up_log("evil")).snapshots, "1-0", "a", "b")
    await mesh.redis("XADD", f"{EVIL}:log", "18446744073709551615-1", "e", "x")
    await mesh.until(lambda: mesh.resyncs() == {"bad_entry", "wrong_key"})

    await mesh.west_is_merged()


async def test_an_entry_too_large_for_an_up_stream_stops_its_stream_only(mesh: Mesh) -> None:
    await mesh.write("evil", Change("Foo", key_of("x", "evil"), b"x" * ((1 << 20) - 200)))
    await mesh.until(lambda: mesh.resyncs() == {"bad_entry"})

    await mesh.west_is_merged()


async def test_what_a_zone_says_of_itself_is_bounded(mesh: Mesh) -> None:
    note = {"uid": ["x"], "url": "h" * 250_000, "version": "1\n2", "lag_ms": 1 << 63, "applied": 7}
    for number in range(6):
        zone = f"evil{number}"
        await mesh.write(zone, service("x", zone), note=note)
    await mesh.until(lambda: all(mesh.has("x", f"evil{number}") for number in range(6)))

    await mesh.west_is_merged()

    seen = Seen.of(mesh.replica.state.registry, "evil0")
    assert seen is not None
    assert (seen.uid, seen.url, seen.version) == ("u", "", "")
    assert seen.lag_ms is not None
    assert seen.lag_ms < 1 << 53


async def put_snapshot(mesh: Mesh, last: Sealed, zone: str, rows: list[Any]) -> None:
    chunks = snapshot.encode({"zone": zone}, rows)
    entry = last.entry
    info = SnapshotInfo(
        incarnation=entry.incarnation, position=entry.position, h=last.h, chunks=len(chunks)
    )
    await mesh.store.log(up_log(zone)).put_snapshot(info, chunks)


@pytest.mark.parametrize("bomb", [True, False])
async def test_a_snapshot_too_large_to_take_in_stops_its_zone_only(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, bomb: bool
) -> None:
    await mesh.stop()
    lower = {"snapshot_bytes_max": 1 << 20}
    monkeypatch.setattr(ingest.Ingest.__init__, "__kwdefaults__", lower)
    mesh.start()
    last = await mesh.write("evil", note={"full": True})
    rows = (
        [("Foo", key_of(f"x{number}", "evil"), bytes(250_000)) for number in range(5)]
        if bomb
        else [("Foo", key_of("x", "evil"), bytes(300_000))]
    )
    await put_snapshot(mesh, last, "evil", rows)
    await mesh.until(lambda: "bad_entry" in mesh.resyncs())

    await mesh.west_is_merged()

    assert not mesh.replica.state.registry.table("Foo")


async def test_an_entry_of_a_newer_build_at_the_cursor_stops_its_zone_only(mesh: Mesh) -> None:
    first = await mesh.write("evil", service("x", "evil"))
    await mesh.until(lambda: mesh.has("x", "evil"))
    position = Position(1, 1)
    body: bytes = msgpack.packb(("future",))
    h = chain(first.h, body)
    data: bytes = msgpack.packb((2, body, h))
    entry = Entry(
        incarnation="inc-evil",
        position=position,
        previous=Position(1, 0),
        writer="w",
        time_ms=1,
        mono_delta_ms=0,
        log_time_ms=0,
    )
    newer = Sealed(entry, data, h, first.h)
    await mesh.store.log(up_log("evil")).append(newer)
    await put_snapshot(mesh, newer, "evil", [])
    await mesh.until(lambda: not mesh.has("x", "evil"))

    await mesh.stop()
    mesh.start()

    await mesh.west_is_merged()
    assert mesh.replica.state.registry.cursors[up_log("evil")].position == position


@pytest.mark.parametrize("applied", [7, [], {"global": 5}, {"global": []}, {"global": [b"x", 1]}])
async def test_a_mesh_is_founded_whatever_a_zone_says_it_follows(
    mesh: Mesh, applied: object
) -> None:
    await mesh.stop()
    await mesh.redis("FLUSHALL")
    await mesh.write("evil", note={"applied": applied})

    mesh.start()

    await mesh.west_is_merged()


async def test_what_was_not_merged_is_not_passed_by_the_next_cursor(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.west_is_merged("first")
    submitted = mesh.replica.leadership.writer
    assert submitted is not None
    enqueue = submitted.enqueue
    failures = 2

    def failing(item: Any) -> asyncio.Future[Any]:
        nonlocal failures
        if isinstance(item, Merge) and failures:
            failures -= 1
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_result(InputError("refused as a whole"))
            return refused
        return enqueue(item)

    monkeypatch.setattr(submitted, "enqueue", failing)
    monkeypatch.setattr(ingest, "_PARK_S", 0.1)

    await mesh.write("west", service("web"))
    await mesh.write("west", service("api"))

    await mesh.until(lambda: mesh.has("web") and mesh.has("api"))
    assert "not_merged" in mesh.resyncs("west")
    assert SEEN in mesh.replica.state.registry.tables


async def test_a_loss_that_a_zone_tells_of_once_is_heard_whatever_comes_next(mesh: Mesh) -> None:
    await mesh.west_is_merged()
    registry = mesh.replica.state.registry

    await mesh.write("west", note={"lost": [registry.incarnation, [9, 9]]})
    for number in range(5):
        await mesh.write("west", service(f"news-{number}"))

    await mesh.until(lambda: registry.position.term > 9)
    await mesh.west_is_merged("later")
