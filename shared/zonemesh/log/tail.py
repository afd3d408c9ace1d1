"""The newest entries of a log in memory, for those who follow it inside this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from zonemesh.model import Cursor, Position
from zonemesh.wire import Sealed

TAIL_BYTES_MAX = 1 << 20
"""Of encoded entries; decoded, as they are held, three times that. Enough for a burst of 2,000
registrations; whoever is further behind reads the log itself."""


class Tail:
    """Entries in order, bounded in bytes, with a wake-up for followers."""

    def __init__(self, *, bytes_max: int = TAIL_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: deque[Sealed] = deque()
        self._news = asyncio.Event()

    def push(self, sealed: Sealed) -> None:
        if self._entries and not _continues(self._entries[-1], sealed):
            self._entries.clear()
            self._bytes = 0
        self._entries.append(sealed)
        self._bytes += len(sealed.data)
        while self._bytes > self._bytes_max and len(self._entries) > 1:
            self._bytes -= len(self._entries.popleft().data)
        self._news.set()

    def after(self, cursor: Cursor) -> Sequence[Sealed] | None:
        """Entries that follow a cursor; None if it is not covered (then read the log)."""
        if not self._entries:
            return None
        first, last = self._entries[0].entry, self._entries[-1].entry
        if cursor.incarnation != last.incarnation or cursor.position < first.previous:
            return None
        found: list[Sealed] = []
        for sealed in reversed(self._entries):
            if sealed.entry.position <= cursor.position:
                break
            found.append(sealed)
        found.reverse()
        return found

    @property
    def newest(self) -> Sealed | None:
        return self._entries[-1] if self._entries else None

    def from_hash(self, position: Position, h: bytes) -> Sequence[Sealed] | None:
        """Entries that follow the one of a position and hash; None if it is not covered."""
        for number, sealed in enumerate(self._entries):
            if sealed.entry.previous == position and sealed.previous_h == h:
                return list(self._entries)[number:]
        last = self._entries[-1] if self._entries else None
        ends = last is not None and (last.entry.position, last.h) == (position, h)
        return [] if ends else None

    async def wait(self, timeout_s: float) -> None:
        """Until an entry was pushed since the last wait, or the time has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()


def _continues(last: Sealed, sealed: Sealed) -> bool:
    entry = sealed.entry
    same = entry.incarnation == last.entry.incarnation
    return same and Position(*entry.previous) == last.entry.position
