"""How far one zone serves the services of the others: all, unless an operator or silence says so.

A zone is out while an operator has disabled it or is deleting it: nothing of it is served. It is
lost while global does not hear from it: its services then follow their policies. What a zone has
of its own is served in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zonemesh.lostzones import MESH, Effect, LostZones, declared, standing_of
from zonemesh.members import MESH_SERVICE
from zonemesh.model import Key, Record, ServiceRef, zone_of
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN

_SERVED = sorted(name for name, kind in KINDS.items() if kind.pool)
_ZONE = "Zone"


def stands_as_before(old: bytes | None, new: bytes | None) -> bool:
    """Whether nothing about a zone has changed that is looked at here, by its packed `zone.seen`.

    Of every zone one comes each second, and says nearly always only that it lives.
    """
    if old is None or new is None:
        return False
    same = standing_of(old) == standing_of(new)
    return same and Seen.unpack(old).deleted == Seen.unpack(new).deleted


class OtherZones:
    """What is gone by in a zone's map. It changes when it is told to, not with the registry."""

    def __init__(self, here: str, copy: Registry) -> None:
        self._here = here
        self._copy = copy
        self._out: set[str] = set()
        self._lost = LostZones()

    def is_out(self, zone: str) -> bool:
        return zone in self._out

    def is_lost(self, zone: str) -> bool:
        return zone in self._lost.zones

    def effect(self, ref: ServiceRef) -> Effect:
        """What the loss of its zone means for a service."""
        if ref.kind != MESH_SERVICE or not self.is_lost(zone_of(ref.key)):
            return Effect.SERVED
        return self._lost.effect(ref.key, self._copy.get(ref.kind, ref.key))

    def serves_dataplane(self, key: str) -> bool:
        """Whether a Dataplane may stand behind a legacy name, of which no service says more."""
        return not self.is_out(zone_of(key)) and self._lost.effect(key, None) is Effect.SERVED

    def hides(self, ref: ServiceRef, packed: bytes | None) -> bool:
        """Whether nothing of a service, as this record has it, is to be seen."""
        zone = zone_of(ref.key)
        if zone in self._out:
            return True
        if ref.kind != MESH_SERVICE or not self.is_lost(zone):
            return False
        return self._lost.effect(ref.key, packed) is Effect.WITHDRAWN

    def services_of(self, zone: str) -> Iterator[ServiceRef]:
        """Another zone's. Looked for (10 ms in 100,000): an index would cost each some bytes."""
        mark = f"/{zone}/"
        for kind in _SERVED:
            for key in self._copy.table(kind):
                if mark in key and zone_of(key) == zone:  # `in` alone rules most out, and faster
                    yield ServiceRef(kind, key)

    # What the registry says by now

    def turned(self, zone: str) -> bool:
        """Whether a zone is out that was not, or the other way round."""
        return zone != self._here and self._says_out(zone) != (zone in self._out)

    def turn(self, zone: str) -> None:
        self._out ^= {zone}

    def _says_out(self, zone: str) -> bool:
        packed = self._copy.get(_ZONE, Key("", "", "", zone).packed)
        if packed is not None and Record.unpack(packed).spec.get("enabled") is False:
            return True
        # While a deleted zone's records are removed, entry by entry, none of them serves any more.
        seen = Seen.of(self._copy, zone)
        return seen is not None and seen.deleted

    def verdict_on(self, zone: str) -> LostZones | None:
        """What to `go_by` after a zone's standing changed; None if that is what it was."""
        standing = standing_of(self._copy.get(SEEN, zone_key(zone)))
        lost = self._lost.with_zone(zone, standing)
        return None if zone == self._here or lost == self._lost else lost

    def policy_of(self, mesh: str) -> LostZones | None:
        """What to `go_by` after a mesh changed; None if that is what it was."""
        packed = self._copy.get(MESH, Key("", "", "", mesh).packed)
        lost = self._lost.with_mesh(mesh, declared(packed))
        return None if lost == self._lost else lost

    def lost_zones(self) -> Iterable[str]:
        return self._lost.zones

    def moved_by(
        self, lost: LostZones, services: Iterable[ServiceRef]
    ) -> Iterator[tuple[ServiceRef, bool]]:
        """Those of some services that other verdicts concern, and whether their names are."""
        for ref in services:
            if ref.kind != MESH_SERVICE:
                continue
            payload = self._copy.get(ref.kind, ref.key)
            was, now = self._lost.effect(ref.key, payload), lost.effect(ref.key, payload)
            if was is not now:
                yield ref, Effect.WITHDRAWN in (was, now)

    def moves_dataplanes(self, lost: LostZones, zone: str) -> bool:
        """Whether by other verdicts a zone's Dataplanes serve otherwise behind legacy names."""
        return self._lost.by_mesh(zone) != lost.by_mesh(zone)

    def go_by(self, lost: LostZones) -> None:
        self._lost = lost
