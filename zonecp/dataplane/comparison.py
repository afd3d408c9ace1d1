"""Whether the map that is served is the one that the zone has, looked at beside the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from zonecp.dataplane.entry import addresses_of
from zonecp.dataplane.message import text_name
from zonecp.dataplane.names import Names
from zonemesh.maphash import name_hash
from zonemesh.runtime.slicing import slices

SLICE: Final = 50
"""Names hashed between two rests: about 0.3 ms, as a change may be waiting."""

REST_S: Final = 0.005

EVERY_S: Final = 5.0
PER_NAME_S: Final = 0.001
"""What it costs per name is under a 150th of this."""


class Finding(NamedTuple):
    equal: bool
    why: str
    """Which digests there were, and of what revision."""


class Comparison:
    """Hashes all names as they were at one revision, once in a while, while changes go on."""

    def __init__(self, table: Names, clock: Callable[[], float]) -> None:
        """`clock` is in seconds and never goes back."""
        self._table = table
        self._clock = clock
        self._next_s = 0.0
        self._task: asyncio.Task[Finding] | None = None

    def begin(self, revision: str, theirs: str) -> None:
        """Compare the names as they are now with the zone's digest of them, if it is time to.

        Args:
            revision: Of the map in the table.
            theirs: The zone's digest of the map at this revision.
        """
        if self._task is not None or (now_s := self._clock()) < self._next_s:
            return
        self._next_s = now_s + max(EVERY_S, len(self._table) * PER_NAME_S)
        # At once, all of it: 2 ms for 20,000 names, of which the next change may be one.
        entries = self._table.pick(self._table.keys())
        self._task = asyncio.create_task(_compared(entries, revision, theirs))

    def finding(self) -> Finding | None:
        """What came of the last comparison, once."""
        if self._task is None or not self._task.done():
            return None
        finding = self._task.result()
        self._task = None
        return finding

    def soon(self) -> None:
        """Give up what is being compared, as the map is another, and compare whenever possible."""
        self._next_s = 0.0
        if self._task is not None:
            self._task.cancel()
            self._task = None


async def _compared(entries: Mapping[bytes, bytes | None], revision: str, theirs: str) -> Finding:
    digest = 0
    async for pieces in slices(list(entries.items()), SLICE):
        for key, entry in pieces:
            digest ^= name_hash(text_name(key), *addresses_of(entry)) if entry else 0
        await asyncio.sleep(REST_S)
    mine = f"{digest:016x}"
    return Finding(mine == theirs, f"the map at {revision} is {mine}, the zone's {theirs}")
