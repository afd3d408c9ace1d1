"""The zone-merged map: what the data planes of one zone get, as a function of two registries.

`own` is the zone's log, `copy` what it keeps of global's. The map follows both change by change:
changes are noted as they are applied (`Side`), and `flush` turns what was noted since the last time
into one delta per mesh.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zonemesh import labels
from zonemesh.endpoints import Ingresses
from zonemesh.errors import InputError
from zonemesh.hostnames import (
    GENERATOR_KIND,
    Claims,
    Generator,
    Outcome,
    ServiceFacts,
    parse_generator,
)
from zonemesh.ipam import Binding, ipv4_text, ipv6_packed, ipv6_text, pool_of, vip_kind
from zonemesh.legacymap import LegacyMap, Named
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.lostzones import MESH, Effect, LostZones
from zonemesh.maphash import name_hash
from zonemesh.members import DATAPLANE, MESH_SERVICE, Backing, Members, UserServices
from zonemesh.model import START, Key, Position, Record, ServiceRef, zone_of
from zonemesh.otherzones import OtherZones, stands_as_before
from zonemesh.outbounds import Outbounds
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import SETTINGS
from zonemesh.travel import SEEN

TTL_S = 60
_SERVED = frozenset(name for name, kind in KINDS.items() if kind.pool)
_ZONE = "Zone"
_ZONE_INGRESS = "ZoneIngress"


@dataclass(slots=True)
class Delta:
    """What changed for one mesh. A name is in one of the two at most."""

    put: dict[str, Named] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    services: set[ServiceRef] = field(default_factory=set)
    """Services whose outbounds may have changed."""

    def __bool__(self) -> bool:
        return bool(self.put or self.removed or self.services)


MOVED_PER_SERVICE = 10
"""Whether a service has outbounds is seen in a tenth of the time that its names take."""


class _Before(NamedTuple):
    facts: ServiceFacts | None
    address: int | None


class VipMap:
    """Names and addresses of one zone, kept up to date from two registries."""

    def __init__(
        self,
        zone: str,
        own: Registry,
        copy: Registry,
        *,
        members: Members | None = None,
        user_services: UserServices | None = None,
        federated: bool = True,
    ) -> None:
        """Start from what both registries hold.

        Args:
            zone: Whose data planes the map is for.
            own: The zone's own log.
            copy: What it keeps of global's.
            members: An index of `own` that exists already and is fed first.
            user_services: Another one.
            federated: Whether the zone follows a global.
        """
        self.zone = zone
        self._own = own
        self._copy = copy
        self._noted: dict[ServiceRef, _Before] = {}
        self._moved: set[ServiceRef] = set()
        self._generators_changed = False
        self._generators: list[Generator] = []
        self._unnamed: list[tuple[str, list[str]]] = []
        """By kind the keys of services that the generators of now have not been tried on yet."""
        self.others = OtherZones(zone, copy)
        self._ingresses = Ingresses()
        self._claims: dict[str, Claims] = {}
        self._legacy = LegacyMap(
            zone,
            own,
            copy,
            federated=federated,
            served=self.others.serves_dataplane,
            ingresses=self._ingresses,
        )
        self.published: defaultdict[str, dict[str, Named]] = defaultdict(dict)
        """By mesh: every name that resolves. Names without an address yet are not in it."""
        self._sums: defaultdict[str, int] = defaultdict(int)
        behind_own, behind_copy = Backing(own, members, user_services), Backing(copy)
        self.outbounds = Outbounds(
            zone,
            behind_own,
            behind_copy,
            ingresses=self._ingresses,
            legacy=self._legacy,
            address=self.address,
            labels_of=self.labels,
            effect=self.others.effect,
            lost=self.others.is_lost,
        )
        """What stands behind the services."""
        for backing in (behind_own, behind_copy):
            backing.registry.add_index(_Side(self, backing))
        # What was held before there was a map is new to it, in whatever order it was told.
        self._noted = dict.fromkeys(self.services(), _Before(None, None))

    def digest(self, mesh: str) -> str:
        """Hash of a mesh's names and addresses: equal maps, equal digests, in any order."""
        return f"{self._sums[mesh]:016x}"

    @property
    def pending(self) -> int:
        """Services whose changes are noted and not in the map yet."""
        waiting = len(self._noted) + self._legacy.pending
        waiting += self.outbounds.pending
        waiting += sum(len(keys) for _, keys in self._unnamed)
        if self._generators_changed:
            waiting += sum(
                len(side.table(kind)) for side in (self._own, self._copy) for kind in _SERVED
            )
        return waiting

    def flush(self) -> dict[str, Delta]:
        """Bring the map up to date with everything noted; answer what changed, by mesh."""
        deltas: defaultdict[str, Delta] = defaultdict(Delta)
        while self.flush_part(deltas, max(self.pending, 1)):
            pass
        return {mesh: delta for mesh, delta in deltas.items() if delta}

    def flush_part(self, deltas: defaultdict[str, Delta], limit: int) -> bool:
        """Take in so many of the services noted, adding to `deltas`; True if some are left."""
        if self._generators_changed and not self._unnamed:
            self._regenerate()
        limit -= self._update_some(limit, deltas)
        limit -= self._rename_some(limit, deltas)
        compared = min(limit, self.outbounds.pending)
        self._moved.update(self.outbounds.match_some(compared))
        for key in self._legacy.take(limit - compared):
            self._update_legacy(key, deltas)
        if self.pending:
            return True
        # Not before: until then services may have no address yet.
        for _ in range(MOVED_PER_SERVICE * limit):
            if not self._moved:
                break
            self._flush_moved(self._moved.pop(), deltas)
        return bool(self._moved)

    def _update_some(self, limit: int, deltas: Mapping[str, Delta]) -> int:
        count = min(limit, len(self._noted))
        for _ in range(count):
            # Popped before it is put: until then `_held` answers what the claims still hold.
            ref, before = self._noted.popitem()
            self._update(ref, before, deltas)
        return count

    def _rename_some(self, limit: int, deltas: Mapping[str, Delta]) -> int:
        left = limit
        while left > 0 and self._unnamed:
            kind, keys = self._unnamed[-1]
            part = keys[-left:]
            del keys[-left:]
            if not keys:
                self._unnamed.pop()
            for key in part:
                self._rename(ServiceRef(kind, key), deltas)
            left -= len(part)
        return limit - left

    def _flush_moved(self, ref: ServiceRef, deltas: Mapping[str, Delta]) -> None:
        if self.address(ref) is not None:
            deltas[ref.key.partition("/")[0]].services.add(ref)
        if ref.kind == MESH_SERVICE:
            for each in self.outbounds.standing_for(ref.key):
                if each not in deltas[each.key.partition("/")[0]].services:
                    self._moved.add(each)

    def address(self, ref: ServiceRef) -> int | None:
        """A service's VIP; None while it has none, or is not served here."""
        zone = zone_of(ref.key)
        if ref.kind == LEGACY:
            return self._legacy.address(ref.key)
        if self.others.is_out(zone) or self.others.effect(ref) is Effect.WITHDRAWN:
            return None
        side = self._own if zone == self.zone else self._copy
        return _live_address(side.get(vip_kind(ref.kind), ref.key))

    @property
    def legacy(self) -> LegacyMap:
        """Legacy names as they are wanted, whether or not generators make some of them."""
        return self._legacy

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains whose names are the mesh's alone."""
        return tuple(dict.fromkeys(("mesh.local", self._legacy.domain)))

    def record(self, ref: ServiceRef) -> Record | None:
        packed = self._side_of(ref.key).get(ref.kind, ref.key)
        return None if packed is None else Record.unpack(packed)

    def services(self) -> Iterator[ServiceRef]:
        """Every service that can have names, with or without an address."""
        for kind in sorted(_SERVED):
            for key in self._own.table(kind):
                yield ServiceRef(kind, key)
            for key in self._copy.table(kind):
                if zone_of(key) != self.zone:
                    yield ServiceRef(kind, key)

    def addressed(self, mesh: str) -> list[ServiceRef]:
        """All of a mesh that have an address, with or without a name: each is served."""
        prefix = f"{mesh}/"
        refs = [ref for ref in self.services() if ref.key.startswith(prefix)]
        refs += [ServiceRef(LEGACY, key) for key in self._legacy.keys(prefix)]
        return [ref for ref in refs if self.address(ref) is not None]

    def hostnames(self, ref: ServiceRef) -> list[str]:
        """The names that a service holds here."""
        facts = self._facts(ref)
        return [] if facts is None else self._claims_of(facts.key).hostnames_of(facts)

    def outcomes(self, ref: ServiceRef) -> Sequence[Outcome]:
        """What each generator did for a service here: names given, collisions and who won."""
        facts = self._facts(ref)
        return [] if facts is None else self._claims_of(facts.key).outcomes(facts)

    def record_json(self, name: str, named: Named) -> dict[str, Any]:
        """One record of the feed; the `service` of a legacy name is its key, as it has no KRI."""
        key = Key.parse(named.key)
        return {
            "name": name,
            "ips": [ipv4_text(named.address), ipv6_text(named.address)],
            "ttl": TTL_S,
            "service": named.key if named.kind == LEGACY else KINDS[named.kind].kri(key),
            "zone": key.zone,
        }

    def labels(self, ref: ServiceRef) -> Mapping[str, str]:
        """All labels of a service as shown in this zone; none if there is no such service."""
        facts = None if ref.kind == LEGACY else self._facts(ref)
        return {} if facts is None else facts.labels

    # Noting

    def note(self, side: Registry, kind: str, key: str, old: bytes | None) -> None:
        """One record of a side has changed; `old` is what it was."""
        pool = pool_of(kind)
        if kind in _SERVED:
            if self._authoritative(side, key):
                self._note(ServiceRef(kind, key), old_record=old)
        elif pool is not None and pool in _SERVED:
            ref = ServiceRef(pool, key)
            if self._authoritative(side, key) or self._ranks_matter(ref):
                self._note(ref, old_binding=(side, old))
        else:
            self._note_surroundings(side, kind, key, old)

    def _note_surroundings(self, side: Registry, kind: str, key: str, old: bytes | None) -> None:
        """What is no service, and on which names or endpoints depend."""
        if kind == GENERATOR_KIND:
            self._generators_changed = True
        elif kind == _ZONE and side is self._copy:
            self._note_zone(Key.parse(key).name)
        elif kind == SEEN:
            self._note_seen(zone_of(key), old, side.get(kind, key))
        elif kind == MESH and side is self._copy:
            self._note_mesh(Key.parse(key).name)
        elif kind == _ZONE_INGRESS:
            self._note_ingress(side, key)
        elif kind == LEGACY_VIP:
            self._legacy.touch((key,))
        elif kind == SETTINGS:
            self._legacy.settings_changed()

    def note_members(self, side: Registry, services: Iterable[str]) -> None:
        for key in services:
            if self._authoritative(side, key):
                self._moved.add(ServiceRef(MESH_SERVICE, key))

    def _note_zone(self, zone: str) -> None:
        """A zone that an operator takes out, or deletes, takes its services with it."""
        if not self.others.turned(zone):
            return
        for ref in self.others.services_of(zone):
            self._moved.add(ref)
            self._note_now(ref)
        self.others.turn(zone)
        self._legacy.touch_zone(zone)

    def _note_seen(self, zone: str, old: bytes | None, new: bytes | None) -> None:
        if not stands_as_before(old, new):
            self._note_standing(zone)
            self._note_zone(zone)

    def _note_standing(self, zone: str) -> None:
        """Global has lost another zone, has it back, or has it lost for longer."""
        lost = self.others.verdict_on(zone)
        if lost is None:
            return
        if self.others.is_lost(zone) != (zone in lost.zones):
            self._moved.update(self.outbounds.standing_for_zone(zone))
        self._go_by(lost, self.others.services_of(zone), [zone])

    def _note_mesh(self, mesh: str) -> None:
        lost = self.others.policy_of(mesh)
        if lost is None:
            return
        zones = list(self.others.lost_zones())
        services = (ref for zone in zones for ref in self.others.services_of(zone))
        prefix = f"{mesh}/"
        self._go_by(lost, (ref for ref in services if ref.key.startswith(prefix)), zones)

    def _go_by(self, lost: LostZones, services: Iterable[ServiceRef], zones: Iterable[str]) -> None:
        """Other verdicts hold from now on, about some services and zones."""
        for ref, named in self.others.moved_by(lost, services):
            self._moved.add(ref)
            if named:
                self._note_now(ref)
        moved = [zone for zone in zones if self.others.moves_dataplanes(lost, zone)]
        self.others.go_by(lost)
        for zone in moved:
            self._legacy.touch_zone(zone)

    def _note_now(self, ref: ServiceRef) -> None:
        """What a service is before something else than its records changes."""
        if ref not in self._noted:
            self._noted[ref] = _Before(self._facts(ref), self.address(ref))

    def _note_ingress(self, side: Registry, key: str) -> None:
        if not self._authoritative(side, key):
            return
        zone = zone_of(key)
        if self._ingresses.put(key, side.get(_ZONE_INGRESS, key)) and zone != self.zone:
            self._moved.update(self.others.services_of(zone))
            self._legacy.touch_zone(zone)

    def _ranks_matter(self, ref: ServiceRef) -> bool:
        """Whether a service competes for a name: only then does the order that global drew count.

        Every service of this zone gets its order back from global after it was bound here.
        """
        claims = self._claims.get(ref.key.partition("/")[0])
        return ref in self._noted or (claims is not None and claims.contested(*ref))

    def _authoritative(self, side: Registry, key: str) -> bool:
        return (side is self._own) == (zone_of(key) == self.zone)

    def _note(
        self,
        ref: ServiceRef,
        *,
        old_record: bytes | None = None,
        old_binding: tuple[Registry, bytes | None] | None = None,
    ) -> None:
        self._moved.add(ref)
        if ref in self._noted:
            return
        side = self._side_of(ref.key)
        vip = vip_kind(ref.kind)
        packed = side.get(ref.kind, ref.key)
        own, copy = self._own.get(vip, ref.key), self._copy.get(vip, ref.key)
        if old_binding is None:
            packed = old_record
        elif old_binding[0] is self._own:
            own = old_binding[1]
        else:
            copy = old_binding[1]
        bound = own if side is self._own else copy
        if self.others.hides(ref, packed):
            self._noted[ref] = _Before(None, None)  # whatever was there, nothing of it was served
            return
        self._noted[ref] = _Before(
            None if packed is None else self._make_facts(ref, packed, own, copy),
            _live_address(bound),
        )

    # Flushing

    def _update(self, ref: ServiceRef, before: _Before, deltas: Mapping[str, Delta]) -> None:
        facts = self._facts(ref)
        mesh = Key.parse(ref.key).mesh
        claims = self._claims_of(ref.key)
        names = claims.put(before.facts, facts)
        self._moved.update(self.outbounds.match(ref, None if facts is None else facts.labels))
        if facts is not None and before.facts is not None and before.address != self.address(ref):
            # (All names of a new service are among those that changed.)
            names.update(claims.hostnames_of(facts))
        elif before.facts == facts and not names:
            return
        again: Collection[str] = ()
        if facts is not None and before.facts is not None and facts.labels != before.facts.labels:
            # Who may reach it by its labels is to be asked again.
            again = claims.hostnames_of(facts)
        if facts is None or (before.address is not None and self.address(ref) is None):
            deltas[mesh].services.add(ref)  # (those that have an address are added after this)
        self._publish(mesh, names, claims, deltas[mesh])
        for name in again:
            if name in self.published[mesh]:
                deltas[mesh].put[name] = self.published[mesh][name]

    def _update_legacy(self, key: str, deltas: Mapping[str, Delta]) -> None:
        mesh = key.partition("/")[0]
        self._publish(mesh, self._legacy.names(key), self._claims_of(key), deltas[mesh])
        ref = ServiceRef(LEGACY, key)
        if self.address(ref) is None:
            deltas[mesh].services.add(ref)  # (those that have an address are added after this)
        self._moved.add(ref)

    def _publish(self, mesh: str, names: Iterable[str], claims: Claims, delta: Delta) -> None:
        published = self.published[mesh]
        for name in names:
            now = self._named(mesh, name, claims)
            was = published.get(name)
            if was == now:
                continue
            self._sums[mesh] ^= _name_hash(name, was) ^ _name_hash(name, now)
            if now is None:
                del published[name]
                delta.put.pop(name, None)
                delta.removed.add(name)
            else:
                published[name] = now
                delta.removed.discard(name)
                delta.put[name] = now

    def _named(self, mesh: str, name: str, claims: Claims) -> Named | None:
        """Who has a name: a generator's before a legacy one, even while it has no address."""
        winner = claims.winner(name)
        if winner is None:
            return self._legacy.holder(mesh, name)
        ref = ServiceRef(winner.kind, winner.key)
        address = self.address(ref)
        return None if address is None else Named(address, *ref)

    def _regenerate(self) -> None:
        """Begin to name everything by other generators; service by service, as it may be much."""
        self._generators_changed = False
        self._generators = list(self._readable_generators())
        of_kind: dict[str, Mapping[str, list[str]]] = {}
        for mesh, claims in self._claims.items():

            def keys_of(kind: str, mesh: str = mesh) -> list[str]:
                if kind not in of_kind:
                    of_kind[kind] = self._keys_by_mesh(kind)
                return of_kind[kind].get(mesh, [])

            for kind in claims.change_generators(self._generators_in(mesh), keys_of):
                self._unnamed.append((kind, keys_of(kind)))

    def _keys_by_mesh(self, kind: str) -> Mapping[str, list[str]]:
        """The services of a kind, and those that were noted and are gone: claims know them yet."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for key in self._own.table(kind):
            found[key[: key.find("/")]].append(key)
        for key in self._copy.table(kind):
            if zone_of(key) != self.zone:
                found[key[: key.find("/")]].append(key)
        for ref in self._noted:
            if ref.kind == kind:
                found[ref.key[: ref.key.find("/")]].append(ref.key)
        return found

    def _rename(self, ref: ServiceRef, deltas: Mapping[str, Delta]) -> None:
        mesh = ref.key.partition("/")[0]
        claims = self._claims[mesh]
        # What was noted and not yet put is not among the claims.
        names = claims.move(ref.kind, ref.key, self._held(ref))
        if names:
            self._publish(mesh, names, claims, deltas[mesh])

    def _generators_in(self, mesh: str) -> list[Generator]:
        return [each for each in self._generators if each.mesh in ("", mesh)]

    def _readable_generators(self) -> Iterator[Generator]:
        for side in (self._own, self._copy):
            for key, packed in side.table(GENERATOR_KIND).items():
                # One that a newer build stored names nothing here, and stops nothing.
                with contextlib.suppress(InputError):
                    yield parse_generator(Key.parse(key), Record.unpack(packed), self.zone)

    def _claims_of(self, key: str) -> Claims:
        mesh = key.partition("/")[0]
        claims = self._claims.get(mesh)
        if claims is None:
            generators = self._generators_in(mesh)
            claims = self._claims[mesh] = Claims(self.zone, self._lookup, generators)
        return claims

    def _lookup(self, kind: str, key: str) -> ServiceFacts:
        facts = self._held(ServiceRef(kind, key))
        assert facts is not None, f"{kind} {key} holds a name and is unknown"
        return facts

    def _held(self, ref: ServiceRef) -> ServiceFacts | None:
        """A service's facts as the claims know them."""
        before = self._noted.get(ref)
        return self._facts(ref) if before is None else before.facts

    def _facts(self, ref: ServiceRef) -> ServiceFacts | None:
        packed = self._side_of(ref.key).get(ref.kind, ref.key)
        if packed is None or self.others.hides(ref, packed):
            return None
        vip = vip_kind(ref.kind)
        return self._make_facts(
            ref, packed, self._own.get(vip, ref.key), self._copy.get(vip, ref.key)
        )

    def _make_facts(
        self, ref: ServiceRef, packed: bytes, own: bytes | None, copy: bytes | None
    ) -> ServiceFacts:
        key = Key.parse(ref.key)
        record = Record.unpack(packed)
        order = None if copy is None else Binding.unpack(copy).order
        # Its own zone may know the order from before it lost its log, global not yet again.
        here = None if own is None else Binding.unpack(own)
        bound = own if key.zone == self.zone else copy
        return ServiceFacts(
            ref.kind,
            ref.key,
            labels.shown(KINDS[ref.kind], key, record.labels, self.zone),
            order if order is not None or here is None else here.order,
            START if here is None else Position(0, here.birth),
            waits=_live_address(bound) is None,
        )

    def _side_of(self, key: str) -> Registry:
        return self._own if zone_of(key) == self.zone else self._copy


class _Side:
    """One registry as the map hears of it."""

    def __init__(self, vipmap: VipMap, backing: Backing) -> None:
        self._vipmap = vipmap
        self._backing = backing

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind == DATAPLANE:
            self._vipmap.note_members(self._backing.registry, self._backing.services(key, old, new))
        else:
            self._vipmap.note(self._backing.registry, kind, key, old)


def _live_address(packed: bytes | None) -> int | None:
    if packed is None:
        return None
    binding = Binding.unpack(packed)
    return binding.address if binding.live else None


def _name_hash(name: str, named: Named | None) -> int:
    if named is None:
        return 0
    return name_hash(name, named.address.to_bytes(4, "big"), ipv6_packed(named.address))
