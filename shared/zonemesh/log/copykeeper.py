"""A copy on disk of a log that lives elsewhere: raw entries and snapshots, written behind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from zonemesh.errors import DamagedFileError, NewerFormatError, UnavailableError
from zonemesh.log import follower, snapshotter
from zonemesh.log.port import Head, Log, Raw, SnapshotInfo
from zonemesh.model import Position
from zonemesh.registry import Registry
from zonemesh.wire import Sealed

_EVERY_S = 0.5
"""How far behind the disk may be. What is lost with it, the log itself still has."""
_SNAPSHOT_BYTES = 64 << 20
_PENDING_BYTES_MAX = 64 << 20
"""With a disk slower than the log, a snapshot later replaces entries that were not written."""

log = structlog.get_logger()


class CopyLog(Log, Protocol):
    """A log that takes entries verbatim."""

    async def copy(self, raws: Sequence[Raw], head: Head) -> None: ...

    async def replace(self, info: SnapshotInfo, chunks: Sequence[bytes], head: Head) -> None: ...

    async def clear(self) -> None: ...


class CopyKeeper:
    """Follows what a registry applies and keeps it on disk."""

    def __init__(
        self, target: CopyLog, registry: Registry, *, formats: Collection[int] | None = None
    ) -> None:
        """`formats` are those that are read; None for all that this build knows."""
        self._formats = formats
        self._later: Position | None = None
        """Where what is on disk ends, in a format that only later builds read: it stays there."""
        self._log = target
        self._registry = registry
        self._pending: list[Sealed] = []
        self._pending_bytes = 0
        self._since_snapshot = 0
        self._restart = False
        self._news = asyncio.Event()
        self._flushing = asyncio.Lock()

    async def load(self) -> bool:
        """Bring the registry to where the copy ends; False if there is no usable one.

        To be called before anything else changes the registry.
        """
        try:
            return await self._load()
        except DamagedFileError as error:
            log.warning("copy_unusable", log=self._log.name, error=str(error))
            await self._log.clear()
            return False

    async def _load(self) -> bool:
        head = await self._log.head()
        if head is None:
            return False
        try:
            fresh = await follower.load(self._log, self._registry, head, self._formats)
        except NewerFormatError as error:
            log.warning("copy_unusable", log=self._log.name, error=str(error))
            self._later = head.position
            return False
        if fresh is None:
            # Entries written behind what is there would never lead anywhere.
            log.warning("copy_unusable", log=self._log.name, position=str(head.position))
            await self._log.clear()
            return False
        self._registry.become(fresh)
        log.info("copy_loaded", log=self._log.name, position=str(head.position), records=len(fresh))
        return True

    def applied(self, entries: Sequence[Sealed]) -> None:
        if self._later is not None:
            self.replaced()
            return
        self._pending.extend(entries)
        self._pending_bytes += sum(len(sealed.data) for sealed in entries)
        if self._pending_bytes > _PENDING_BYTES_MAX:
            self.replaced()
        self._news.set()

    def replaced(self) -> None:
        """The registry jumped: what is on disk does not lead to it."""
        if self._later is not None and self._registry.position <= self._later:
            return
        self._later = None
        self._pending.clear()
        self._pending_bytes = 0
        self._restart = True
        self._news.set()

    async def flushed(self) -> CopyLog:
        """The copy, with everything in it that was applied; its head tells if a disk failed."""
        await self.flush()
        return self._log

    async def run(self) -> None:
        """Write behind, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()
            await asyncio.sleep(_EVERY_S)

    async def flush(self) -> None:
        """Write what is pending. A disk that cannot is reported; the copy starts anew later."""
        try:
            async with self._flushing:
                if self._restart or self._since_snapshot > _SNAPSHOT_BYTES:
                    await self._write_snapshot()
                else:
                    await self._write_entries()
        except UnavailableError as error:
            log.warning("copy_failed", log=self._log.name, error=str(error))
            self.replaced()
        except DamagedFileError as error:
            log.warning("copy_failed", log=self._log.name, error=str(error))
            await self._log.clear()
            self.replaced()
        except BaseException:
            # By a stop, which flushes once more: what was taken from here may not be there.
            self.replaced()
            raise

    async def _write_entries(self) -> None:
        entries, self._pending = self._pending, []
        self._since_snapshot += self._pending_bytes
        self._pending_bytes = 0
        if entries:
            raws = [Raw(sealed.entry.position, sealed.data) for sealed in entries]
            await self._log.copy(raws, _head(entries[-1]))

    async def _write_snapshot(self) -> None:
        """Start the copy again from the state; until that is done the old one is the copy."""
        self._restart = False
        self._since_snapshot = 0
        self._pending.clear()
        self._pending_bytes = 0
        registry = self._registry
        frozen = registry.freeze()
        head = Head(
            incarnation=registry.incarnation,
            position=registry.position,
            h=registry.h,
            time_ms=registry.time_ms,
            format=registry.format,
        )
        info, chunks = await snapshotter.encode(frozen)
        await self._log.replace(info, chunks, head)


def _head(sealed: Sealed) -> Head:
    entry = sealed.entry
    return Head(
        incarnation=entry.incarnation,
        position=entry.position,
        h=sealed.h,
        time_ms=entry.time_ms,
        format=sealed.format,
    )
