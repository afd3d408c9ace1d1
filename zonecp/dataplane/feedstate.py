"""What the agent knows of the map that it serves, beside the names."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zonecp.dataplane import events
from zonemesh.agreement import Agreement


def _nobody() -> None:
    pass


@dataclass(slots=True)
class FeedState:
    """What is known of the map that is served; one writer (the feed), many readers."""

    head: events.Head | None = None
    """Of the map in the table; None before the first."""

    whole: bool = True
    """False while a snapshot is half applied: the table is no map that any zone has had."""

    confirmed: bool = False
    """The zone has told since the start how the map is now: what is from disk may be behind."""

    connected: bool = False
    lag_s: float = 0.0
    """How old the map was by the zone's own account, when it last told."""

    told_s: float | None = None
    """When the zone last told how old the map is, on the loop's clock: deltas do not."""

    ended: Counter[str] = field(default_factory=Counter)
    """Streams that ended, by reason."""

    records_rejected: int = 0
    agreement: Agreement = field(default_factory=Agreement)
    """With the zone's hash of the map."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after a change of the map; cleared by the one who writes it to disk."""

    settled: Callable[[], None] = _nobody
    """Called after each change of the map, once it is whole."""

    reincarnated: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the zone has begun a new log; cleared by the one who registers there."""

    def age_s(self, now_s: float) -> float | None:
        """How old the map may be: the zone's own lag, and the silence since."""
        return None if self.told_s is None else self.lag_s + now_s - self.told_s

    def describe(self, now_s: float) -> dict[str, Any]:
        """For people; None of a map there is none of."""
        head, age_s = self.head, self.age_s(now_s)
        return {
            "revision": None if head is None else head.revision,
            "mesh": None if head is None else head.mesh,
            "zone": None if head is None else head.zone,
            "connected": self.connected,
            "lag_s": None if self.told_s is None else round(self.lag_s, 3),
            # Without a word of the zone since the start, nobody knows how old a map from disk is.
            "age_s": None if age_s is None else round(age_s, 3),
            "streams_ended": dict(self.ended),
            "records_rejected": self.records_rejected,
            "comparisons": self.agreement.comparisons,
            "mismatches": self.agreement.mismatches,
            "mismatch": self.agreement.unmended,
        }
