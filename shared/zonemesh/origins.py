"""How old what is known of each zone is, from what global's log says of them.

By the holder's own clock from the moment when it heard: global's log time counts no pauses in which
nobody led, which is right for deadlines and would make ages too young.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from zonemesh.model import zone_of
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.travel import SEEN


class Origin(NamedTuple):
    """One zone as global last heard of it."""

    online: bool
    last_ms: int
    """Global's log time before the entry that told of the zone."""
    behind_ms: int
    """How old what it told was by then."""
    version: str
    url: str


class Origins:
    """An index of global's log, or of a copy of it; every `now_s` is of one monotonic clock."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._zones: dict[str, Origin] = {}
        self._as_of_s: dict[str, float] = {}
        self._news: set[str] = set()
        """Zones of which there is news that is not dated yet."""
        registry.add_index(self)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind != SEEN:
            return
        zone = zone_of(key)
        if new is None:
            self._zones.pop(zone, None)
            self._as_of_s.pop(zone, None)
            self._news.discard(zone)
            return
        seen = Seen.unpack(new)
        before = self._zones.get(zone)
        self._zones[zone] = now = Origin(
            seen.online,
            seen.last_ms,
            seen.behind_ms,
            seen.version,
            seen.url,
        )
        if before is None or before[1:3] != now[1:3]:
            self._news.add(zone)

    def date(self, log_age_s: float, now_s: float, *, delta_ms: int = 0) -> None:
        """After entries were applied: when the news are as of.

        Args:
            log_age_s: How old the newest of the entries is.
            now_s: As ever.
            delta_ms: By how much it advanced the log's time.
        """
        for zone in self._news:
            origin = self._zones[zone]
            since_ms = max(0, self._registry.log_time_ms - origin.last_ms)
            if since_ms == delta_ms:
                since_ms = 0  # the newest entry itself told of it
            self._as_of_s[zone] = now_s - log_age_s - (since_ms + origin.behind_ms) / 1000
        self._news.clear()

    def __iter__(self) -> Iterator[tuple[str, Origin]]:
        return iter(sorted(self._zones.items()))

    def ages_s(self, now_s: float) -> Mapping[str, float]:
        """By zone."""
        return {zone: now_s - as_of_s for zone, as_of_s in self._as_of_s.items()}

    def oldest_s(self, now_s: float, *, but: str) -> float:
        """The age of the worst of the zones, `but` one, that count as online.

        Those that are known to be offline are told as such, and would hide all others.
        """
        as_of_s = [
            at_s for zone, at_s in self._as_of_s.items() if zone != but and self._zones[zone].online
        ]
        return max(0.0, now_s - min(as_of_s)) if as_of_s else 0.0
