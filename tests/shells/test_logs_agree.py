"""The simulated Redis is held to a real one: the same operations and faults, the same answers."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from zonemesh.errors import MeshError, RefusedError, UnavailableError
from zonemesh.log.memory import MemoryStore, Part
from zonemesh.log.port import Lease, Raw, SnapshotInfo, Store
from zonemesh.log.redis import RedisStore
from zonemesh.model import START, Position
from zonemesh.travel import GLOBAL_LOG, up_log
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

NAMES = (GLOBAL_LOG, up_log("west"))
LEASES = (Lease(writer="a", url="http://a"), Lease(writer="b", url="http://b"))
STEPS = 100
SEEDS = range(20)

Act = Callable[["World"], Awaitable[Any]]
"""One operation or fault, on whichever store."""


@dataclass(slots=True)
class World:
    """A store, and how the faults are brought about in it."""

    store: Store

    async def raw_xadd(self, name: str, raw: Raw) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.raw_xadd(name, raw)
        elif isinstance(self.store, RedisStore):
            try:
                key = self.store.keys.of(name).log
                await self.store.commands.call("XADD", key, str(raw.position), "e", raw.data)
            except UnavailableError as error:
                raise RefusedError(str(error)) from error

    async def delete_entry(self, name: str, position: Position) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.delete_entry(name, position)
        elif isinstance(self.store, RedisStore):
            await self.store.commands.call("XDEL", self.store.keys.of(name).log, str(position))

    async def trim_to(self, name: str, entries: int) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.trim_to(name, entries)
        elif isinstance(self.store, RedisStore):
            key = self.store.keys.of(name).log
            await self.store.commands.call("XTRIM", key, "MAXLEN", "=", entries)

    async def delete_key(self, name: str, part: Part) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.delete_key(name, part)
        elif isinstance(self.store, RedisStore):
            base = self.store.keys.of(name).base
            keys = [f"{base}:{part}"]
            if part == "chunks":
                keys = await self.store.commands.call("KEYS", f"{base}:snapshot:*")
            if keys:
                await self.store.commands.call("DEL", *keys)

    async def seen(self, name: str) -> tuple[Any, ...]:
        """All that a client can see of a log."""
        log = self.store.log(name)
        raws = [tuple(raw) for raw in await log.read(START)]
        chunks = [await answer(loading(name, info), self) for info in await log.snapshots()]
        return await log.head(), raws, await log.snapshots(), chunks, await log.holder()


def loading(name: str, info: SnapshotInfo) -> Act:
    async def act(world: World) -> list[bytes]:
        return list(await world.store.log(name).load_snapshot(info))

    return act


async def answer(act: Act, world: World) -> Any:
    """What comes back: a value, or the name of an error."""
    try:
        return await act(world)
    except MeshError as error:
        return type(error).__name__


class Draw:
    """Draws acts that are likely to mean something: most follow what was drawn before."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.made: list[Sealed] = []
        self.newest: dict[str, Sealed] = {}
        """What a writer that knows nothing of faults takes for the newest entry."""

    def act(self) -> tuple[str, Act]:
        name = self.rng.choice(NAMES)
        kinds = (self._create, self._append, self._append, self._append, self._retry,
                 self._resign, self._snapshot, self._snapshot, self._trim, self._lease,
                 self._lease, self._fault, self._zone)  # fmt: skip
        return self.rng.choice(kinds)(name)

    def _entry(self, name: str) -> Sealed:
        rng = self.rng
        after = self.newest.get(name)
        if self.made and rng.random() < 0.15:
            after = rng.choice(self.made)
        position = Position(1, 0)
        incarnation = f"inc-{rng.randrange(2)}"
        if after is not None:
            position = Position(after.entry.position.term, after.entry.position.seq + 1)
            if rng.random() < 0.9:
                incarnation = after.entry.incarnation
        if rng.random() < 0.2:
            position = Position(position.term + rng.randrange(1, 3), 0)
        elif rng.random() < 0.1:
            position = Position(position.term, position.seq + rng.randrange(1, 4))
        if rng.random() < 0.1:
            after = None
        entry = Entry(
            incarnation=incarnation,
            position=position,
            previous=START if after is None else after.entry.position,
            writer=rng.choice("ab"),
            time_ms=rng.randrange(1_000),
            mono_delta_ms=0,
            log_time_ms=0,
        )
        found = seal(entry, NO_HASH if after is None else after.h)
        self.made.append(found)
        self.newest[name] = found
        return found

    def _create(self, name: str) -> tuple[str, Act]:
        sealed, owner = self._entry(name), self.rng.choice(("", "uid"))
        replaces = self.rng.random() < 0.5

        async def act(world: World) -> None:
            log = world.store.log(name)
            head = await log.head() if replaces else None
            await log.create(sealed, owner=owner, replacing=head)

        return f"create {sealed.entry.position} replacing={replaces}", act

    def _append(self, name: str) -> tuple[str, Act]:
        sealed, owner = self._entry(name), self.rng.choice((None, None, "uid", "other"))

        async def act(world: World) -> None:
            log = world.store.log(name)
            await log.append(sealed, owner=owner)

        return f"append {sealed.entry.position} after {sealed.entry.previous}", act

    def _retry(self, name: str) -> tuple[str, Act]:
        if not self.made:
            return self._append(name)
        sealed = self.rng.choice(self.made[-4:])
        return f"retry {sealed.entry.position}", lambda world: world.store.log(name).append(sealed)

    def _resign(self, name: str) -> tuple[str, Act]:
        sealed, lease = self._entry(name), self.rng.choice(LEASES)
        return f"resign {sealed.entry.position}", lambda world: world.store.log(name).resign(
            sealed, lease
        )

    def _snapshot(self, name: str) -> tuple[str, Act]:
        if not self.made:
            return self._append(name)
        sealed = self.newest.get(name, self.made[-1])
        if self.rng.random() < 0.4:
            sealed = self.rng.choice(self.made)
        entry, chunks = sealed.entry, [b"chunk"] * self.rng.randrange(1, 3)
        info = SnapshotInfo(
            incarnation=entry.incarnation, position=entry.position, h=sealed.h, chunks=len(chunks)
        )
        return f"snapshot {entry.position}", lambda world: world.store.log(name).put_snapshot(
            info, chunks
        )

    def _trim(self, name: str) -> tuple[str, Act]:
        before = self.rng.choice(self.made).entry.position if self.made else START
        return f"trim {before}", lambda world: world.store.log(name).trim(before)

    def _lease(self, name: str) -> tuple[str, Act]:
        lease, what = self.rng.choice(LEASES), self.rng.choice(("acquire", "renew", "release"))
        return f"{what} {lease.writer}", lambda world: getattr(world.store.log(name), what)(lease)

    def _zone(self, name: str) -> tuple[str, Act]:
        what = self.rng.choice(("announce", "announce", "forget"))

        async def act(world: World) -> frozenset[str]:
            await getattr(world.store, what)("west")
            return await world.store.zones()

        return what, act

    def _fault(self, name: str) -> tuple[str, Act]:
        rng = self.rng
        what = rng.choice(("raw_xadd", "delete_entry", "trim_to", "delete_key"))
        if what == "delete_key":
            part = rng.choice(get_args(Part))
            return f"DEL {part}", lambda world: world.delete_key(name, part)
        if what == "trim_to":
            entries = rng.randrange(4)
            return f"XTRIM {entries}", lambda world: world.trim_to(name, entries)
        sealed = self._entry(name) if what == "raw_xadd" or not self.made else rng.choice(self.made)
        position = sealed.entry.position
        if what == "delete_entry":
            return f"XDEL {position}", lambda world: world.delete_entry(name, position)
        if rng.random() < 0.5:
            self.newest.pop(name, None)  # the writer does not know of it
        raw = Raw(position, sealed.data)
        return f"XADD {position}", lambda world: world.raw_xadd(name, raw)


@pytest.mark.parametrize("seed", SEEDS)
async def test_memory_answers_as_a_real_redis_whatever_is_asked_and_broken(
    redis_url: str, seed: int
) -> None:
    real = RedisStore(redis_url, lease_ms=600_000)
    worlds = [World(MemoryStore(lambda: 0.0)), World(real)]
    draw = Draw(seed)
    told = []
    for _ in range(STEPS):
        label, act = draw.act()
        told.append(label)
        in_memory, in_redis = [await answer(act, world) for world in worlds]
        assert in_memory == in_redis, "; ".join(told[-30:])
        for name in NAMES:
            of_memory, of_redis = [await world.seen(name) for world in worlds]
            assert of_memory == of_redis, (name, told)
    await real.close()
