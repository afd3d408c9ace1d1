"""What one process that answers DNS has counted; the processes of an agent are added up. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, TypeVar

import msgspec

Key = TypeVar("Key")
Number = TypeVar("Number", int, float)

GAUGES: Final = frozenset(
    {"tcp_connections", "upstream_in_flight", "upstream_cache_entries", "upstream_cache_bytes"}
)

BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Of the histogram of upstreams' answers; one bucket more for what takes longer."""


class Durations(msgspec.Struct):
    """A histogram: how many took no longer than each of `BOUNDS_S`, and no less than the last."""

    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def observe(self, duration_s: float) -> None:
        self.buckets[bisect_left(BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s

    def add(self, other: Durations) -> None:
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.sum_s += other.sum_s


class Counts(msgspec.Struct):
    """Gauges and counters; all of them may be added."""

    queries: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    """By type and result."""

    failures: dict[str, int] = msgspec.field(default_factory=dict)
    numbers: dict[str, float] = msgspec.field(default_factory=dict)
    """The rest, by name; `GAUGES` are of now, the others since the start."""

    upstream: Durations = msgspec.field(default_factory=Durations)

    def add(self, other: Counts) -> None:
        _add(self.queries, other.queries)
        _add(self.failures, other.failures)
        _add(self.numbers, other.numbers)
        self.upstream.add(other.upstream)


def _add(mine: dict[Key, Number], others: dict[Key, Number]) -> None:
    for key, number in others.items():
        mine[key] = mine[key] + number if key in mine else number
