"""When a log's state is written as a snapshot, and how much of the log may go afterwards."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from zonemesh.errors import NotFoundError, RefusedError, WireError
from zonemesh.log import snapshot
from zonemesh.log.port import Log, SnapshotInfo
from zonemesh.model import START, Cursor, Position
from zonemesh.registry import Frozen, Registry
from zonemesh.replica import RESTORED
from zonemesh.wire import NO_HASH, Sealed, decode

ENTRIES_BETWEEN = 20_000
"""Heartbeats alone reach this in some hours; a reader resumes by delta for as long at least."""
BYTES_BETWEEN = 48 << 20
"""A log is kept to between one and two times this, plus two snapshots."""

TERMS_BETWEEN = 3
"""Also for leaders that never come so far before the next one leads: each counts for itself."""

_LOOK_EVERY_S = 5.0
"""How soon a log is readable again that somebody else trimmed, or whose snapshots were lost."""

_SLICE_ROWS = 2_000
"""Rows loaded between two turns of the event loop."""

log = structlog.get_logger()


async def write(target: Log, frozen: Frozen) -> SnapshotInfo:
    """Store a frozen registry as a snapshot at its position.

    Raises:
        RefusedError: The log has gone another way: its writer is deposed.
    """
    info, chunks = await encode(frozen)
    await target.put_snapshot(info, chunks)
    return info


async def encode(frozen: Frozen) -> tuple[SnapshotInfo, Sequence[bytes]]:
    chunks = await snapshot.encode_in_thread(frozen.meta, frozen.rows())
    info = SnapshotInfo(
        incarnation=frozen.meta["incarnation"],
        position=Position(*frozen.meta["position"]),
        h=frozen.meta["h"],
        chunks=len(chunks),
    )
    return info, chunks


async def read(
    chunks: Sequence[bytes], into: Registry, formats: Collection[int] | None = None
) -> None:
    """Undo `encode`: bring a blank registry to the state that a snapshot holds.

    Raises:
        NewerFormatError: Written in a format that is not among `formats`, or unknown to this build.
        WireError: Malformed, or not the state that its writer held; a part of it may be loaded.
    """
    meta, rows = await snapshot.decode_in_thread(chunks, formats)
    for number, row in enumerate(rows, 1):
        into.put(*row)
        if number % _SLICE_ROWS == 0:
            await asyncio.sleep(0)
    into.verify(meta)


class Snapshotter:
    """Keeps two snapshots of a log that this process writes, and the log back to the older one."""

    def __init__(
        self,
        target: Log,
        registry: Registry,
        *,
        entries: int = ENTRIES_BETWEEN,
        size: int = BYTES_BETWEEN,
        on_snapshot: Callable[[dict[str, Cursor]], Awaitable[None]] | None = None,
    ) -> None:
        """`on_snapshot` gets the cursors that the older kept snapshot holds: nothing before them
        will be asked of the logs that this one is made from. It is waited for, and what it raises
        is raised here: there is no other who would see it.
        """
        self._log = target
        self._registry = registry
        self._entries_between = entries
        self._bytes_between = size
        self._on_snapshot = on_snapshot
        self._entries = 0
        self._bytes = 0
        self._due = asyncio.Event()
        self._cursors: deque[dict[str, Cursor]] = deque(maxlen=2)
        self.taken = 0

    def committed(self, entries: Sequence[Sealed]) -> None:
        """Told of every entry, to know when a snapshot is due."""
        self._entries += len(entries)
        self._bytes += sum(len(sealed.data) for sealed in entries)
        if self._entries >= self._entries_between or self._bytes >= self._bytes_between:
            self._due.set()

    def ask(self) -> None:
        """Take one soon, whatever has been written since the last."""
        self._due.set()

    async def run(self) -> None:
        """Take snapshots when due, for ever; RefusedError once deposed."""
        infos = await self._log.snapshots()
        newest = infos[0].position if infos else START
        if self._registry.position.term - newest.term >= TERMS_BETWEEN:
            self._due.set()
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._due.wait()
            except TimeoutError:
                if await self._readable():
                    continue
                log.warning("log_unreadable", log=self._log.name)
            self._due.clear()
            self._entries = self._bytes = 0
            await self.take()

    async def _readable(self) -> bool:
        """Whether a reader that knows nothing gets from the newest snapshot into the log."""
        infos = await self._log.snapshots()
        after = infos[0].position if infos else START
        for raw in await self._log.read(after, count=1):
            try:
                sealed, _ = decode(raw.data, NO_HASH)
            except WireError:
                return False
            entry = sealed.entry
            return entry.previous == after and not (after == START and RESTORED in entry.note)
        return bool(infos)

    async def take(self) -> None:
        frozen = self._registry.freeze()
        cursors = dict(self._registry.cursors)
        try:
            await write(self._log, frozen)
        except RefusedError as error:
            # Somebody announced one at or beyond this position: newer than ours is good enough.
            log.info("snapshot_refused", log=self._log.name, error=str(error))
            return
        self.taken += 1
        self._cursors.append(cursors)
        kept = await self._log.snapshots()
        trimmed = 0
        if len(kept) > 1:
            try:
                trimmed = await self._log.trim(kept[-1].position)
            except NotFoundError:
                trimmed = 0
        log.info(
            "snapshot_taken",
            log=self._log.name,
            position=str(Position(*frozen.meta["position"])),
            records=len(frozen),
            trimmed_entries=trimmed,
        )
        if self._on_snapshot is not None and len(self._cursors) == self._cursors.maxlen:
            await self._on_snapshot(self._cursors[0])
