"""What this process holds of a log that lives elsewhere, and putting it back where that lost it.

A store that was turned back (the lost tail of its append-only file, a failover to a stale replica)
has a head that the longer history leads through. What is missing is appended again, byte for byte,
by the same compare-and-append: readers notice nothing. Whoever has gone on from the older head
meanwhile wins, since what is put back is refused then; any number may put back at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from zonemesh.log import fence
from zonemesh.log.copykeeper import CopyKeeper
from zonemesh.log.port import Head, Log
from zonemesh.log.tail import Tail
from zonemesh.model import Position
from zonemesh.wire import Sealed, decode

log = structlog.get_logger()


class History:
    """The newest entries in memory, and what is on disk where they do not reach far enough."""

    def __init__(self, tail: Tail, copy: CopyKeeper | None = None) -> None:
        self._tail = tail
        self._copy = copy

    async def leads_through(self, head: Head) -> bool:
        """Whether what is held goes on from a head, or ends there."""
        if self._in_memory(head):
            return True
        return self._copy is not None and await _has(await self._copy.flushed(), head)

    async def after(self, position: Position, h: bytes) -> Sequence[Sealed]:
        """Some of the entries that follow one that `leads_through` said yes to; none at the end."""
        found = self._tail.from_hash(position, h)
        if found is not None or self._copy is None:
            return found or ()
        entries = []
        for raw in await (await self._copy.flushed()).read(position):
            sealed, _ = decode(raw.data, h)
            entries.append(sealed)
            h = sealed.h
        return entries

    def _in_memory(self, head: Head) -> bool:
        return self._tail.from_hash(head.position, head.h) is not None


async def _has(disk: Log, head: Head) -> bool:
    """Whether a copy has an entry, or begins with the snapshot of the state at it."""
    held = await disk.head()
    if held is None or held.incarnation != head.incarnation or held.position < head.position:
        return False
    for raw in await disk.read(head.position.before(), count=1):
        if raw.position == head.position:
            return fence.hash_of(raw.data) == head.h
    return any(
        (info.position, info.h) == (head.position, head.h) for info in await disk.snapshots()
    )


async def replay(target: Log, history: History, head: Head) -> int | None:
    """Append again what a log held after the head that it has now.

    Returns:
        How many entries; None if no history that is held leads through its head.

    Raises:
        RefusedError: The log has gone on from its head without them.
        UnavailableError: The store does not answer. To be done again: nothing is doubled.
    """
    if not await history.leads_through(head):
        return None
    position, h, count = head.position, head.h, 0
    while entries := await history.after(position, h):
        for sealed in entries:
            await target.append(sealed)
            position, h = sealed.entry.position, sealed.h
            count += 1
    if count:
        log.warning(
            "log_replayed",
            log=target.name,
            entries=count,
            after=str(head.position),
            to=str(position),
        )
    return count
