"""Which format a log is written in: the one that it has, until every reader can read a later one.

A format is never lowered: what is written stays. So nothing is decided by who happens to be there
at one moment. Readers are heard of each second; zones that are away count by what they said last,
until they are deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zonemesh.wire import FORMAT

SETTLE_S = 60.0
"""For so long all readers must have been able to read it: one that is just being restarted, or
started, is heard of in that time."""

_FORMATS_MAX = 100
_FORMAT_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log could be written in."""

    format: int
    """The latest that everybody reads, never below the present one."""
    held_back_by: tuple[str, ...]
    """Readers that cannot read the latest that its writer knows."""


def agreed(present: int, mine: Collection[int], readers: Mapping[str, Collection[int]]) -> Verdict:
    """The latest format that a writer and all readers know.

    Args:
        present: What the log is written in.
        mine: What its writer knows.
        readers: What each reader knows, by a name that an operator knows.
    """
    common = set(mine).intersection(*readers.values())
    latest = max(mine)
    behind = sorted(name for name, known in readers.items() if latest not in known)
    return Verdict(max(common | {present}), tuple(behind) if latest > present else ())


class Formats:
    """What a zone's control plane writes its logs in: what global's log is written in, if it can.

    Everybody who reads a zone's logs reads global's as well, or is of that zone itself.
    """

    def __init__(self, mine: Collection[int], decided: Callable[[], int]) -> None:
        """`decided`: what global's log is written in."""
        self.mine = tuple(mine)
        self.readable = self.mine
        """By all control planes of the zone."""
        self._decided = decided

    def heard(self, others: Iterable[Collection[int]]) -> None:
        """Take note of what the zone's other control planes read."""
        self.readable = tuple(sorted(set(self.mine).intersection(*others))) or (FORMAT,)

    def followed(self, present: int) -> int:
        """What a log is to be written in that is written in `present`."""
        decided = self._decided()
        return max([present, *(each for each in self.readable if each <= decided)])


def said(value: Any) -> tuple[int, ...]:
    """Formats as a reader says that it knows them; those of the first build if it does not."""
    if isinstance(value, list | tuple):
        found = {each for each in value[:_FORMATS_MAX] if type(each) is int}
        sound = tuple(sorted(each for each in found if 0 < each < _FORMAT_MAX))
        if sound:
            return sound
    return (FORMAT,)
