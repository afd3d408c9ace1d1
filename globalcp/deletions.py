"""Which deleted zones still have records."""

from __future__ import annotations

from zonemesh.draft import Draft
from zonemesh.model import zone_of
from zonemesh.seen import Seen
from zonemesh.travel import SEEN


class Deletions:
    """An index: the zones whose deletion is under way, by what the log says of them."""

    def __init__(self) -> None:
        self._zones: set[str] = set()

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind == SEEN:
            deleted = new is not None and Seen.unpack(new).deleted
            (self._zones.add if deleted else self._zones.discard)(zone_of(key))

    def under_way(self, draft: Draft) -> set[str]:
        """As of the entry that is being decided."""
        candidates = self._zones.union(map(zone_of, draft.touched(SEEN)))
        return {zone for zone in candidates if (seen := Seen.of(draft, zone)) and seen.deleted}
