"""What global refuses of this zone for its quota: heard from global's log, told to operators."""

from __future__ import annotations

import structlog

from zonemesh.seen import Seen
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN

log = structlog.get_logger()


class OverQuota:
    """An index of the copy of global's log."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._key = zone_key(zone)
        self.refused = 0
        """Records that global has not taken since this zone's last full sync."""
        self.why = ""

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind != SEEN or key != self._key:
            return
        seen = Seen() if new is None else Seen.unpack(new)
        before, self.refused = self.refused, seen.refused
        self.why = seen.refusal
        if self.refused and not before:
            log.warning("zone_over_quota", zone=self._zone, refused=self.why, records=self.refused)
        elif before and not self.refused:
            log.info("zone_within_quota", zone=self._zone)

    def describe(self) -> str | None:
        """Why other zones do not see all that is here, or None."""
        return f"{self.why}; {self.refused} records refused by global" if self.refused else None
