"""What a reader checks before it applies an entry, and how often it tries to heal.

XREAD reports neither trimmed nor lost nor rewritten entries, so every check is ours:

  entry.position <= mine, same incarnation     replayed: dropped
  entry of another incarnation                 STORE LOST
  first entry of a restored log, I am blank    GAP
  entry.previous before my position            FORK (I stand where that history never was)
  entry.previous beyond my position            GAP
  entry.h != H(my h, body)                     FORK
  head missing, or of another incarnation      STORE LOST
  head behind me                               ROLLED BACK
  head where I am, with another hash           FORK
  head ahead of me, and nothing to read        GAP
"""

from __future__ import annotations

from zonemesh.errors import (
    ForkError,
    GapError,
    LogFaultError,
    RolledBackError,
    StoreLostError,
)
from zonemesh.wire import NOWHERE, Place, Sealed

SAME_FAULT_MAX = 3
"""Resynchronisations in a row that meet the same fault before a reader stops and says so."""

RESTORED = "restored"
"""In the note of the first entry of a log that was founded again: the cursor of the state that it
goes on from."""


def follows(place: Place, sealed: Sealed, *, chained: bool) -> bool:
    """Whether to apply an entry (True) or to drop it as a replay (False).

    Args:
        place: Where the reader stands.
        sealed: What it read next.
        chained: What `wire.decode` said of the hash, given `place.h`.

    Raises:
        LogFaultError: One of the table above.
    """
    entry = sealed.entry
    if place.incarnation and entry.incarnation != place.incarnation:
        raise StoreLostError(
            f"entry {entry.position} is of incarnation {entry.incarnation}, not {place.incarnation}"
        )
    if not place.incarnation and entry.note.get(RESTORED):
        raise GapError(f"{entry.position} goes on from a state that is in a snapshot only")
    if place.incarnation and entry.position <= place.position:
        return False
    if place.incarnation and entry.previous < place.position:
        raise ForkError(f"{entry.position} follows {entry.previous}, before {place.position}")
    if entry.previous != place.position:
        raise GapError(f"after {place.position} came {entry.position}, following {entry.previous}")
    if not chained:
        raise ForkError(f"{entry.position} continues another history than the one read")
    return True


def check_head(place: Place, head: Place | None, *, read_nothing: bool) -> None:
    """Compare a reader's place with the log's head record.

    Args:
        place: Where the reader stands.
        head: The head record's incarnation, position and hash, or None if there is no log.
        read_nothing: A read after `place`, made after the head was, answered nothing.

    Raises:
        LogFaultError: One of the table above.
    """
    if head is None:
        if place != NOWHERE:
            raise StoreLostError(f"the log is missing; {place.position} was read")
        return
    if place.incarnation and head.incarnation != place.incarnation:
        raise StoreLostError(f"incarnation {head.incarnation}, not {place.incarnation}")
    if head.position < place.position:
        raise RolledBackError(f"the log ends at {head.position}; {place.position} was read")
    if head.position == place.position and head.h != place.h:
        raise ForkError(f"{head.position} has another hash than the entry read there")
    if head.position > place.position and read_nothing:
        raise GapError(f"nothing to read after {place.position}; the log ends at {head.position}")


class Patience:
    """Counts resynchronisations in a row that end in the same fault."""

    def __init__(self) -> None:
        self._last: type[LogFaultError] | None = None
        self._times = 0

    def met(self, fault: LogFaultError) -> bool:
        """Note a fault; False once it has come `SAME_FAULT_MAX` times with no progress between."""
        self._times = self._times + 1 if type(fault) is self._last else 1
        self._last = type(fault)
        return self._times < SAME_FAULT_MAX

    def progressed(self) -> None:
        self._last, self._times = None, 0
