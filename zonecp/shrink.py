"""The shrink guard: what a new copy of global's log lacks, and whether anybody removed it.

A copy that is loaded anew, after global's log was lost or went back in time, may lack most of what
other zones run, though nobody removed it: it is merged again within seconds. Names must not leave
the map for that. Pure: the former copy, the new one and what proves a removal; no clock, no I/O.

Entries never come here: a removal in an entry is somebody's. Only copies that replace each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from zonemesh.ipam import Binding, pool_of, vip_kind
from zonemesh.model import Change, Cursor, zone_of
from zonemesh.registry import Frozen, Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.travel import NOT_MERGED, up_log


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may go at once without a proof."""

    services: int = 20
    """Fewer may go whatever their share."""
    share: float = 0.3
    """Of the services of other zones and of global."""


def withheld(
    zone: str,
    former: Registry,
    fresh: Registry,
    limits: Limits,
    known: Mapping[str, Cursor | None] | None = None,
) -> dict[str, list[Change]]:
    """What is to be kept of a former copy in its successor, by origin zone; empty: it may go.

    Args:
        zone: Whose copy it is: of its own records the zone itself knows better.
        former: What was served.
        fresh: What is to take its place.
        limits: Up to these, everything may go.
        known: How far zones' streams were merged when what is held of them was last proven to
            exist, where that is not what `former` says.
    """
    missing = _missing(zone, former, fresh)
    if not missing:
        return {}
    cursors = {each: former.cursors.get(up_log(each)) for each in missing} | dict(known or {})
    unproven = {
        each: changes
        for each, changes in missing.items()
        if not (went_on(former, fresh) if each == "" else merged(each, cursors[each], fresh))
    }
    lacking = _services(change.kind for changes in unproven.values() for change in changes)
    total = sum(
        len(table) - sum(zone_of(key) == zone for key in table)
        for kind, table in former.tables.items()
        if _is_service(kind)
    )
    if lacking < limits.services or lacking <= limits.share * total:
        return {}
    return _without_conflicts(unproven, fresh)


def merged(zone: str, known: Cursor | None, registry: Registry) -> bool:
    """Whether a copy holds all that a zone had when its stream was merged up to a cursor.

    Then whatever it lacks of the zone was removed by the zone. A stream of another incarnation
    begins with a snapshot of everything; a deleted zone has nothing.
    """
    seen = Seen.of(registry, zone) or Seen()
    if seen.deleted:
        return True
    cursor = registry.cursors.get(up_log(zone))
    if cursor is None or seen.h == NOT_MERGED:
        return False
    return (
        known is None
        or known.incarnation != cursor.incarnation
        or cursor.position >= known.position
    )


def went_on(former: Registry, fresh: Registry) -> bool:
    """Whether a copy is later in the same log: what it lacks of global's own was removed there."""
    return former.incarnation == fresh.incarnation and fresh.position > former.position


def _missing(zone: str, former: Registry, fresh: Registry) -> dict[str, list[Change]]:
    found: defaultdict[str, list[Change]] = defaultdict(list)
    for kind, table in former.tables.items():
        if kind not in KINDS and pool_of(kind) is None:
            continue
        there = fresh.table(kind)
        for key, payload in table.items():
            if key not in there and (origin := zone_of(key)) != zone:
                found[origin].append(Change(kind, key, payload))
    return found


def _without_conflicts(
    unproven: Mapping[str, list[Change]], fresh: Registry
) -> dict[str, list[Change]]:
    """Without services whose address is another's in the meantime: one address, one service."""
    taken = {
        Binding.unpack(payload).address
        for kind, table in fresh.tables.items()
        if pool_of(kind) is not None
        for payload in table.values()
    }
    lost = {
        (pool_of(kind), key)
        for changes in unproven.values()
        for kind, key, payload in changes
        if pool_of(kind) is not None and Binding.unpack(payload or b"").address in taken - {None}
    }
    kept = {
        each: [
            change
            for change in changes
            if (pool_of(change.kind) or change.kind, change.key) not in lost
        ]
        for each, changes in unproven.items()
    }
    return {each: changes for each, changes in kept.items() if changes}


def _is_service(kind: str) -> bool:
    return kind in KINDS and bool(KINDS[kind].pool)


def _services(kinds: Iterable[str]) -> int:
    return sum(map(_is_service, kinds))


class GuardedCopy(Registry):
    """A zone's copy of global's log that keeps, beside what is in it, what left it unproven.

    What is held goes when the log says anything of the same key, or gives its address to another.
    """

    def __init__(
        self,
        zone: str,
        *,
        limits: Limits | None = None,
        keeps: Callable[[str, str], bool] | None = None,
        drops: Callable[[str, bytes], bool] | None = None,
    ) -> None:
        """As `Registry`. `limits`: what may go without being held."""
        super().__init__(keeps=keeps, drops=drops)
        self._zone = zone
        self._limits = limits or Limits()
        self._held: defaultdict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        self._addresses: dict[int, tuple[str, str]] = {}
        self._known: dict[str, Cursor | None] = {}

    @property
    def holding(self) -> Mapping[str, int]:
        """Services held, by origin zone; 0 where only other records are, empty while nothing is."""
        return {
            zone: _services(kind for kind, _ in held) for zone, held in self._held.items() if held
        }

    def proven(self) -> list[str]:
        """Zones of which everything is merged again: what is still held of them is really gone."""
        return [
            zone
            for zone, held in self._held.items()
            if held and zone and merged(zone, self._known.get(zone), self)
        ]

    def release(self, zone: str, count: int) -> bool:
        """Let go of so many records that are held of a zone; False if none are left."""
        held = self._held[zone]
        for kind, key in list(held)[:count]:
            self.put(kind, key, None)
        if not held:
            self._known.pop(zone, None)
        return bool(held)

    def become(self, fresh: Registry) -> None:
        if self.blank or fresh is self:
            super().become(fresh)
            return
        kept = withheld(self._zone, self, fresh, self._limits, self._known)
        known = {zone: self._known.get(zone, self.cursors.get(up_log(zone))) for zone in kept}
        for changes in kept.values():
            for change in changes:
                fresh.put(*change)
        self._held.clear()
        super().become(fresh)
        self._addresses.clear()
        self._known = known
        for zone, changes in kept.items():
            self._held[zone] = dict.fromkeys((kind, key) for kind, key, _ in changes)
            for kind, key, payload in changes:
                if pool_of(kind) is not None and payload is not None:
                    address = Binding.unpack(payload).address
                    if address is not None:
                        self._addresses[address] = (kind, key)

    def put(self, kind: str, key: str, payload: bytes | None) -> None:
        if self._addresses or any(self._held.values()):
            self._settle(kind, key, payload)
        super().put(kind, key, payload)

    def freeze(self) -> Frozen:
        """Without what is held: a copy on disk could not tell it from what the log says."""
        frozen = super().freeze()
        held = {each for keys in self._held.values() for each in keys}
        if not held:
            return frozen
        tables = {
            kind: {key: payload for key, payload in table.items() if (kind, key) not in held}
            for kind, table in frozen.tables.items()
        }
        return Frozen(meta=frozen.meta, tables=tables)

    def _settle(self, kind: str, key: str, payload: bytes | None) -> None:
        """The log says something of a key: that holds from now on."""
        self._held[zone_of(key)].pop((kind, key), None)
        pool = pool_of(kind)
        if pool is None or payload is None:
            return
        former = self._addresses.pop(Binding.unpack(payload).address or 0, None)
        if former is not None and former != (kind, key):
            service = former[0].removeprefix(vip_kind("")), former[1]
            for each in (former, service):
                if each in self._held[zone_of(each[1])]:
                    self.put(*each, None)
