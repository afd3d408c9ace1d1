"""Whose turn it is: fair shares of global's entries among zones, and how fast each is read.

Pure arithmetic on bytes and times that are given. Fair queueing by start tags (Goyal, Vin, Cheng:
Start-time Fair Queueing, 1996): whoever was served least comes first, and who was idle neither
pays for that nor saves it up. A zone that writes little therefore waits for one turn of a zone that
floods, never for its backlog.
"""

from __future__ import annotations

from collections.abc import Iterable

ENTRY_COST_BYTES = 1 << 10
"""What an entry costs beside its bytes, in the same measure: empty ones are not free."""
BURST_S = 4.0
"""A zone may be ahead of its rate by so much: what was registered in one go is read in one go."""


class Turns:
    """Bytes served to each zone, in a time of their own that only ever goes on."""

    def __init__(self) -> None:
        self._now = 0
        self._finished: dict[str, int] = {}

    def order(self, waiting: Iterable[str]) -> list[str]:
        """Who is to be served, first the one that had least."""
        return sorted(waiting, key=lambda zone: (self._start(zone), zone))

    def serve(self, zone: str, size: int) -> None:
        """Note what a zone was served with."""
        start = self._start(zone)
        self._now = max(self._now, start)
        self._finished[zone] = start + size
        # Whoever is not ahead of the time is as one never seen: nothing is kept of who has gone.
        self._finished = {each: end for each, end in self._finished.items() if end > self._now}

    def _start(self, zone: str) -> int:
        return max(self._now, self._finished.get(zone, 0))


class Allowance:
    """A token bucket: how soon a zone may be read again. What is read may overdraw it."""

    def __init__(self, *, entries_per_s: float, bytes_per_s: float, now_s: float) -> None:
        self._per_s = (entries_per_s, bytes_per_s)
        self._left = [rate * BURST_S for rate in self._per_s]
        self._at_s = now_s

    def take(self, now_s: float, *, entries: int, size: int) -> None:
        self._refill(now_s)
        self._left[0] -= entries
        self._left[1] -= size

    def wait_s(self, now_s: float) -> float:
        """Seconds until it is not overdrawn; 0 if it is not."""
        self._refill(now_s)
        return max(0.0, *(-left / rate for left, rate in zip(self._left, self._per_s, strict=True)))

    def _refill(self, now_s: float) -> None:
        passed_s, self._at_s = max(0.0, now_s - self._at_s), now_s
        self._left = [
            min(left + rate * passed_s, rate * BURST_S)
            for left, rate in zip(self._left, self._per_s, strict=True)
        ]
