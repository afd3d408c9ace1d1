"""Reading every zone's up stream and handing what it says to the leader's write path."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from globalcp.inputs import Merge, Replace
from globalcp.report import TEXT_MAX, Report
from globalcp.state import GlobalState
from globalcp.turns import ENTRY_COST_BYTES, Allowance, Turns
from zonemesh.errors import (
    GapError,
    LogFaultError,
    MeshError,
    NotFoundError,
    UnavailableError,
    WireError,
    WrongKeyError,
)
from zonemesh.freshness import Freshness, paused_ms
from zonemesh.log import snapshot
from zonemesh.log.clock import Clock
from zonemesh.log.port import Head, Log, Raw, SnapshotInfo, Store
from zonemesh.log.writer import Writer
from zonemesh.model import Cursor, Position
from zonemesh.replica import check_head, follows
from zonemesh.runtime.supervise import REMIND_S
from zonemesh.seen import Seen
from zonemesh.travel import accepted_from_zone, up_log
from zonemesh.wire import HASH_BYTES, NOWHERE, UP_ENTRY_BYTES_MAX, Place, Sealed, decode

_BLOCK_S = 0.25
"""Also how long a zone's very first entry may go unnoticed: the set of zones is read as often."""
_HEADS_EVERY_S = 1.0
_TOLD = {"claims", "returned"}
"""Notes of entries without changes that are to be merged nevertheless."""
_MERGE_BYTES = 256 << 10
"""Source entries put together into one entry: with what global adds, they fit into it."""
_SHARED_BYTES = 48 << 10
"""The same while several zones have news: what one of them waits for another, some 10 ms."""
_SHARING_S = 2.0
"""For so long after its last news a zone is expected to have more."""
_SYNC_RETRY_S = 0.2
_PARK_S = 2.0
"""How long a zone of which something cannot be read is left alone; others are read meanwhile."""
SNAPSHOT_BYTES_MAX = 512 << 20
"""What one zone's snapshot may unpack to in memory. A million records of the usual size have it;
a few KiB of zstd can mean terabytes."""
_ROW_OVERHEAD_BYTES = 200
"""What Python keeps per row besides its text: rows of nothing must not be free."""
_ROWS_PER_TURN = 2_000
_READ_COUNT = 64
_READ_COUNT_ALL = 512
"""Entries that one read may bring in all; they wait in memory, 256 KiB each at most."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Stream:
    """One zone's stream as read so far."""

    log: Log
    allowance: Allowance
    """How fast it may be read."""
    place: Place = NOWHERE
    report: Report | None = None
    known: bool = False
    """False until it was looked up where reading starts."""
    syncing: asyncio.Task[None] | None = None
    last_seen_s: float = 0.0
    freshness: Freshness = field(default_factory=Freshness)
    log_time_ms: int = 0
    """Of the newest entry read, as `freshness` reckons."""
    parked_until_s: float = 0.0
    fault: str | None = None
    """Why it is parked; told once."""
    waiting: deque[Raw] = field(default_factory=deque)
    """Read and not merged yet; while there are some, no more are read."""
    all_s: float | None = None
    """As of when they were all there was; None if there may have been more."""
    news_s: float = float("-inf")
    """When there last were some."""
    held_told_s: float = float("-inf")
    reread: Position | None = None
    """Where reading last went on after a fault: there a second time, it waits."""

    def taken(self) -> None:
        """Some of what was read was taken; after all of it, the next is no older than the read."""
        if not self.waiting and self.all_s is not None:
            self.freshness.read_all(self.all_s)


@dataclass(slots=True)
class Counts:
    """For metrics."""

    entries: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    resyncs: Counter[tuple[str, str]] = field(default_factory=Counter)
    held_s: dict[str, float] = field(default_factory=dict)
    """Seconds until a zone that sends too much is read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast one zone's stream is read, on average."""

    entries_per_s: float = 2_000.0
    bytes_per_s: float = float(16 << 20)


class Ingest:
    """One leader's reading of all zones. Made anew for each term: the cursors are the state's."""

    def __init__(
        self,
        store: Store,
        state: GlobalState,
        writer: Writer,
        clock: Clock,
        *,
        rates: Rates | None = None,
        snapshot_bytes_max: int = SNAPSHOT_BYTES_MAX,
        zone_ages_s: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`zone_ages_s`: how old what is merged of each zone is."""
        self._store = store
        self._state = state
        self._writer = writer
        self._clock = clock
        self._rates = rates or Rates()
        self._snapshot_bytes_max = snapshot_bytes_max
        self._turns = Turns()
        self._zone_ages_s = zone_ages_s
        self._streams: dict[str, _Stream] = {}
        self._moved: dict[str, Report] = {}
        self._zones_read_s = float("-inf")
        self._heads_read_s = float("-inf")
        self.counts = Counts()
        self.unbridged: set[str] = set()
        """Zones that can read on in global's log only from a snapshot that is still to be made."""

    def moved(self) -> dict[str, Report]:
        """Zones heard from since the last call whose news was only that they live."""
        moved, self._moved = self._moved, {}
        return moved

    async def run(self) -> None:
        """Read for ever.

        Raises:
            UnavailableError: The store does not answer.
        """
        self._streams.clear()
        self._zones_read_s = float("-inf")
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._find_zones(group)
                    await self._read()
                    await self._merge(group)
                    await self._check_heads(group)
        except* UnavailableError as errors:
            raise UnavailableError(str(errors.exceptions[0])) from errors

    async def _find_zones(self, group: asyncio.TaskGroup) -> None:
        now_s = self._clock.mono_s()
        if now_s - self._zones_read_s < _BLOCK_S:
            return
        self._zones_read_s = now_s
        zones = await self._store.zones()
        for zone in set(self._streams) - zones:
            del self._streams[zone]
        for zone in sorted(zones - set(self._streams)):
            self._streams[zone] = _Stream(
                self._store.log(up_log(zone)),
                Allowance(
                    entries_per_s=self._rates.entries_per_s,
                    bytes_per_s=self._rates.bytes_per_s,
                    now_s=now_s,
                ),
            )
        for zone, stream in self._streams.items():
            if stream.known or stream.syncing is not None or now_s < stream.parked_until_s:
                continue
            try:
                await self._start(zone, stream, group)
            except WrongKeyError as error:
                self._park(zone, stream, error)

    def _park(self, zone: str, stream: _Stream, error: MeshError) -> None:
        """Leave one zone alone for a while: what it put into its keys must stop nobody else."""
        self.counts.resyncs[zone, error.code] += 1
        stream.waiting.clear()
        stream.known = False
        stream.parked_until_s = self._clock.mono_s() + _PARK_S
        if stream.fault != str(error):
            stream.fault = str(error)
            log.warning("zone_parked", zone=zone, reason=error.code, error=str(error))

    async def _start(self, zone: str, stream: _Stream, group: asyncio.TaskGroup) -> None:
        """Find the place in the chain where the merged state ends."""
        head = await stream.log.head()
        if head is None:
            return
        if stream.fault is not None:
            await stream.log.read(head.position, count=1)  # raises, if that is still the fault
        stream.known = True
        cursor = self._state.registry.cursors.get(up_log(zone))
        stream.report = Report.of_head(head, cursor or head.cursor)
        if cursor is None:
            return
        place = await self._merged_place(zone, stream)
        if place is None:
            fault = GapError(f"{cursor} is not in the stream any more")
            self._sync(zone, stream, fault, group)
        else:
            stream.place = place
            age_s = self._zone_ages_s().get(zone)
            if age_s is not None:
                # Rather than by the zone's wall clock: that may be off by any time.
                stream.freshness.guess(age_s, stream.log_time_ms, self._clock.mono_s())
            stream.report = replace(stream.report, as_of_s=self._as_of_s(stream))

    async def _merged_place(self, zone: str, stream: _Stream) -> Place | None:
        """The place of the last entry that is merged; None if the stream does not hold it."""
        cursor = self._state.registry.cursors.get(up_log(zone))
        if cursor is None:
            return None
        for raw in await stream.log.read(cursor.position.before(), count=1):
            try:
                sealed, _ = _decode(raw, NOWHERE.h)
            except WireError:
                return None  # merged, or taken from a snapshot, by a build that could read it
            seen = Seen.of(self._state.registry, zone)
            same = seen is None or seen.h in (b"", sealed.h)
            if same and (sealed.entry.incarnation, raw.position) == cursor:
                stream.log_time_ms = sealed.entry.log_time_ms
                return sealed.place
        return None

    async def _read(self) -> None:
        """Read from zones of which nothing waits any more, as fast as each may be read.

        While anything waits, only what is there already is read: it must not wait for more.
        """
        after, block_s = self._readable()
        if not after:
            await asyncio.sleep(block_s)
            return
        count = max(1, min(_READ_COUNT, _READ_COUNT_ALL // len(after)))
        asked_s = self._clock.mono_s()
        try:
            found = await self._store.read_many(after, block_s=block_s, count=count)
        except WrongKeyError:
            found = await self._read_each(after)  # one of them is wrong, and it is not said which
        # Not as of now: the answer may have waited while this process was stopped.
        as_of_s = min(asked_s + block_s, self._clock.mono_s())
        for zone, stream in self._streams.items():
            raws = found.get(up_log(zone))
            if raws and stream.syncing is None:
                stream.waiting.extend(raws)
                stream.all_s = asked_s if len(raws) < count else None
                stream.last_seen_s = self._clock.mono_s()
                size = sum(len(raw.data) for raw in raws)
                stream.allowance.take(stream.last_seen_s, entries=len(raws), size=size)
            elif not raws and up_log(zone) in after:
                stream.freshness.read_all(as_of_s)

    def _readable(self) -> tuple[dict[str, Position], float]:
        """Which logs are to be read, after which positions, and how long to wait for news."""
        now_s = self._clock.mono_s()
        after = {}
        block_s = _BLOCK_S
        for zone, stream in self._streams.items():
            if stream.waiting:
                block_s = 0.0
            elif stream.known and stream.syncing is None:
                held_s = self._held_s(zone, stream, now_s)
                if held_s > 0.0:
                    block_s = min(block_s, held_s)
                else:
                    after[up_log(zone)] = stream.place.position
        return after, block_s

    def _held_s(self, zone: str, stream: _Stream, now_s: float) -> float:
        """How long a zone that sends too much is not read yet."""
        held_s = stream.allowance.wait_s(now_s)
        if held_s > 0.0:
            self.counts.held_s[zone] = held_s
            if now_s - stream.held_told_s >= REMIND_S:
                stream.held_told_s = now_s
                log.warning("zone_read_slower", zone=zone, next_s=round(held_s, 2))
        else:
            self.counts.held_s.pop(zone, None)
        return held_s

    async def _read_each(self, after: Mapping[str, Position]) -> dict[str, Sequence[Raw]]:
        """As the store's `read_many`, at once, but a log that cannot be read costs only itself."""
        found = {}
        parked = False
        for zone, stream in self._streams.items():
            name = up_log(zone)
            if name not in after:
                continue
            try:
                found[name] = await stream.log.read(after[name], count=_READ_COUNT)
            except WrongKeyError as error:
                parked = True
                self._park(zone, stream, error)
        if not parked:
            await asyncio.sleep(_BLOCK_S)
        return found

    async def _merge(self, group: asyncio.TaskGroup) -> None:
        """Have an entry's worth of what waits merged, by turns: nothing may pass what was not."""
        streams = self._streams
        now_s = self._clock.mono_s()
        sharing = sum(now_s - each.news_s < _SHARING_S for each in streams.values()) > 1
        left = _SHARED_BYTES if sharing else _MERGE_BYTES
        merging: list[tuple[str, _Stream, asyncio.Future[Any]]] = []
        for zone in self._turns.order(zone for zone, each in streams.items() if each.waiting):
            stream = streams[zone]
            if merging and len(stream.waiting[0].data) + ENTRY_COST_BYTES > left:
                break  # first in the next entry, as it had least by then
            taken, size = self._take(zone, stream, left, group)
            self._turns.serve(zone, size)
            if isinstance(taken, Report):
                self._moved[zone] = taken
            elif taken is not None:
                self._moved.pop(zone, None)
                stream.news_s = now_s
                merging.append((zone, stream, self._writer.enqueue(taken)))
            left -= size
            if left <= 0:
                break
        for zone, stream, done in merging:
            outcome = await done
            if isinstance(outcome, MeshError):
                self._sync(zone, stream, _NotMergedError(outcome), group)

    def _take(
        self, zone: str, stream: _Stream, bytes_max: int, group: asyncio.TaskGroup
    ) -> tuple[Merge | Report | None, int]:
        """The next of what waits, one entry of the zone at least; a heartbeat is only reported.

        Also what that costs, as `Turns` counts it.
        """
        entries: list[Sealed] = []
        size = 0
        try:
            while stream.waiting:
                raw = stream.waiting[0]
                cost = len(raw.data) + ENTRY_COST_BYTES
                if size and size + cost > bytes_max:
                    break
                stream.waiting.popleft()
                size += cost
                sealed, chained = _decode(raw, stream.place.h)
                if not follows(stream.place, sealed, chained=chained):
                    continue
                if sealed.entry.note.get("full"):
                    raise _FullSyncError(sealed.entry.position)
                entries.append(sealed)
                self.counts.entries[zone] += 1
                self.counts.bytes[zone] += len(raw.data)
                self._advance(stream, sealed)
                if sealed.entry.note.get("unbridged") is True:
                    self.unbridged.add(zone)
        except (LogFaultError, WireError) as fault:
            self._sync(zone, stream, fault, group)
        else:
            stream.taken()
        return self._news(zone, stream, entries), size

    def _advance(self, stream: _Stream, sealed: Sealed) -> None:
        entry = sealed.entry
        stream.place = sealed.place
        if not stream.freshness.known:
            age_s = (self._clock.wall_ms() - entry.time_ms) / 1000
            stream.freshness.guess(age_s, entry.log_time_ms, self._clock.mono_s())
        stream.freshness.applied(
            entry.log_time_ms, self._clock.mono_s(), paused_ms=paused_ms(entry.note)
        )
        stream.log_time_ms = entry.log_time_ms
        stream.report = replace(
            Report.of_entry(sealed, stream.report), as_of_s=self._as_of_s(stream)
        )
        stream.fault = None

    def _news(self, zone: str, stream: _Stream, entries: Sequence[Sealed]) -> Merge | Report | None:
        if not entries or stream.report is None:
            return None
        report = replace(stream.report, lost=_lost(entries))
        tells = any(sealed.entry.changes or _TOLD & sealed.entry.note.keys() for sealed in entries)
        # What only waits for the next heartbeat is forgotten if news comes before it.
        if not (tells or report.left or report.lost) and self._known(zone):
            return report
        return Merge(zone, entries, report)

    def _as_of_s(self, stream: _Stream) -> float | None:
        """When the newest entry read had been made; None before anything is known."""
        now_s = self._clock.mono_s()
        age_s = stream.freshness.age_s(now_s)
        return None if age_s is None else now_s - age_s

    def _known(self, zone: str) -> bool:
        return up_log(zone) in self._state.registry.cursors

    async def _check_heads(self, group: asyncio.TaskGroup) -> None:
        """What reading cannot show: a stream that is gone, or ends before what was read."""
        now_s = self._clock.mono_s()
        if now_s - self._heads_read_s < _HEADS_EVERY_S:
            return
        self._heads_read_s = now_s
        for zone, stream in self._streams.items():
            if not stream.known or stream.syncing is not None:
                continue
            idle = now_s - stream.last_seen_s > _HEADS_EVERY_S
            if not idle or stream.waiting:
                continue
            try:
                head = await stream.log.head()
                check_head(stream.place, None if head is None else head.place, read_nothing=False)
                if zone in self.counts.held_s and stream.report is not None:
                    # It lives, and is only not read.
                    self._moved.setdefault(zone, stream.report)
            except LogFaultError as fault:
                self._sync(zone, stream, fault, group)
            except WrongKeyError as error:
                self._park(zone, stream, error)

    # Full sync

    def _sync(
        self,
        zone: str,
        stream: _Stream,
        fault: LogFaultError | WireError,
        group: asyncio.TaskGroup,
    ) -> None:
        """Take the zone's snapshot instead of its entries, while other zones go on."""
        stream.waiting.clear()
        if stream.syncing is not None:
            return
        self.counts.resyncs[zone, fault.code] += 1
        log.info("zone_resync_started", zone=zone, reason=fault.code, error=str(fault))
        stream.syncing = group.create_task(self._full_sync(zone, stream, fault))

    async def _full_sync(
        self, zone: str, stream: _Stream, fault: LogFaultError | WireError
    ) -> None:
        try:
            found = await self._way_on(zone, stream, fault)
            if isinstance(found, Place):
                if found.position == stream.reread:
                    await asyncio.sleep(_PARK_S)
                stream.place, stream.reread = found, found.position
                log.info("zone_reread", zone=zone, position=str(found.position))
                return
            info, head = found
            # How old a snapshot is, nobody says: what is known of the zone is no younger for it.
            as_of_s = self._clock.mono_s() - self._zone_ages_s().get(zone, 0.0)
            tables = await self._load(zone, stream, info)
            report = replace(Report.of_head(head, info.place.cursor, h=info.h), as_of_s=as_of_s)
            whole = Replace(zone, tables, report)
            while not await self._writer.submit(whole):
                pass  # a bounded part of the difference each time
            stream.place = info.place
            stream.report = report
            log.info("zone_resynced", zone=zone, position=str(info.position))
        except NotFoundError as error:
            log.warning("zone_snapshot_unusable", zone=zone, error=str(error))
            stream.known = False  # look again from the start
        except MeshError as error:
            if isinstance(error, UnavailableError) and not isinstance(error, WrongKeyError):
                raise  # the store does not answer, or this is no leader any more
            self._park(zone, stream, error)
        finally:
            stream.syncing = None

    async def _way_on(
        self, zone: str, stream: _Stream, fault: LogFaultError | WireError
    ) -> Place | tuple[SnapshotInfo, Head]:
        """What leads out of the fault, waiting until there is something.

        That is what is merged, if the stream still (or again) continues it: then only entries
        without news were lost, and reading goes on there. Else the newest snapshot beyond it.
        """
        beyond = fault.position if isinstance(fault, _FullSyncError) else None
        while True:
            head = await stream.log.head()
            if head is not None:
                info = await self._usable(zone, stream, head, beyond)
                if info is not None and isinstance(fault, _NotMergedError):
                    return info, head  # the same entries would most likely fail again
                if beyond is None:
                    place = await self._merged_place(zone, stream)
                    if place is not None and await self._continues(stream, place, head):
                        return place
                if info is not None:
                    return info, head
            await asyncio.sleep(_SYNC_RETRY_S)

    async def _usable(
        self, zone: str, stream: _Stream, head: Head, beyond: Position | None
    ) -> SnapshotInfo | None:
        """The newest snapshot that holds more than what is merged, or than an entry asks for."""
        cursor = self._state.registry.cursors.get(up_log(zone))
        for info in await stream.log.snapshots():
            if info.incarnation != head.incarnation:
                continue
            if beyond is not None and info.position < beyond:
                continue
            if beyond is None and cursor is not None and _covered(info, cursor):
                continue
            return info
        return None

    async def _continues(self, stream: _Stream, place: Place, head: Head) -> bool:
        """Whether the next entry of a stream, if there is one, follows a place."""
        for raw in await stream.log.read(place.position, count=1):
            try:
                sealed, chained = _decode(raw, place.h)
            except WireError:
                return False
            return chained and sealed.entry.previous == place.position
        return head.position == place.position

    async def _load(
        self, zone: str, stream: _Stream, info: SnapshotInfo
    ) -> Mapping[str, Mapping[str, bytes]]:
        bytes_max = self._snapshot_bytes_max
        # Chunks are at least half full, or of one row.
        if info.chunks > 2 + 2 * bytes_max // snapshot.CHUNK_BYTES:
            raise WireError(f"a snapshot of {info.chunks} chunks; at most {bytes_max} bytes")
        chunks = await stream.log.load_snapshot(info)
        meta, rows = await snapshot.decode_in_thread(chunks)
        if meta.get("zone") != zone:
            raise WireError(f"a snapshot of zone {meta.get('zone')!r} in the stream of {zone!r}")
        tables: dict[str, dict[str, bytes]] = {}
        total = 0
        for number, (kind, key, payload) in enumerate(rows, 1):
            size = len(kind) + len(key) + len(payload)
            if size > UP_ENTRY_BYTES_MAX:
                raise WireError(f"row {kind[:100]} {key[:300]} of {size} bytes fits into no entry")
            total += size + _ROW_OVERHEAD_BYTES
            if total > bytes_max:
                raise WireError(f"a snapshot of over {bytes_max} bytes when unpacked")
            if accepted_from_zone(kind):
                tables.setdefault(kind, {})[key] = payload
            if number % _ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
        return tables


class _FullSyncError(LogFaultError):
    """An entry says that the stream goes on from a snapshot: not a fault of anybody's."""

    code = "full_sync"

    def __init__(self, position: Position) -> None:
        super().__init__(f"the zone starts again from a snapshot at {position}")
        self.position = position


class _NotMergedError(LogFaultError):
    """What a zone's entries hold was refused as a whole."""

    code = "not_merged"


def _decode(raw: Raw, previous_h: bytes) -> tuple[Sealed, bool]:
    """As `wire.decode`, and refuse what would not fit into an entry or a record of global's."""
    sealed, chained = decode(raw.data, previous_h, bytes_max=UP_ENTRY_BYTES_MAX)
    entry = sealed.entry
    if entry.position != raw.position:
        raise WireError(f"the entry at {raw.position} says that it is {entry.position}")
    if not 0 < len(entry.incarnation) <= TEXT_MAX or len(sealed.h) != HASH_BYTES:
        raise WireError("an incarnation or a hash of impossible length")
    return sealed, chained


def _covered(info: SnapshotInfo, cursor: Cursor) -> bool:
    """Whether what a snapshot holds is merged already."""
    return info.incarnation == cursor.incarnation and info.position <= cursor.position


def _lost(entries: Sequence[Sealed]) -> Cursor | None:
    """What the zone had applied that global's log lacks, by the newest of its words about that."""
    told = (Cursor.heard(sealed.entry.note.get("lost")) for sealed in reversed(entries))
    return next((cursor for cursor in told if cursor is not None), None)
