"""Logs in memory, for simulation: every fault that a real Redis permits can be brought about.

Nothing here is random or reads a clock: lease expiry runs on the `now` that is given, waiting on
the event loop's time (which may be virtual). What a plain list would hide is kept apart as Redis
keeps it: a stream, its last generated ID, its head record, its announcements and their chunks are
separate keys, which a fault may lose or turn back one by one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal, assert_never

from zonemesh.errors import FateUnknownError, NotFoundError, RefusedError, UnavailableError
from zonemesh.log import fence
from zonemesh.log.keys import Keys
from zonemesh.log.port import Head, Lease, Raw, SnapshotInfo
from zonemesh.model import Position
from zonemesh.travel import up_log
from zonemesh.wire import Sealed

LEASE_S = 2.0
PRESENT_S = 5.0

Part = Literal["log", "head", "snapshots", "chunks", "leader"]
"""A key of a log, or all of its chunks."""

Effect = Literal["before", "after"]
"""Whether an append whose answer is lost was lost before or after it took effect."""


@dataclass(slots=True)
class _Stream:
    """Entries and, as Redis keeps it, the highest position that ever was: it outlives a trim."""

    last: Position
    raws: list[Raw] = field(default_factory=list)
    heads: dict[Position, Head] = field(default_factory=dict)
    """The head that each entry made: what a stale replica would have."""

    def add(self, raw: Raw, head: Head | None = None) -> None:
        self.last = raw.position
        self.raws.append(raw)
        if head is not None:
            self.heads[raw.position] = head

    def find(self, position: Position) -> Raw | None:
        i = bisect_left(self.raws, (position,))
        found = i < len(self.raws) and self.raws[i].position == position
        return self.raws[i] if found else None

    def after(self, position: Position, count: int) -> list[Raw]:
        start = bisect_right(self.raws, position, key=lambda raw: raw.position)
        return self.raws[start : start + count]

    def cut(self, start: int, end: int) -> int:
        gone = self.raws[:start] + self.raws[end:]
        self.raws = self.raws[start:end]
        for raw in gone:
            self.heads.pop(raw.position, None)
        return len(gone)


@dataclass(slots=True)
class _Held:
    lease: Lease
    until_s: float


@dataclass(slots=True)
class _LogData:
    stream: _Stream | None = None
    head: Head | None = None
    snapshots: list[SnapshotInfo] = field(default_factory=list)
    """Newest first."""
    chunks: dict[Position, Sequence[bytes]] = field(default_factory=dict)
    leader: _Held | None = None
    present: dict[str, tuple[bytes, float]] = field(default_factory=dict)

    def top(self) -> Position | None:
        return None if self.stream is None else self.stream.last


@dataclass(slots=True)
class _Data:
    logs: dict[str, _LogData] = field(default_factory=dict)
    zones: set[str] = field(default_factory=set)

    def log(self, name: str) -> _LogData:
        return self.logs.setdefault(name, _LogData())


@dataclass(frozen=True, slots=True)
class Clone:
    """What a store held at some time, to go back to."""

    data: _Data


class _Server:
    """What all clients share: the data, whether it answers, and what readers wait for."""

    def __init__(self) -> None:
        self.data = _Data()
        self.available = True
        self.changed = asyncio.Event()

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryStore:
    """One client's view of a simulated Redis; `peer` makes another client of the same one.

    Args:
        now: Seconds, for the expiry of leases and presence.
        delay_s: How long the next request, or its answer, travels; asked twice per call. At 0 the
            other tasks still get a turn, as they do while a real call waits.
    """

    def __init__(
        self, now: Callable[[], float], *, delay_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._now = now
        self._delay_s = delay_s
        self._keys = Keys()
        self._server = _Server()
        self._available = True
        self._append_fails: Effect | None = None

    def peer(self) -> MemoryStore:
        """Another client, whose link fails independently."""
        peer = MemoryStore(self._now, delay_s=self._delay_s)
        peer._server = self._server
        return peer

    # ── Store ──

    def log(self, name: str) -> MemoryLog:
        self._keys.of(name)  # the same names are good and bad as with Redis
        return MemoryLog(self, name)

    async def announce(self, zone: str) -> None:
        data = await self.request()
        data.zones.add(zone)
        await self.answer()

    async def zones(self) -> frozenset[str]:
        zones = frozenset((await self.request()).zones)
        await self.answer()
        return zones

    async def forget(self, zone: str) -> None:
        data = await self.request()
        data.logs.pop(up_log(zone), None)
        data.zones.discard(zone)
        await self.answer()

    async def read_many(
        self, after: Mapping[str, Position], *, block_s: float, count: int = 64
    ) -> Mapping[str, Sequence[Raw]]:
        await self.request()
        clock = asyncio.get_running_loop().time
        until_s = clock() + block_s
        while True:
            changed = self._server.changed
            found: dict[str, Sequence[Raw]] = {}
            for name, position in after.items():
                stream = self._server.data.log(name).stream
                raws = stream.after(position, count) if stream is not None else ()
                if raws:
                    found[name] = raws
            if not found and clock() < until_s:
                try:
                    async with asyncio.timeout_at(until_s):
                        await changed.wait()
                except TimeoutError:
                    continue
                self._check()
                continue
            await self.answer()
            return found

    async def sizes(self, log_names: Sequence[str]) -> Mapping[str, int]:
        data = await self.request()
        streams = {name: data.log(name).stream for name in log_names}
        await self.answer()
        return {
            name: 0 if stream is None else sum(len(raw.data) for raw in stream.raws)
            for name, stream in streams.items()
        }

    async def present(self, log_name: str, writer: str, payload: bytes) -> None:
        data = await self.request()
        data.log(log_name).present[writer] = (payload, self._now() + PRESENT_S)
        await self.answer()

    async def replicas(self, log_name: str) -> Mapping[str, bytes]:
        data = await self.request()
        present = data.log(log_name).present
        alive = {
            writer: payload
            for writer, (payload, until_s) in present.items()
            if self._now() < until_s
        }
        await self.answer()
        return alive

    async def said(self, writer: str, log_names: Sequence[str]) -> Mapping[str, bytes]:
        data = await self.request()
        alive = {}
        for name in log_names:
            payload, until_s = data.log(name).present.get(writer, (b"", 0.0))
            if self._now() < until_s:
                alive[name] = payload
        await self.answer()
        return alive

    async def close(self) -> None:
        """Nothing: other clients may go on."""

    # ── how a call travels ──

    async def request(self) -> _Data:
        """Travel to the server."""
        self._check()
        await asyncio.sleep(self._delay_s())
        self._check()
        return self._server.data

    async def answer(self) -> None:
        """Travel back: the effect stands, whether the answer arrives or not."""
        await asyncio.sleep(self._delay_s())
        self._check()

    def wake_readers(self) -> None:
        self._server.tell()

    def now(self) -> float:
        return self._now()

    def take_append_fault(self, effect: Effect) -> bool:
        """Whether the append that asks is to fail here; at most one does."""
        due = self._append_fails == effect
        if due:
            self._append_fails = None
        return due

    def _check(self) -> None:
        if not (self._available and self._server.available):
            raise UnavailableError("memory: unavailable")

    # ── faults ──

    def cut(self, *, everyone: bool = False) -> None:
        """Cut this client's link, or everyone's: every call fails, reads that wait at once."""
        self._set_available(everyone=everyone, available=False)

    def heal(self, *, everyone: bool = False) -> None:
        """Undo the `cut` of the same scope."""
        self._set_available(everyone=everyone, available=True)

    def _set_available(self, *, everyone: bool, available: bool) -> None:
        if everyone:
            self._server.available = available
        else:
            self._available = available
        self._server.tell()

    def fail_next_append(self, effect: Effect) -> None:
        """This client's next append, create or resign raises FateUnknownError."""
        self._append_fails = effect

    def raw_xadd(self, name: str, raw: Raw) -> None:
        """XADD as Redis has it: may leave a hole or create a deleted key; the head stays.

        Raises:
            RefusedError: Not above the highest position that the stream ever had.
        """
        data = self._server.data.log(name)
        if data.stream is None:
            data.stream = _Stream(last=raw.position)
        elif raw.position <= data.stream.last:
            raise RefusedError(f"{raw.position} is equal or smaller than {data.stream.last}")
        data.stream.add(raw)
        self._server.tell()

    def delete_entry(self, name: str, position: Position) -> None:
        """XDEL: the stream remembers its highest position, and the head stays."""
        stream = self._server.data.log(name).stream
        if stream is not None:
            stream.raws = [raw for raw in stream.raws if raw.position != position]
            stream.heads.pop(position, None)

    def delete_key(self, name: str, part: Part) -> None:
        """DEL of one key; a lease is dropped by deleting `leader`."""
        data = self._server.data.log(name)
        match part:
            case "log":
                data.stream = None
            case "head":
                data.head = None
            case "snapshots":
                data.snapshots = []
            case "chunks":
                data.chunks = {}
            case "leader":
                data.leader = None
            case _:
                assert_never(part)
        self._server.tell()

    def flush(self) -> None:
        """FLUSHALL, or a restart without persistence."""
        self._server.data = _Data()
        self._server.tell()

    def roll_back(
        self, name: str, entries: int, *, head: Literal["follows", "stays", "lost"] = "follows"
    ) -> None:
        """Lose all but the first `entries` that are held, under whoever leads.

        Args:
            name: The log.
            entries: How many stay.
            head: `follows`: turned back as well, as a replica or an append-only file has it.
                `stays`: ahead of its stream. `lost`: deleted.
        """
        data = self._server.data.log(name)
        stream = data.stream
        if stream is None:
            return
        stream.cut(0, entries)
        stream.last = stream.raws[-1].position if stream.raws else Position(0, 0)
        match head:
            case "follows":
                data.head = stream.heads.get(stream.last)
            case "lost":
                data.head = None
            case "stays":
                pass
            case _:
                assert_never(head)
        self._server.tell()

    def trim_to(self, name: str, entries: int) -> None:
        """Keep the newest `entries`, whoever still has to read the others."""
        stream = self._server.data.log(name).stream
        if stream is not None:
            stream.cut(max(0, len(stream.raws) - entries), len(stream.raws))

    def clone(self) -> Clone:
        """A replica's copy, to `restore` when its master has gone on: a stale failover."""
        return Clone(deepcopy(self._server.data))

    def restore(self, clone: Clone) -> None:
        """Fail over to a clone; it may be restored again later."""
        self._server.data = deepcopy(clone.data)
        self._server.tell()


class MemoryLog:
    """One log of a simulated Redis."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def head(self) -> Head | None:
        head = (await self._request()).head
        await self._store.answer()
        return head

    async def create(
        self, sealed: Sealed, *, owner: str = "", replacing: Head | None = None
    ) -> None:
        data = await self._request_append()
        if fence.creates(data.head, sealed, top=data.top(), found=replacing):
            data.stream = _Stream(last=sealed.entry.position)
            self._write(data, data.stream, sealed, fence.head_after(None, sealed, owner))
        await self._answer_append()

    async def append(self, sealed: Sealed, *, owner: str | None = None) -> None:
        data = await self._request_append()
        self._append(data, sealed, owner)
        await self._answer_append()

    async def resign(self, sealed: Sealed, lease: Lease) -> None:
        data = await self._request_append()
        self._append(data, sealed, None)
        if data.leader is not None and data.leader.lease.writer == lease.writer:
            data.leader = None
        await self._answer_append()

    async def repair(self, newest: Sealed | None = None, *, owner: str = "") -> bool:
        data = await self._request()
        changed = False
        if data.head is not None and data.stream is None:
            data.head, changed = None, True
        elif data.head is None and data.stream is not None and not data.stream.raws:
            data.stream, changed = None, True
        elif data.head is None and data.stream is not None and newest is not None:
            changed = data.stream.raws[-1] == Raw(newest.entry.position, newest.data)
            data.head = fence.head_after(None, newest, owner) if changed else None
        await self._store.answer()
        return changed

    async def read(
        self, after: Position, *, block_s: float = 0.0, count: int = 512
    ) -> Sequence[Raw]:
        found = await self._store.read_many({self._name: after}, block_s=block_s, count=count)
        return found.get(self._name, ())

    async def put_snapshot(self, info: SnapshotInfo, chunks: Sequence[bytes]) -> None:
        data = await self._request()
        entry = None if data.stream is None else data.stream.find(info.position)
        entry_h = None if entry is None else fence.hash_of(entry.data)
        if fence.announces(data.head, entry_h, data.snapshots, info):
            kept = [old for old in data.snapshots[:1] if old.incarnation == info.incarnation]
            data.snapshots = [info, *kept]
            data.chunks[info.position] = tuple(chunks)
            for gone in data.chunks.keys() - {one.position for one in data.snapshots}:
                del data.chunks[gone]
        await self._store.answer()

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        snapshots = tuple((await self._request()).snapshots)
        await self._store.answer()
        return snapshots

    async def load_snapshot(self, info: SnapshotInfo) -> Sequence[bytes]:
        data = await self._request()
        chunks = data.chunks.get(info.position) if info in data.snapshots else None
        await self._store.answer()
        if chunks is None:
            raise NotFoundError(f"snapshot {info.position} is not announced or lacks its chunks")
        return chunks

    async def trim(self, before: Position) -> int:
        data = await self._request()
        removed = 0
        if data.stream is not None and data.stream.raws:
            raws = data.stream.raws
            removed = data.stream.cut(min(bisect_left(raws, (before,)), len(raws) - 1), len(raws))
        await self._store.answer()
        return removed

    async def acquire(self, lease: Lease) -> bool:
        data = await self._request()
        holder = self._holder(data)
        won = holder is None or holder.writer == lease.writer
        if won:
            data.leader = _Held(lease, self._store.now() + LEASE_S)
        await self._store.answer()
        return won

    async def renew(self, lease: Lease) -> bool:
        data = await self._request()
        holder = self._holder(data)
        ours = holder is not None and holder.writer == lease.writer
        if ours:
            data.leader = _Held(lease, self._store.now() + LEASE_S)
        await self._store.answer()
        return ours

    async def release(self, lease: Lease) -> None:
        data = await self._request()
        holder = self._holder(data)
        if holder is not None and holder.writer == lease.writer:
            data.leader = None
        await self._store.answer()

    async def holder(self) -> Lease | None:
        holder = self._holder(await self._request())
        await self._store.answer()
        return holder

    async def close(self) -> None:
        """Nothing: a handle owns nothing."""

    def _append(self, data: _LogData, sealed: Sealed, owner: str | None) -> None:
        if not fence.appends(data.head, sealed):
            return
        # The head may be right and the stream lost or ahead: Redis's XADD says no by itself.
        if data.stream is None or sealed.entry.position <= data.stream.last:
            raise fence.refused(data.head, sealed)
        self._write(data, data.stream, sealed, fence.head_after(data.head, sealed, owner))

    def _write(self, data: _LogData, stream: _Stream, sealed: Sealed, head: Head) -> None:
        data.head = head
        stream.add(Raw(head.position, sealed.data), head)
        self._store.wake_readers()

    def _holder(self, data: _LogData) -> Lease | None:
        held = data.leader
        return held.lease if held is not None and self._store.now() < held.until_s else None

    async def _request(self) -> _LogData:
        return (await self._store.request()).log(self._name)

    async def _request_append(self) -> _LogData:
        try:
            data = await self._request()
        except UnavailableError as error:
            raise FateUnknownError(str(error)) from error
        if self._store.take_append_fault("before"):
            raise FateUnknownError("memory: lost on its way")
        return data

    async def _answer_append(self) -> None:
        try:
            await self._store.answer()
        except UnavailableError as error:
            raise FateUnknownError(str(error)) from error
        if self._store.take_append_fault("after"):
            raise FateUnknownError("memory: the answer was lost")
