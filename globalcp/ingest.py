"""Reading every zone's up stream and handing what it says to the leader's write path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from globalcp.inputs import Merge, Replace, Report
from globalcp.seen import Seen
from globalcp.state import GlobalState
from zonemesh.errors import GapError, LogFaultError, NotFoundError, UnavailableError, WireError
from zonemesh.log import snapshot
from zonemesh.log.clock import Clock
from zonemesh.log.port import Head, Log, Raw, SnapshotInfo, Store
from zonemesh.log.writer import Writer
from zonemesh.model import Cursor, Position
from zonemesh.replica import NOWHERE, Place, check_head, follows
from zonemesh.travel import accepted_from_zone, up_log
from zonemesh.wire import Sealed, decode

_BLOCK_S = 0.25
"""Also how long a zone's very first entry may go unnoticed: the set of zones is read as often."""
_HEADS_EVERY_S = 1.0
_MERGE_BYTES = 256 << 10
"""Source entries put together into one input: with what global adds, they fit into its entry."""
_SYNC_RETRY_S = 0.2

log = structlog.get_logger()


@dataclass(slots=True)
class _Stream:
    """One zone's stream as read so far."""

    log: Log
    place: Place = NOWHERE
    report: Report | None = None
    known: bool = False
    """False until it was looked up where reading starts."""
    syncing: asyncio.Task[None] | None = None
    last_seen_s: float = 0.0
    head_time_ms: int = 0


@dataclass(slots=True)
class Counts:
    """For metrics."""

    entries: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    resyncs: Counter[tuple[str, str]] = field(default_factory=Counter)


class Ingest:
    """One leader's reading of all zones. Made anew for each term: the cursors are the state's."""

    def __init__(self, store: Store, state: GlobalState, writer: Writer, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._writer = writer
        self._clock = clock
        self._streams: dict[str, _Stream] = {}
        self._moved: dict[str, Report] = {}
        self._zones_read_s = float("-inf")
        self._heads_read_s = float("-inf")
        self.counts = Counts()

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
                    await self._read(group)
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
            self._streams[zone] = _Stream(self._store.log(up_log(zone)))
        for zone, stream in self._streams.items():
            if not stream.known:
                await self._start(zone, stream, group)

    async def _start(self, zone: str, stream: _Stream, group: asyncio.TaskGroup) -> None:
        """Find the place in the chain where the merged state ends."""
        head = await stream.log.head()
        if head is None:
            return
        stream.known = True
        cursor = self._state.registry.cursors.get(up_log(zone))
        stream.report = Report(cursor or head.cursor, head.owner, head.time_ms)
        if cursor is None:
            return
        place = await self._merged_place(zone, stream)
        if place is None:
            fault = GapError(f"{cursor} is not in the stream any more")
            self._sync(zone, stream, fault, group)
        else:
            stream.place = place

    async def _merged_place(self, zone: str, stream: _Stream) -> Place | None:
        """The place of the last entry that is merged; None if the stream does not hold it."""
        cursor = self._state.registry.cursors.get(up_log(zone))
        if cursor is None:
            return None
        for raw in await stream.log.read(cursor.position.before(), count=1):
            sealed, _ = decode(raw.data, NOWHERE.h)
            seen = Seen.of(self._state.registry, zone)
            same = seen is None or seen.h in (b"", sealed.h)
            if same and (sealed.entry.incarnation, raw.position) == cursor:
                return Place(*cursor, sealed.h)
        return None

    async def _read(self, group: asyncio.TaskGroup) -> None:
        after = {
            up_log(zone): stream.place.position
            for zone, stream in self._streams.items()
            if stream.known and stream.syncing is None
        }
        if not after:
            await asyncio.sleep(_BLOCK_S)
            return
        found = await self._store.read_many(after, block_s=_BLOCK_S)
        waiting = []
        for zone, stream in self._streams.items():
            raws = found.get(up_log(zone))
            if raws and stream.syncing is None:
                waiting += self._take(zone, stream, raws, group)
        # What was read is committed before more is read: a zone that floods waits for itself.
        for done in waiting:
            await done

    def _take(
        self, zone: str, stream: _Stream, raws: Sequence[Raw], group: asyncio.TaskGroup
    ) -> list[asyncio.Future[Any]]:
        entries: list[Sealed] = []
        size = 0
        waiting: list[asyncio.Future[Any]] = []
        stream.last_seen_s = self._clock.mono_s()
        try:
            for raw in raws:
                sealed, chained = decode(raw.data, stream.place.h)
                if not follows(stream.place, sealed, chained=chained):
                    continue
                if sealed.entry.note.get("full"):
                    raise _FullSyncError(sealed.entry.position)
                if entries and size + len(raw.data) > _MERGE_BYTES:
                    waiting += self._submit(zone, stream, entries)
                    entries, size = [], 0
                entries.append(sealed)
                size += len(raw.data)
                self.counts.entries[zone] += 1
                self.counts.bytes[zone] += len(raw.data)
                self._advance(stream, sealed)
        except (LogFaultError, WireError) as fault:
            self._sync(zone, stream, fault, group)
        waiting += self._submit(zone, stream, entries)
        return waiting

    def _advance(self, stream: _Stream, sealed: Sealed) -> None:
        entry = sealed.entry
        stream.place = Place(entry.incarnation, entry.position, sealed.h)
        stream.report = _report(sealed, stream.report)
        stream.head_time_ms = entry.time_ms

    def _submit(
        self, zone: str, stream: _Stream, entries: Sequence[Sealed]
    ) -> list[asyncio.Future[Any]]:
        if not entries or stream.report is None:
            return []
        last = entries[-1].entry
        report = stream.report
        cursor = Cursor(last.incarnation, last.position)
        if report.cursor != cursor:
            report = _report(entries[-1], report)
        if not any(sealed.entry.changes for sealed in entries) and self._known(zone):
            self._moved[zone] = report
            return []
        self._moved.pop(zone, None)
        return [self._writer.enqueue(Merge(zone, entries, report))]

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
            if not idle:
                continue
            head = await stream.log.head()
            try:
                check_head(stream.place, _place(head), read_nothing=False)
            except LogFaultError as fault:
                self._sync(zone, stream, fault, group)

    # Full sync

    def _sync(
        self,
        zone: str,
        stream: _Stream,
        fault: LogFaultError | WireError,
        group: asyncio.TaskGroup,
    ) -> None:
        """Take the zone's snapshot instead of its entries, while other zones go on."""
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
                stream.place = found
                log.info("zone_reread", zone=zone, position=str(found.position))
                return
            info, head = found
            tables = await self._load(zone, stream, info)
            report = Report(
                Cursor(info.incarnation, info.position), head.owner, head.time_ms, h=info.h
            )
            while not await self._writer.submit(Replace(zone, tables, report)):
                pass  # a bounded part of the difference each time
            stream.place = Place(info.incarnation, info.position, info.h)
            stream.report = report
            log.info("zone_resynced", zone=zone, position=str(info.position))
        except (NotFoundError, WireError) as error:
            log.warning("zone_snapshot_unusable", zone=zone, error=str(error))
            stream.known = False  # look again from the start
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
            if beyond is None and head is not None:
                place = await self._merged_place(zone, stream)
                if place is not None and await self._continues(stream, place, head):
                    return place
            cursor = self._state.registry.cursors.get(up_log(zone))
            for info in await stream.log.snapshots() if head is not None else ():
                if head is None or info.incarnation != head.incarnation:
                    continue
                if beyond is not None and info.position < beyond:
                    continue
                if beyond is None and cursor is not None and _covered(info, cursor):
                    continue
                return info, head
            await asyncio.sleep(_SYNC_RETRY_S)

    async def _continues(self, stream: _Stream, place: Place, head: Head) -> bool:
        """Whether the next entry of a stream, if there is one, follows a place."""
        for raw in await stream.log.read(place.position, count=1):
            try:
                sealed, chained = decode(raw.data, place.h)
            except WireError:
                return False
            return chained and sealed.entry.previous == place.position
        return head.position == place.position

    async def _load(
        self, zone: str, stream: _Stream, info: SnapshotInfo
    ) -> Mapping[str, Mapping[str, bytes]]:
        chunks = await stream.log.load_snapshot(info)
        meta, rows = await snapshot.decode_in_thread(chunks)
        if meta.get("zone") != zone:
            raise WireError(f"a snapshot of zone {meta.get('zone')!r} in the stream of {zone!r}")
        tables: dict[str, dict[str, bytes]] = {}
        for kind, key, payload in rows:
            if accepted_from_zone(kind):
                tables.setdefault(kind, {})[key] = payload
        return tables


class _FullSyncError(LogFaultError):
    """An entry says that the stream goes on from a snapshot: not a fault of anybody's."""

    code = "full_sync"

    def __init__(self, position: Position) -> None:
        super().__init__(f"the zone starts again from a snapshot at {position}")
        self.position = position


def _covered(info: SnapshotInfo, cursor: Cursor) -> bool:
    """Whether what a snapshot holds is merged already."""
    return info.incarnation == cursor.incarnation and info.position <= cursor.position


def _report(sealed: Sealed, last: Report | None) -> Report:
    entry, note = sealed.entry, sealed.entry.note
    return Report(
        cursor=Cursor(entry.incarnation, entry.position),
        uid=str(note.get("uid") or (last.uid if last else "")),
        time_ms=entry.time_ms,
        lag_ms=note["lag_ms"]
        if type(note.get("lag_ms")) is int
        else (last.lag_ms if last else None),
        url=str(note.get("url") or (last.url if last else "")),
        version=str(note.get("version") or (last.version if last else "")),
        h=sealed.h,
    )


def _place(head: Head | None) -> Place | None:
    return None if head is None else Place(head.incarnation, head.position, head.h)
