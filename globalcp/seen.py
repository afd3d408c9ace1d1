"""What global knows about each zone's control plane, as records of its log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import msgpack

from zonemesh.draft import Draft
from zonemesh.model import zone_of
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN
from zonemesh.wire import FORMAT

NOT_MERGED = b"not merged"
"""In place of a hash: what stands before the cursor is not in the state, which only a snapshot
beyond the cursor can mend. No entry has this hash, so that the zone, and whoever reads its stream,
finds the stream not to continue what is merged; the zone then publishes such a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What global knows about a zone's control plane (`zone.seen`)."""

    uid: str
    last_ms: int
    """Global's log time when the zone was last heard from."""
    online: bool
    connected_ms: int
    """Wall time since when it has been online without a break."""
    disconnected_ms: int | None = None
    updated_ms: int = 0
    """Zone's wall time of its last merged entry."""
    lag_ms: int | None = None
    """Age of what the zone itself had applied of global's log, by its own report."""
    entries: int = 0
    records: int = 0
    rejected: int = 0
    """Records not taken: malformed, of a foreign zone, of a kind that zones may not own."""
    conflicts: int = 0
    """Bindings refused since another zone owns the address."""
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

    def but(self, **changed: Any) -> Self:
        return replace(self, **changed)

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb({name: getattr(self, name) for name in self.__slots__})
        return packed

    @staticmethod
    def unpack(payload: bytes) -> Seen:
        return _unpack(payload)

    @classmethod
    def of(cls, registry: Registry | Draft, zone: str) -> Seen | None:
        packed = registry.get(SEEN, zone_key(zone))
        return None if packed is None else cls.unpack(packed)


@lru_cache(maxsize=256)  # an entry of a zone has its record looked at four times
def _unpack(payload: bytes) -> Seen:
    fields = msgpack.unpackb(payload, use_list=False)
    return Seen(**{name: fields[name] for name in Seen.__slots__ if name in fields})


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
