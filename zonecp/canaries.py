"""Records that travel as registrations do, for no other reason than to see them arrive.

A heartbeat shows that a stream moves. That what a zone registers is copied up, merged, kept by the
others and taken into their maps, only a record shows that goes this way: each zone changes one
every few seconds, and looks when those of all zones come by in its copy of global's log, its own
one included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgpack

from zonemesh.model import zone_of
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import CANARY

_SENT_MAX = 128
"""Of one's own that are on their way: ten minutes of them."""


class Canaries:
    """One zone's canary, and an index of everybody's; every `now_s` is of one monotonic clock."""

    def __init__(self, zone: str, own: Registry, copy: Registry, *, every_s: float) -> None:
        """`every_s`: 0 for none, also where there is no global."""
        self._zone = zone
        self._own = own
        self._every_s = every_s
        self._due_s = 0.0
        self._sent: deque[tuple[bytes, float]] = deque(maxlen=_SENT_MAX)
        self._news: dict[str, bytes] = {}
        """Seen in the copy, and not in the map yet."""
        self._as_of_s: dict[str, float] = {}
        self.round_trip_s: float | None = None
        """What the newest of one's own took to global and back."""
        copy.add_index(self)

    def next(self, wall_ms: int, now_s: float) -> bytes | None:
        """What to put now: a payload, b"" to remove the one that is there, None for nothing."""
        if not self._every_s:
            present = self._own.get(CANARY, zone_key(self._zone))
            return None if present is None else b""
        if now_s < self._due_s:
            return None
        self._due_s = now_s + self._every_s
        payload: bytes = msgpack.packb((wall_ms,))
        self._sent.append((payload, now_s))
        return payload

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind != CANARY:
            return
        zone = zone_of(key)
        if new is None:
            self._news.pop(zone, None)
            self._as_of_s.pop(zone, None)
        else:
            self._news[zone] = new

    def passed(self, ages_s: Mapping[str, float], now_s: float) -> None:
        """Everything in the copy is in the map now; `ages_s` is how old what is known of each zone
        is, which is what its canary has taken so far.
        """
        for zone, payload in self._news.items():
            if zone == self._zone:
                self._returned(payload, now_s)
            elif zone in ages_s:
                self._as_of_s[zone] = now_s - ages_s[zone]
        self._news.clear()

    def _returned(self, payload: bytes, now_s: float) -> None:
        for sent, sent_s in self._sent:
            if sent == payload:
                self.round_trip_s, self._as_of_s[self._zone] = now_s - sent_s, sent_s
        # Of another process of this zone: it tells nothing of the way now.

    def ages_s(self, now_s: float) -> dict[str, float]:
        """By zone, how long ago the newest that came by was sent; of one's own also while none has.

        Between two of them ages grow by what lies between them.
        """
        ages_s = {zone: now_s - as_of_s for zone, as_of_s in self._as_of_s.items()}
        if self._sent and self._zone not in ages_s:
            ages_s[self._zone] = now_s - self._sent[0][1]
        return ages_s

    def missing_s(self, now_s: float) -> float:
        """For how much longer than expected one's own has not come back."""
        age_s = self.ages_s(now_s).get(self._zone, 0.0)
        return max(0.0, age_s - self._every_s)
