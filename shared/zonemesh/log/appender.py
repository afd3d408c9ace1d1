"""One writer's end of a log: the next entry's place in the chain, and one append in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from zonemesh.errors import UnavailableError
from zonemesh.freshness import PAUSED_MS
from zonemesh.log.clock import MONO_DELTA_MAX_MS, Clock
from zonemesh.log.port import Head, Lease, Log
from zonemesh.model import START, Change, Cursor, Position
from zonemesh.wire import ENTRY_BYTES_MAX, FORMAT, NOWHERE, Entry, Place, Sealed, seal

_RETRY_FIRST_S = 0.02
_RETRY_MAX_S = 1.0

log = structlog.get_logger()


class Appender:
    """Extends a log by one entry at a time until it is refused.

    The bytes of an entry are fixed before they are first sent and sent again, unchanged, until
    their fate is known: a second composition could commit the same decision twice.
    """

    def __init__(
        self,
        target: Log,
        *,
        writer: str,
        clock: Clock,
        place: Place = NOWHERE,
        log_time_ms: int = 0,
        bytes_max: int = ENTRY_BYTES_MAX,
        version: int = FORMAT,
        there_s: float | None = None,
    ) -> None:
        """`there_s`: a moment by which the entry at `place` had been written, if known."""
        self._log = target
        self._writer = writer
        self._clock = clock
        self._bytes_max = bytes_max
        self._log_time_ms = log_time_ms
        self._there_s = there_s
        self._last_s: float | None = None
        self.written_s: float | None = None
        """When the entry at `place` was made; None of what another has written."""
        self.place = place
        self.format = version
        """Of the next entry; only ever raised (`zonemesh.formats`)."""
        self.blocked_since_s: float | None = None
        """Monotonic time since when the store has not taken an entry; None while it does."""

    async def create(
        self,
        incarnation: str,
        *,
        term: int,
        owner: str = "",
        replacing: Head | None = None,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        changes: Sequence[Change] = (),
    ) -> Sealed:
        """Found the log with its first entry; RefusedError if it exists.

        `replacing` is the head of one that cannot be continued and gives way (`Log.create`).
        """
        sealed = self.first(incarnation, term=term, src=src, note=note, changes=changes)
        return await self.found(sealed, owner=owner, replacing=replacing)

    def first(
        self,
        incarnation: str,
        *,
        term: int,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        changes: Sequence[Change] = (),
    ) -> Sealed:
        """The first entry of a log to be founded, sealed and not yet sent."""
        self.place = Place(incarnation, START, NOWHERE.h)
        return self._seal(Position(term, 0), src, note, changes)

    async def found(
        self, sealed: Sealed, *, owner: str = "", replacing: Head | None = None
    ) -> Sealed:
        """Found the log with an entry that `first` made; else as `create`."""
        await self._until_known(self._log.create, sealed, owner=owner, replacing=replacing)
        return self._advance(sealed)

    async def open(
        self,
        term: int,
        *,
        owner: str | None = None,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        changes: Sequence[Change] = (),
    ) -> Sealed:
        """Begin a term with its entry `<term>-0`: from here on, older writers are refused."""
        sealed = self._seal(Position(term, 0), src, note, changes)
        await self._until_known(self._log.append, sealed, owner=owner)
        return self._advance(sealed)

    async def commit(
        self,
        *,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        changes: Sequence[Change] = (),
    ) -> Sealed:
        """Append the next entry.

        Raises:
            RefusedError: Another writer has taken over; this appender is finished.
            WireError: The entry is too large; nothing was sent.
        """
        sealed = self.next(src=src, note=note, changes=changes)
        return await self.send(sealed)

    def next(
        self,
        *,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        changes: Sequence[Change] = (),
    ) -> Sealed:
        """The next entry, sealed and not yet sent; send it before anything else."""
        term, seq = self.place.position
        return self._seal(Position(term, seq + 1), src, note, changes)

    async def send(self, sealed: Sealed) -> Sealed:
        await self._until_known(self._log.append, sealed)
        return self._advance(sealed)

    async def resign(self, lease: Lease) -> Sealed:
        """Append `resign` and give up the lease in one step; tried once, since nobody waits."""
        sealed = self.next(note={"resign": True})
        await self._log.resign(sealed, lease)
        return self._advance(sealed)

    def _seal(
        self,
        position: Position,
        src: Mapping[str, Cursor] | None,
        note: Mapping[str, Any] | None,
        changes: Sequence[Change],
    ) -> Sealed:
        now_s = self._clock.mono_s()
        passed_s = 0.0 if self._last_s is None else now_s - self._last_s
        delta_ms = min(max(0, round(passed_s * 1000)), MONO_DELTA_MAX_MS)
        there_s = self._there_s if self._last_s is None else self._last_s
        if there_s is not None and int((now_s - there_s) * 1000) > delta_ms:
            note = {**(note or {}), PAUSED_MS: int((now_s - there_s) * 1000) - delta_ms}
        entry = Entry(
            incarnation=self.place.incarnation,
            position=position,
            previous=self.place.position,
            writer=self._writer,
            time_ms=self._clock.wall_ms(),
            mono_delta_ms=delta_ms,
            log_time_ms=self._log_time_ms + delta_ms,
            src=src or {},
            note=note or {},
            changes=changes,
        )
        sealed = seal(entry, self.place.h, bytes_max=self._bytes_max, version=self.format)
        self._last_s = now_s
        return sealed

    def _advance(self, sealed: Sealed) -> Sealed:
        self.place = sealed.place
        self._log_time_ms = sealed.entry.log_time_ms
        self.written_s = self._last_s
        return sealed

    async def _until_known(self, act: Any, sealed: Sealed, **options: Any) -> None:
        delay_s = _RETRY_FIRST_S
        while True:
            try:
                await act(sealed, **options)
            except UnavailableError as error:
                if self.blocked_since_s is None:
                    self.blocked_since_s = self._clock.mono_s()
                    log.warning("append_blocked", log=self._log.name, error=str(error))
            else:
                if self.blocked_since_s is not None:
                    blocked_s = round(self._clock.mono_s() - self.blocked_since_s, 3)
                    log.info("append_resumed", log=self._log.name, blocked_s=blocked_s)
                    self.blocked_since_s = None
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _RETRY_MAX_S)
