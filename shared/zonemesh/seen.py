"""What global knows about each zone's control plane, as records of its log that zones read too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

import msgpack

from zonemesh.deciding import Now
from zonemesh.draft import Draft
from zonemesh.model import Cursor, Position
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN
from zonemesh.wire import FORMAT


class ZoneState(StrEnum):
    """How a zone stands, in the words that operators read."""

    ONLINE = "online"
    STALE = "stale"
    """Online, and what it has of global, or global of it, is old."""
    OFFLINE = "offline"
    LEFT = "left"
    """Offline since it said goodbye."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What global knows about a zone's control plane (`zone.seen`)."""

    uid: str = ""
    last_ms: int = 0
    """Global's log time when the zone was last heard from."""
    online: bool = True
    connected_ms: int = 0
    """Wall time since when it has been online without a break."""
    disconnected_ms: int | None = None
    updated_ms: int = 0
    """Zone's wall time of its last merged entry."""
    behind_ms: int = 0
    """How old it may have been when it was merged: a backlog, or a zone that died meanwhile."""
    lag_ms: int | None = None
    """Age of what the zone itself had applied of global's log, by its own report."""
    entries: int = 0
    records: int = 0
    rejected: int = 0
    """Records not taken: malformed, of a foreign zone, of a kind that zones may not own."""
    conflicts: int = 0
    """Bindings refused since another zone owns the address."""
    refused: int = 0
    """Records over the zone's quota, not taken since its last full sync: to be taken when there is
    room. One that came twice counts twice."""
    refusal: str = ""
    """Why the last of them was not taken."""
    retried_ms: int = 0
    """Global's log time when the zone was last asked for what was refused."""
    url: str = ""
    version: str = ""
    formats: tuple[int, ...] = (FORMAT,)
    """Of logs, that the zone reads; what it said last, also while it is away."""
    h: bytes = b""
    """Hash of the entry that the zone's cursor names: a stream that lost that entry may get another
    one at its position. The zone looks at it too. `NOT_MERGED` after a deletion."""
    own: tuple[str, int, int] | None = None
    """Incarnation and position that the zone's own log has published from: one that ends before it
    is an old backup, whatever its stream says."""
    deleted: bool = False
    """Its records are being removed; with the last of them this one goes."""
    offline_ms: int | None = None
    """Global's log time when it was found to be gone; None while it is online."""
    lost_ms: int = 0
    """Of what a lost zone's services wait for to be withdrawn, the longest time that is over."""
    left: bool = False
    """It is gone since it said so."""
    stale_ms: int | None = None
    """Wall time since when it is online and behind; None while it is not."""

    @property
    def published(self) -> Cursor | None:
        """How far the zone's own log has been published, as far as it is known."""
        if self.own is None:
            return None
        incarnation, term, seq = self.own
        return Cursor(incarnation, Position(term, seq))

    @property
    def state(self) -> ZoneState:
        if self.online:
            return ZoneState.ONLINE if self.stale_ms is None else ZoneState.STALE
        return ZoneState.LEFT if self.left else ZoneState.OFFLINE

    @property
    def since_ms(self) -> int:
        """Wall time since when its state is what it is."""
        if self.online:
            return self.connected_ms if self.stale_ms is None else self.stale_ms
        return self.connected_ms if self.disconnected_ms is None else self.disconnected_ms

    def heard(self, now: Now, *, left: bool) -> tuple[Self, str]:
        """What it is once heard from, and why; `left`: its word was that it goes."""
        if not left:
            if self.online:
                return self, ""
            back = self.but(
                online=True,
                left=False,
                connected_ms=now.wall_ms,
                disconnected_ms=None,
                offline_ms=None,
                lost_ms=0,
            )
            return back, f"heard from again, after it was {self.state}"
        why = "" if self.left else "shut down for good, by its own word"
        if not self.online:
            return self.but(left=True), why  # gone since before
        return self._gone(now).but(left=True), why

    def _gone(self, now: Now) -> Self:
        return self.but(
            online=False,
            stale_ms=None,
            disconnected_ms=now.wall_ms,
            offline_ms=now.log_time_ms,
        )

    def found(
        self, now: Now, *, stale_after_ms: int, offline_after_ms: int, reached: Callable[[int], int]
    ) -> tuple[Self, str]:
        """What passing time makes of it, and why; itself if nothing.

        Args:
            now: The clocks of the entry that is being decided.
            stale_after_ms: What it may be silent, or behind by its own report.
            offline_after_ms: What it may be silent and still be online.
            reached: The longest time waited for by anybody that is over after so long.
        """
        silent_ms = now.log_time_ms - self.last_ms
        if not self.online:
            since_ms = self.last_ms if self.offline_ms is None else self.offline_ms
            lost_ms = reached(now.log_time_ms - since_ms)
            if lost_ms <= self.lost_ms:
                return self, ""
            return self.but(lost_ms=lost_ms), (
                f"gone for {lost_ms // 1000} s: services to be withdrawn by then are"
            )
        if silent_ms >= offline_after_ms:
            return self._gone(now), f"not heard from for {silent_ms / 1000:.1f} s of log time"
        behind_ms = max(silent_ms, self.lag_ms or 0)
        if (behind_ms >= stale_after_ms) == (self.stale_ms is not None):
            return self, ""
        if behind_ms < stale_after_ms:
            return self.but(stale_ms=None), "up to date again"
        if silent_ms >= stale_after_ms:
            why = f"not heard from for {silent_ms / 1000:.1f} s of log time"
        else:
            why = f"by its own report {behind_ms / 1000:.1f} s behind global"
        return self.but(stale_ms=now.wall_ms), why

    def but(self, **changed: Any) -> Self:
        return replace(self, **changed)

    def pack(self) -> bytes:
        """What is as in a zone just met is left out: every zone is told of every zone, often."""
        told = {
            name: value for name in self.__slots__ if (value := getattr(self, name)) != _NEW[name]
        }
        packed: bytes = msgpack.packb(told | {"formats": self.formats})
        return packed

    @staticmethod
    def unpack(payload: bytes) -> Seen:
        return _unpack(payload)

    @classmethod
    def of(cls, registry: Registry | Draft, zone: str) -> Seen | None:
        packed = registry.get(SEEN, zone_key(zone))
        return None if packed is None else cls.unpack(packed)


_NEW: dict[str, Any] = {each.name: each.default for each in fields(Seen)}
"""But `formats` are always told: what is left out must mean the same to every build."""


@lru_cache(maxsize=256)  # an entry of a zone has its record looked at four times
def _unpack(payload: bytes) -> Seen:
    told = msgpack.unpackb(payload, use_list=False)
    return Seen(**{name: told[name] for name in Seen.__slots__ if name in told})
