"""The zone-merged map: what the data planes of one zone get, as a function of two registries.

`own` is the zone's log, `copy` what it keeps of global's. The map follows both change by change:
changes are noted as they are applied (`Side`), and `flush` turns what was noted since the last time
into one delta per mesh.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack

from zonemesh import labels
from zonemesh.errors import InputError
from zonemesh.hostnames import (
    GENERATOR_KIND,
    MESH_EXTERNAL_SERVICE,
    MESH_MULTI_ZONE_SERVICE,
    Claims,
    Generator,
    Outcome,
    ServiceFacts,
    parse_generator,
)
from zonemesh.ipam import Binding, ipv4_text, ipv6_text, pool_of, vip_kind
from zonemesh.legacymap import LegacyMap, Named
from zonemesh.legacyoutbounds import outbound_ids
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.members import (
    DATAPLANE,
    MESH_SERVICE,
    Members,
    UserServices,
    inbound_ready,
    inbounds,
    place,
    selected,
    service_names,
)
from zonemesh.model import START, Key, Position, Record, zone_of
from zonemesh.multizone import Matches, match_labels
from zonemesh.registry import Registry
from zonemesh.resources import ports
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import SETTINGS, zone_key
from zonemesh.travel import SEEN

TTL_S = 60
_HASH_BITS = 64
_SERVED = frozenset(name for name, kind in KINDS.items() if kind.pool)
_ZONE = "Zone"
_ZONE_INGRESS = "ZoneIngress"
_COMPUTED = (
    labels.DISPLAY_NAME,
    labels.ENV,
    labels.MESH,
    labels.NAMESPACE,
    labels.ORIGIN,
    labels.ZONE,
)
"""Labels that are not, or not always, in a service's payload."""

Labels = Mapping[str, str]
Endpoints = Callable[[ports.Served], list[dict[str, Any]]]
"""A port of a service -> what stands behind it, as in the feed's outbounds."""


class ServiceRef(NamedTuple):
    kind: str
    key: str


@dataclass(slots=True)
class Delta:
    """What changed for one mesh. A name is in one of the two at most."""

    put: dict[str, Named] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    services: set[ServiceRef] = field(default_factory=set)
    """Services whose outbounds may have changed."""

    def __bool__(self) -> bool:
        return bool(self.put or self.removed or self.services)


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
        self._unnamed: list[ServiceRef] = []
        """Services that the generators of now have not been tried on yet."""
        self._matches = Matches()
        self._disabled: set[str] = set()
        """Other zones that an operator has taken out: nothing of them is served."""
        self._ingresses: defaultdict[str, dict[str, tuple[str, int]]] = defaultdict(dict)
        """By zone and key: where other zones reach its services."""
        self._claims: dict[str, Claims] = {}
        self._legacy = LegacyMap(
            zone,
            own,
            copy,
            federated=federated,
            disabled=self.is_disabled,
            ingresses=self._ingresses_of,
        )
        self.published: defaultdict[str, dict[str, Named]] = defaultdict(dict)
        """By mesh: every name that resolves. Names without an address yet are not in it."""
        self._sums: defaultdict[str, int] = defaultdict(int)
        self.sides = (_Side(self, own, members, user_services), _Side(self, copy, None, None))
        own.add_index(self.sides[0])
        copy.add_index(self.sides[1])
        # What was held before there was a map is new to it, in whatever order it was told.
        self._noted = dict.fromkeys(self.services(), _Before(None, None))

    def digest(self, mesh: str) -> str:
        """Hash of a mesh's names and addresses: equal maps, equal digests, in any order."""
        return f"{self._sums[mesh]:016x}"

    @property
    def pending(self) -> int:
        """Services whose changes are noted and not in the map yet."""
        waiting = len(self._noted) + len(self._unnamed) + self._legacy.pending
        if self._generators_changed:
            waiting += sum(
                len(side.registry.table(kind)) for side in self.sides for kind in _SERVED
            )
        return waiting

    def flush(self) -> dict[str, Delta]:
        """Bring the map up to date with everything noted; answer what changed, by mesh."""
        deltas: defaultdict[str, Delta] = defaultdict(Delta)
        while self.flush_part(deltas, self.pending):
            pass
        return {mesh: delta for mesh, delta in deltas.items() if delta}

    def flush_part(self, deltas: defaultdict[str, Delta], limit: int) -> bool:
        """Take in so many of the services noted, adding to `deltas`; True if some are left."""
        if self._generators_changed and not self._unnamed:
            self._regenerate()
        for _ in range(min(limit, len(self._noted))):
            # Popped before it is put: until then `_held` answers what the claims still hold.
            ref, before = self._noted.popitem()
            self._update(ref, before, deltas)
            limit -= 1
        for _ in range(min(limit, len(self._unnamed))):
            self._rename(self._unnamed.pop(), deltas)
            limit -= 1
        for key in self._legacy.take(limit):
            self._update_legacy(key, deltas)
        if self._noted or self._unnamed or self._generators_changed or self._legacy.pending:
            return True
        self._flush_moved(deltas)
        return False

    def _flush_moved(self, deltas: Mapping[str, Delta]) -> None:
        for ref in list(self._moved):
            if ref.kind == MESH_SERVICE:
                self._moved.update(_multi_zone(self._matches.of(ref.key)))
        for ref in self._moved:
            if self.address(ref) is not None:
                deltas[ref.key.partition("/")[0]].services.add(ref)
        self._moved.clear()

    def address(self, ref: ServiceRef) -> int | None:
        """A service's VIP; None while it has none, or is not served here."""
        zone = zone_of(ref.key)
        if ref.kind == LEGACY:
            return self._legacy.address(ref.key)
        if zone in self._disabled:
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

    def is_disabled(self, zone: str) -> bool:
        """Whether an operator has taken another zone out: nothing of it is served here."""
        return zone in self._disabled

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

    def outbounds(self, ref: ServiceRef) -> list[dict[str, Any]]:
        """One outbound per port of a service that has an address, with its endpoints."""
        if ref.kind == LEGACY:
            return self._legacy.outbounds(ref.key)
        record, address = self.record(ref), self.address(ref)
        if record is None or address is None:
            return []
        key = Key.parse(ref.key)
        endpoints = self._endpoints_of(ref, record)
        return [
            {
                "id": KINDS[ref.kind].kri(key, each.section),
                "kind": ref.kind,
                "vips": [ipv4_text(address), ipv6_text(address)],
                "port": each.port["port"],
                "name": key.name,
                "protocol": each.port.get("appProtocol") or each.port.get("protocol") or "tcp",
                "zone": key.zone,
                "endpoints": endpoints(each),
            }
            for each in ports.served(ports.listed(record.spec))
        ]

    def outbound_ids(self, ref: ServiceRef) -> str:
        """What all ids of a service's outbounds begin with, whatever its ports."""
        if ref.kind == LEGACY:
            return outbound_ids(ref.key)
        return KINDS[ref.kind].kri(Key.parse(ref.key))

    def labels(self, ref: ServiceRef) -> Mapping[str, str]:
        """All labels of a service as shown in this zone; none if there is no such service."""
        facts = None if ref.kind == LEGACY else self._facts(ref)
        return {} if facts is None else facts.labels

    def members(self, ref: ServiceRef) -> list[tuple[str, Record]]:
        """The Dataplanes that a MeshService selects."""
        record = self.record(ref)
        return [] if record is None else list(self._members(ref.key, record))

    def matched(self, ref: ServiceRef) -> list[str]:
        """Packed keys of the MeshServices that a MeshMultiZoneService stands for, sorted."""
        return self._matches.members(ref.key)

    # Noting

    def note(self, side: _Side, kind: str, key: str, old: bytes | None) -> None:
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
            self._note_surroundings(side, kind, key)

    def _note_surroundings(self, side: _Side, kind: str, key: str) -> None:
        """What is no service, and on which names or endpoints depend."""
        if kind == GENERATOR_KIND:
            self._generators_changed = True
        elif kind == _ZONE and side.registry is self._copy:
            self._note_zone(Key.parse(key).name)
        elif kind == SEEN:
            self._note_zone(zone_of(key))
        elif kind == _ZONE_INGRESS:
            self._note_ingress(side, key)
        elif kind == LEGACY_VIP:
            self._legacy.touch((key,))
        elif kind == SETTINGS:
            self._legacy.settings_changed()

    def note_members(self, side: _Side, services: Iterable[str]) -> None:
        for key in services:
            if self._authoritative(side, key):
                self._moved.add(ServiceRef(MESH_SERVICE, key))

    def _note_zone(self, zone: str) -> None:
        """A zone that an operator takes out, or deletes, takes its services with it."""
        enabled = not self._is_out(zone)
        if zone == self.zone or enabled == (zone not in self._disabled):
            return
        for ref in self.services():
            if zone_of(ref.key) == zone:
                self._moved.add(ref)
                if ref not in self._noted:
                    self._noted[ref] = _Before(self._facts(ref), self.address(ref))
        if enabled:
            self._disabled.discard(zone)
        else:
            self._disabled.add(zone)
        self._legacy.touch()

    def _is_out(self, zone: str) -> bool:
        packed = self._copy.get(_ZONE, Key("", "", "", zone).packed)
        if packed is not None and Record.unpack(packed).spec.get("enabled") is False:
            return True
        # While a deleted zone's records are removed, entry by entry, none of them serves any more.
        seen = self._copy.get(SEEN, zone_key(zone))
        return seen is not None and bool(msgpack.unpackb(seen).get("deleted"))

    def _note_ingress(self, side: _Side, key: str) -> None:
        zone = zone_of(key)
        found = _advertised(side.registry.get(_ZONE_INGRESS, key))
        if not self._authoritative(side, key) or self._ingresses[zone].get(key) == found:
            return
        if found is None:
            del self._ingresses[zone][key]
        else:
            self._ingresses[zone][key] = found
        if zone != self.zone:
            self._moved.update(ref for ref in self.services() if zone_of(ref.key) == zone)
            self._legacy.touch()

    def _ranks_matter(self, ref: ServiceRef) -> bool:
        """Whether a service competes for a name: only then does the order that global drew count.

        Every service of this zone gets its order back from global after it was bound here.
        """
        claims = self._claims.get(ref.key.partition("/")[0])
        return ref in self._noted or (claims is not None and claims.contested(*ref))

    def _authoritative(self, side: _Side, key: str) -> bool:
        return (side.registry is self._own) == (zone_of(key) == self.zone)

    def _note(
        self,
        ref: ServiceRef,
        *,
        old_record: bytes | None = None,
        old_binding: tuple[_Side, bytes | None] | None = None,
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
        elif old_binding[0].registry is self._own:
            own = old_binding[1]
        else:
            copy = old_binding[1]
        bound = own if side is self._own else copy
        if zone_of(ref.key) in self._disabled:
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
        self._match(ref, facts)
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

    def _match(self, ref: ServiceRef, facts: ServiceFacts | None) -> None:
        """Bring up to date which services stand behind MeshMultiZoneServices."""
        if ref.kind == MESH_SERVICE:
            labels_now = None if facts is None else facts.labels
            self._moved.update(_multi_zone(self._matches.put_service(ref.key, labels_now)))
        elif ref.kind == MESH_MULTI_ZONE_SERVICE:
            record = None if facts is None else self.record(ref)
            wanted = None if record is None else match_labels(record.spec)
            self._matches.put_selector(ref.key, wanted, self._candidates)

    def _candidates(self, mesh: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, Labels]]:
        """The services of a mesh that may have some labels, with all their labels."""
        name = wanted.get(labels.DISPLAY_NAME)
        end = "/" if name is None else f"/{name}"
        # What else a label says stands in the payload as it is written.
        texts = [value.encode() for label, value in wanted.items() if label not in _COMPUTED]
        for side in self.sides:
            for key, packed in side.registry.table(MESH_SERVICE).items():
                if not key.startswith(f"{mesh}/") or (name is not None and not key.endswith(end)):
                    continue
                if not self._authoritative(side, key) or not all(text in packed for text in texts):
                    continue
                facts = self._facts(ServiceRef(MESH_SERVICE, key))
                if facts is not None:
                    yield key, facts.labels

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
        by_mesh: defaultdict[str, list[ServiceRef]] = defaultdict(list)
        # Those that were noted and are gone are still among the claims.
        for ref in dict.fromkeys((*self.services(), *self._noted)):
            by_mesh[ref.key.partition("/")[0]].append(ref)
        for mesh, claims in self._claims.items():
            refs = by_mesh[mesh]

            def keys_of(kind: str, refs: Sequence[ServiceRef] = refs) -> Iterator[str]:
                return (ref.key for ref in refs if ref.kind == kind)

            kinds = claims.change_generators(self._generators_in(mesh), keys_of)
            self._unnamed += [ref for ref in refs if ref.kind in kinds]

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
        if packed is None or zone_of(ref.key) in self._disabled:
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
        return ServiceFacts(
            ref.kind,
            ref.key,
            labels.shown(KINDS[ref.kind], key, record.labels, self.zone),
            order if order is not None or here is None else here.order,
            START if here is None else Position(0, here.birth),
        )

    def _side_of(self, key: str) -> Registry:
        return self._own if zone_of(key) == self.zone else self._copy

    # Endpoints

    def _endpoints_of(self, ref: ServiceRef, record: Record) -> Endpoints:
        """What stands behind each port of a service."""
        zone = zone_of(ref.key)
        if ref.kind == MESH_EXTERNAL_SERVICE:
            return lambda _: _external(record.spec, zone)
        if ref.kind == MESH_MULTI_ZONE_SERVICE:
            behind = [self._behind(key) for key in self.matched(ref)]
            return lambda each: [found for ask in behind for found in ask(each)]
        members = list(self._members(ref.key, record))
        return lambda each: self._endpoints(each.port, members, zone)

    def _behind(self, service: str) -> Endpoints:
        """What a MeshService contributes to the ports of a MeshMultiZoneService.

        The port that is called as the other one is, by its name or else its number. A service of
        another zone counts while it is available; of one here, each instance speaks for itself.
        """
        record = self.record(ServiceRef(MESH_SERVICE, service))
        zone = zone_of(service)
        if record is None or (zone != self.zone and record.spec.get("state") != "Available"):
            return lambda _: []
        members = list(self._members(service, record))
        by_section = {each.section: each for each in ports.served(ports.listed(record.spec))}

        def endpoints(wanted: ports.Served) -> list[dict[str, Any]]:
            same = by_section.get(wanted.section)
            return [] if same is None else self._endpoints(same.port, members, zone)

        return endpoints

    def _members(self, key: str, record: Record) -> Iterator[tuple[str, Record]]:
        side = self.sides[0] if zone_of(key) == self.zone else self.sides[1]
        selector = record.spec.get("selector") or {}
        return selected(key, selector, side.members, side.registry.table(DATAPLANE))

    def _endpoints(
        self, port: Mapping[str, Any], members: Sequence[tuple[str, Record]], zone: str
    ) -> list[dict[str, Any]]:
        target = port.get("targetPort")
        found: list[dict[str, Any]] = []
        for _, member in members:
            networking = member.spec.get("networking") or {}
            for inbound in inbounds(member):
                # As in Kuma, a port without targetPort matches no inbound.
                if target is None or target not in (inbound["port"], inbound.get("name")):
                    continue
                found.append(
                    {
                        "address": inbound.get("address") or networking["address"],
                        "port": inbound["port"],
                        "zone": zone,
                        "priority": 0 if zone == self.zone else 1,
                        "ready": inbound_ready(inbound),
                    }
                )
        ingresses = self._ingresses_of(zone)
        if zone == self.zone or not ingresses or not found:
            return found
        # Its zone is reached only through these; they know what is behind them.
        ready = any(each["ready"] for each in found)
        return [
            {"address": address, "port": number, "zone": zone, "priority": 1, "ready": ready}
            for address, number in ingresses
        ]

    def _ingresses_of(self, zone: str) -> list[tuple[str, int]]:
        return sorted(set(self._ingresses[zone].values())) if zone in self._ingresses else []


class _Side:
    """One registry as the map hears of it, with who stands behind its services."""

    def __init__(
        self,
        vipmap: VipMap,
        registry: Registry,
        members: Members | None,
        user_services: UserServices | None,
    ) -> None:
        self._vipmap = vipmap
        self.registry = registry
        self.members = members or Members()
        self.user_services = user_services or UserServices()
        if members is None:
            registry.add_index(self.members)
        if user_services is None:
            registry.add_index(self.user_services)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind == DATAPLANE:
            self._vipmap.note_members(self, self._served_by(key, old, new))
        else:
            self._vipmap.note(self, kind, key, old)

    def _served_by(self, key: str, *versions: bytes | None) -> set[str]:
        """Services that a Dataplane may stand behind, before or after a change."""
        where = place(key)
        services = set(self.user_services.within(where))
        for packed in versions:
            if packed is not None:
                record = Record.unpack(packed)
                services.update(f"{where}/{name}" for name in service_names(record))
        return services


def _external(spec: Mapping[str, Any], zone: str) -> list[dict[str, Any]]:
    return [
        {
            "address": endpoint["address"],
            "port": endpoint["port"],
            "zone": zone,
            "priority": endpoint.get("priority") or 0,
            "ready": True,
        }
        for endpoint in spec.get("endpoints") or ()
    ]


def _multi_zone(keys: Iterable[str]) -> Iterator[ServiceRef]:
    return (ServiceRef(MESH_MULTI_ZONE_SERVICE, key) for key in keys)


def _advertised(packed: bytes | None) -> tuple[str, int] | None:
    """Where a ZoneIngress is reached; None if it does not say (Kuma ignores it then)."""
    networking = {} if packed is None else Record.unpack(packed).spec.get("networking") or {}
    address, port = networking.get("advertisedAddress"), networking.get("advertisedPort")
    return (str(address), int(port)) if address and port else None


def _live_address(packed: bytes | None) -> int | None:
    if packed is None:
        return None
    binding = Binding.unpack(packed)
    return binding.address if binding.live else None


def _name_hash(name: str, named: Named | None) -> int:
    if named is None:
        return 0
    text = f"{name}\0{named.address}\0{named.kind}\0{named.key}"
    digest = blake2b(text.encode(), digest_size=_HASH_BITS // 8).digest()
    return int.from_bytes(digest, "big")
