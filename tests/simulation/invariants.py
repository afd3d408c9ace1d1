"""What must hold at every moment, whatever is done to a mesh: one checker per promise, by number.

  I1   no two live bindings share an address, on any registry, ever (or, where addresses are given
       again, at any one time)
  I2   a key's address never changes, and a name's neither
  I3   an address that was released finds another key only after the quarantine
  I4   what is at the same place of the same chain is the same, to the byte
  I5   what was removed, and told so, is not back unless somebody makes it again
  I6   no agent loses a name that nobody removed
  I7   once the faults stop, all is as the zones' own logs say, without anybody's help
       (`Simulation.make_peace`)
  I8   an agent's map never becomes an older one, across its own restart too
  I9   what is applied follows what was applied before
  I10  what is known of a zone is what that zone has said
  I11  behind a term's first entry nothing of an earlier term is taken, nor of another writer
  I12  what is the same again is written to no log and pushed to no agent
  I13  a copy that is behind says so
  I15  a name that exists is never NXDOMAIN; one that does not exist is, once the zone has told what
       there is, and SERVFAIL before
  I16  an agent that starts without any zone answers what it answered before
  I18  logs, snapshots and rings have a limit
  I19  who has a name that several want is the same everywhere: the one that was merged first
  I20  who cannot reach the store tries a few times a second, and so do all that come back
  I21  log time never runs faster than time, whatever the clocks show
  I22  a map does not drop most of its names at once unless they were removed

Elsewhere: I14 (isolation: its content is I6 and I10 here; its times are `tests/bench`), I17 (mixed
versions: `tests/rules/test_wire.py`, `tests/rules/test_resources.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tests.scenarios.auditor import Auditor
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.virtualtime import current
from tests.scenarios.world import World
from zonemesh.errors import WireError
from zonemesh.ipam import Binding, ipv4_text, pool_of
from zonemesh.log.appender import Appender
from zonemesh.log.memory import MemoryLog, MemoryStore, _LogData, _Stream
from zonemesh.log.port import Head, Raw
from zonemesh.model import START, Change, Cursor, Position, zone_of
from zonemesh.registry import Index, Registry
from zonemesh.replica import RESTORED
from zonemesh.wire import NO_HASH, Sealed, decode

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

REQUESTS_PER_S = 400
"""Of one process: an ordinary second has some forty, one of catching up a hundred and more."""
HONEST_S = 2.0
NOTICED_S = 3.0
"""A head is read each second, over a link that may be slow, and has the time of its composition."""
LOG_TIME_SLACK_MS = 500.0
"""Of rounding."""
DROP_SHARE = 0.5
DROP_NAMES = 20


class Watch(Auditor):
    """Sees every entry that a log takes, all that is applied, and all that agents are told."""

    def __init__(self, fail: Callable[[str], None], *, quarantine_s: float) -> None:
        super().__init__(fail)
        self._quarantine_s = quarantine_s
        self.reuse = quarantine_s < 3_600.0
        self.store: MemoryStore | None = None
        self.broken: set[str] = set()
        """Numbers of the invariants that did not hold."""
        self.forgiven: set[str] = set()
        """Zones that have lost the only copy of something: their bindings may be made anew."""
        self.made: Counter[str] = Counter()
        """How often somebody has tried to make each service."""
        self.accepted_s: dict[tuple[str, Position, bytes], float] = {}
        """When global's log took an entry."""
        self._false_since_s: dict[str, float] = {}
        self._resting: WeakKeyDictionary[Registry, dict[int, tuple[str, int]]] = WeakKeyDictionary()
        """By a zone's own registry and address: whose it was, and since when, in the zone's log
        time. Whoever starts again reads all of it again."""
        self._log_time_ms: int | None = None
        """Of the entry that is being applied."""
        self._digests: dict[tuple[str, Position, bytes], str] = {}
        self._writers: WeakKeyDictionary[Registry, tuple[str, int, str]] = WeakKeyDictionary()
        self._said: defaultdict[tuple[str, str], set[bytes | None]] = defaultdict(set)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sealed_s: dict[bytes, float] = {}
        self._log_offsets_ms: dict[bytes, float] = {}
        """By entry: the least by which log time was ahead of time along the way there."""

    def violated(self, number: str, what: str) -> None:
        self.broken.add(number)
        self._fail(f"{number}: {what}")

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # Bindings and records: I1, I2, I3, I10

    def of(self, name: str, registry: Registry) -> Index:
        return _Side(self, name, registry)

    def seen(self, name: str, registry: Registry, change: Change, old: bytes | None) -> None:
        """A registry of a node has changed in one record."""
        kind, key, new = change
        pool = pool_of(kind)
        if pool is not None:
            owner = _zone_at(name) if registry._keeps is None else None  # else a copy of a part
            resting = self._resting.setdefault(registry, {}) if zone_of(key) == owner else None
            self._bound((pool, key), old, new, resting)
        elif kind in ("MeshService", "Dataplane") and zone_of(key):
            if _zone_at(name) == zone_of(key):
                self._said[kind, key].add(new)
            elif new is not None and new not in self._said[kind, key]:
                self.violated("I10", f"{name} has a {kind} {key} that its zone never had")

    def _bound(
        self,
        place: tuple[str, str],
        old: bytes | None,
        new: bytes | None,
        resting: dict[int, tuple[str, int]] | None,
    ) -> None:
        was = None if old is None else Binding.unpack(old)
        now = None if new is None else Binding.unpack(new)
        if resting is not None:
            self._rests(resting, place[1], was, now)
        if now is not None and now.address is not None and now.live:
            self._keep(place, now.address)

    def _rests(
        self,
        resting: dict[int, tuple[str, int]],
        key: str,
        was: Binding | None,
        now: Binding | None,
    ) -> None:
        """By the log that decides: whoever reads it again sees all of it at once."""
        for binding in (was, now):
            if binding and binding.address is not None and binding.released_ms is not None:
                resting[binding.address] = key, binding.released_ms
        if now is None or now.address is None or not now.live or self._log_time_ms is None:
            return
        holder, since_ms = resting.pop(now.address, (key, 0))
        rested_s = (self._log_time_ms - since_ms) / 1000
        if holder != key and rested_s < self._quarantine_s:
            told = f"{ipv4_text(now.address)} of {holder} after {rested_s:.1f} s"
            self.violated("I3", f"{key} was given {told}")

    def _keep(self, place: tuple[str, str], address: int) -> None:
        if zone_of(place[1]) in self.forgiven:
            return
        if self.reuse:
            return  # see `unique`
        known = self._address_of.setdefault(place, address)
        if known != address:
            self.violated("I2", f"{place[1]} moved from {ipv4_text(known)} to {ipv4_text(address)}")
        holder = self._holder_of.setdefault(address, place)
        if holder != place:
            self.violated("I1", f"{ipv4_text(address)} of {holder[1]} was given to {place[1]}")

    def unique(self, name: str, registry: Registry) -> None:
        """At one time no address is held twice: of a zone's own registry, or a global replica's."""
        holders: dict[int, str] = {}
        for kind, table in registry.tables.items():
            if pool_of(kind) is None:
                continue
            for key, packed in table.items():
                binding = Binding.unpack(packed)
                if binding.address is None or not binding.live:
                    continue
                other = holders.setdefault(binding.address, key)
                if other != key:
                    where = f"{ipv4_text(binding.address)} at {name}"
                    self.violated("I1", f"{key} and {other} both have {where}")

    # Logs: I4, I9, I11, I21

    def applying(self, registry: Registry, sealed: Sealed) -> None:
        entry = sealed.entry
        self._log_time_ms = entry.log_time_ms
        if registry.incarnation == "":
            return
        # Whoever restores a lost log goes on from its state: all others are told of that state.
        founds = entry.previous == START and entry.note.get(RESTORED) == str(registry.cursor)
        if (entry.incarnation, entry.previous) != registry.cursor and not founds:
            found = Cursor(entry.incarnation, entry.previous)
            self.violated(
                "I9", f"{entry.position} follows {found} and was applied at {registry.cursor}"
            )
        self._one_writer(registry, sealed)

    def applied(self, registry: Registry, sealed: Sealed) -> None:
        self._log_time_ms = None
        if registry._keeps is not None:
            return
        place = registry.incarnation, registry.position, registry.h
        digest = self._digests.setdefault(place, registry.digest)
        if digest != registry.digest:
            self.violated("I4", f"two states at {registry.cursor}")

    def jumped(self, registry: Registry) -> None:
        """A registry was resynchronised: it may continue another history now."""
        self._writers.pop(registry, None)

    def taken(self, log: MemoryLog, stream: _Stream, sealed: Sealed) -> None:
        """A log is about to take an entry."""
        entry = sealed.entry
        server = log._store._server
        top = newest(stream)
        if top is not None:
            self._after(log, top, sealed)
        if self.store is not None and server is self.store._server and log.name == "global":
            self.accepted_s[entry.incarnation, entry.position, sealed.h] = self.now_s
        self._timely(log.name, top, sealed)

    def _after(self, log: MemoryLog, top: Sealed, sealed: Sealed) -> None:
        before, entry = top.entry, sealed.entry
        if before.incarnation != entry.incarnation:
            return
        if entry.position.term < before.position.term:
            told = f"{entry.position} behind {before.position}"
            self.violated("I11", f"{log.name} took {told}, of a deposed writer")
        elif entry.position.term == before.position.term and entry.writer != before.writer:
            self.violated("I11", f"{log.name} took {entry.position} of a second writer")
        elif entry.previous != before.position:
            self.violated("I11", f"{log.name} took {entry.position}, not following its newest")

    def _one_writer(self, registry: Registry, sealed: Sealed) -> None:
        entry = sealed.entry
        term = entry.position.term
        known = self._writers.get(registry)
        if (
            known is not None
            and known[:2] == (entry.incarnation, term)
            and known[2] != entry.writer
        ):
            self.violated("I11", f"{entry.position} of a second writer was applied")
        self._writers[registry] = entry.incarnation, term, entry.writer

    def _timely(self, name: str, top: Sealed | None, sealed: Sealed) -> None:
        """Log time less the time of sealing never rises from an entry to those that follow it."""
        entry = sealed.entry
        sealed_s = self._sealed_s.pop(sealed.h, None)
        if sealed_s is None:
            return  # once more: what a store had lost was restored
        offset_ms = entry.log_time_ms - sealed_s * 1000
        first_ms = offset_ms if top is None else self._log_offsets_ms.get(top.h, offset_ms)
        if offset_ms > first_ms + LOG_TIME_SLACK_MS:
            ahead_s = (offset_ms - first_ms) / 1000
            self.violated("I21", f"{name}'s log time is {ahead_s:.1f} s ahead of time")
        self._log_offsets_ms[sealed.h] = min(first_ms, offset_ms)

    def sealed(self, sealed: Sealed) -> None:
        self._sealed_s[sealed.h] = self.now_s

    def requested(self) -> None:
        place = current(), int(self.now_s)
        self._requests[place] += 1
        if self._requests[place] == REQUESTS_PER_S:
            self.violated("I20", f"{place[0]} asked a store {REQUESTS_PER_S} times in one second")

    # After every operation: I13, I18, and I1 where addresses are given again

    def look(self, simulation: Simulation) -> None:
        world = simulation.world
        for replica in world.replicas:
            if replica.running and self.reuse:
                self.unique(replica.name, replica.registry)
        for node in world.zone_nodes.values():
            if not node.running or node.frozen:
                self._false_since_s.pop(node.name, None)
                continue
            if self.reuse:
                self.unique(node.name, node.zone.state.registry)
            self._honest(world, node)
        self._bounded(simulation)

    def _honest(self, world: World, node: ZoneNode) -> None:
        follower = node.zone.follower
        assert follower is not None
        if follower.lag_s is None and any(each.wall_offset_ms for each in world.nodes):
            return  # nothing but clocks tells how old its copy is
        behind_s = self._behind_s(node.zone.copy)
        lag_s = node.zone.ages.lag_s()
        if lag_s >= behind_s - HONEST_S:
            self._false_since_s.pop(node.name, None)
        elif self.now_s - self._false_since_s.setdefault(node.name, self.now_s) > NOTICED_S:
            told = f"{node.name} says {lag_s:.1f} s and is {behind_s:.1f} s behind"
            self.violated("I13", told)

    def _behind_s(self, copy: Registry) -> float:
        """By how much a copy is behind the newest entry: for so long it was not the newest."""
        assert self.store is not None
        stream = self.store._server.data.log("global").stream
        if stream is None or copy.incarnation == "":
            return 0.0
        for raw in stream.after(copy.position, 1):
            sealed = read(raw)
            if sealed is None or sealed.entry.incarnation != copy.incarnation:
                return 0.0
            since_s = self.accepted_s.get((copy.incarnation, raw.position, sealed.h))
            top = newest(stream)
            if since_s is None or top is None:
                return 0.0
            until_s = self.accepted_s.get((copy.incarnation, stream.last, top.h), since_s)
            return until_s - since_s
        return 0.0

    def _bounded(self, simulation: Simulation) -> None:
        assert self.store is not None
        for name, data in self.store._server.data.logs.items():
            if len(data.snapshots) > 2 or len(data.chunks) > 2:
                self.violated("I18", f"{name} has {len(data.snapshots)} snapshots")
            entries = 0 if data.stream is None else len(data.stream.raws)
            if name == "global" and entries > simulation.entries_max:
                self.violated("I18", f"{name} has {entries} entries")


class _Side:
    """One registry's changes, and whose they are."""

    def __init__(self, watch: Watch, name: str, registry: Registry) -> None:
        self._watch = watch
        self._name = name
        self._registry = registry

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        self._watch.seen(self._name, self._registry, Change(kind, key, new), old)


def _zone_at(node: str) -> str:
    """The zone of one of its control planes: `west` of west-2."""
    return node.partition("-")[0]


def newest(stream: _Stream | None) -> Sealed | None:
    """A stream's last entry, if it has one that can be read."""
    return read(stream.raws[-1]) if stream is not None and stream.raws else None


def read(raw: Raw) -> Sealed | None:
    try:
        sealed, _ = decode(raw.data, NO_HASH)
    except WireError:
        return None
    return sealed


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let a watch see what passes through registries, logs and links."""
    apply, become = Registry.apply, Registry.become
    write, request, seal = MemoryLog._write, MemoryStore.request, Appender._seal

    def watched_apply(self: Registry, sealed: Sealed) -> None:
        watch.applying(self, sealed)
        apply(self, sealed)
        watch.applied(self, sealed)

    def watched_become(self: Registry, fresh: Registry) -> None:
        watch.jumped(self)
        become(self, fresh)

    def watched_seal(self: Appender, *args: Any) -> Sealed:
        sealed = seal(self, *args)
        watch.sealed(sealed)
        return sealed

    def watched_write(
        self: MemoryLog, data: _LogData, stream: _Stream, sealed: Sealed, head: Head
    ) -> None:
        watch.taken(self, stream, sealed)
        write(self, data, stream, sealed, head)

    async def watched_request(self: MemoryStore) -> Any:
        watch.requested()
        return await request(self)

    Registry.apply, Registry.become = watched_apply, watched_become  # type: ignore[method-assign]
    Appender._seal = watched_seal  # type: ignore[method-assign,assignment]
    MemoryLog._write = watched_write  # type: ignore[method-assign]
    MemoryStore.request = watched_request  # type: ignore[method-assign]
    try:
        yield
    finally:
        Registry.apply, Registry.become = apply, become  # type: ignore[method-assign]
        MemoryLog._write, MemoryStore.request = write, request  # type: ignore[method-assign]
        Appender._seal = seal  # type: ignore[method-assign]
