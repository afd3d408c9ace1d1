"""What the data planes of one zone find behind a service: an outbound per port, with endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from zonemesh import labels
from zonemesh.endpoints import Endpoint, Ingresses, endpoint_of, external_endpoint, reached
from zonemesh.hostnames import MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE
from zonemesh.ipam import ipv4_text, ipv6_text
from zonemesh.legacymap import LegacyMap
from zonemesh.legacyoutbounds import outbound_ids
from zonemesh.legacypool import LEGACY
from zonemesh.lostzones import Effect
from zonemesh.members import MESH_SERVICE, Backing, inbounds
from zonemesh.model import Key, Record, ServiceRef, zone_of
from zonemesh.multizone import Labels, Matches, match_labels
from zonemesh.resources import ports
from zonemesh.resources.catalogue import KINDS

_COMPUTED = (
    labels.DISPLAY_NAME,
    labels.ENV,
    labels.MESH,
    labels.NAMESPACE,
    labels.ORIGIN,
    labels.ZONE,
)
"""Labels that are not, or not always, in a service's payload."""

Endpoints = Callable[[ports.Served], Sequence[Endpoint]]
"""A port of a service -> what stands behind it."""


class Outbounds:
    """Outbounds of one zone, made when they are asked for."""

    def __init__(
        self,
        zone: str,
        own: Backing,
        copy: Backing,
        *,
        ingresses: Ingresses,
        legacy: LegacyMap,
        address: Callable[[ServiceRef], int | None],
        labels_of: Callable[[ServiceRef], Labels],
        effect: Callable[[ServiceRef], Effect],
        lost: Callable[[str], bool],
    ) -> None:
        """Know of no MeshMultiZoneService yet: they come by `match`.

        Args:
            zone: Whose data planes the outbounds are for.
            own: Behind the zone's own services.
            copy: Behind those of others.
            ingresses: Where other zones are reached.
            legacy: Has the outbounds of legacy names.
            address: A service's VIP; None while it is not served.
            labels_of: All labels of a service, computed ones too; none while it is not served.
            effect: What the loss of its zone means for a service.
            lost: Whether global does not hear from a zone.
        """
        self._zone = zone
        self._own = own
        self._copy = copy
        self._ingresses = ingresses
        self._legacy = legacy
        self._address = address
        self._labels = labels_of
        self._effect = effect
        self._lost = lost
        self._matches = Matches()
        self._unmatched: dict[str, list[str]] = {}
        """By selector: services that it has not been compared with yet."""

    @property
    def pending(self) -> int:
        """Comparisons of services with new selectors that are to be made yet."""
        return sum(map(len, self._unmatched.values()))

    def of(self, ref: ServiceRef) -> list[dict[str, Any]]:
        """One outbound per port of a service that has an address, with its endpoints."""
        if ref.kind == LEGACY:
            return self._legacy.outbounds(ref.key)
        record, address = self._record(ref), self._address(ref)
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

    @staticmethod
    def ids(ref: ServiceRef) -> str:
        """What all ids of a service's outbounds begin with, whatever its ports."""
        if ref.kind == LEGACY:
            return outbound_ids(ref.key)
        return KINDS[ref.kind].kri(Key.parse(ref.key))

    def members(self, ref: ServiceRef) -> list[tuple[str, Record]]:
        """The Dataplanes that a MeshService selects."""
        record = self._record(ref)
        return [] if record is None else list(self._backing(ref.key).members(ref.key, record))

    def matched(self, ref: ServiceRef) -> list[str]:
        """Packed keys of the MeshServices that a MeshMultiZoneService stands for, sorted."""
        return self._matches.members(ref.key)

    def standing_for(self, service: str) -> Iterator[ServiceRef]:
        """The MeshMultiZoneServices that stand for a MeshService."""
        return _multi_zone(self._matches.of(service))

    def standing_for_zone(self, zone: str) -> set[ServiceRef]:
        """The MeshMultiZoneServices that stand for any service of a zone."""
        return {
            each
            for service in self._matches.services()
            if zone_of(service) == zone
            for each in self.standing_for(service)
        }

    def match(self, ref: ServiceRef, labels_now: Labels | None) -> Iterator[ServiceRef]:
        """Note a service's labels; None: it is gone, or not served any more.

        A new selector is compared with the services that are there by `match_some`.

        Returns:
            Other services whose endpoints that changes.
        """
        changed: Iterable[str] = ()
        if ref.kind == MESH_SERVICE:
            changed = self._matches.put_service(ref.key, labels_now)
        elif ref.kind == MESH_MULTI_ZONE_SERVICE:
            record = None if labels_now is None else self._record(ref)
            wanted = None if record is None else match_labels(record.spec)
            if self._matches.put_selector(ref.key, wanted) and wanted:
                self._unmatched[ref.key] = self._candidates(ref.key.partition("/")[0], wanted)
            elif not wanted:
                self._unmatched.pop(ref.key, None)
        return _multi_zone(changed)

    def match_some(self, limit: int) -> Iterator[ServiceRef]:
        """Compare so many services with new selectors; yields as `match` returns."""
        while limit > 0 and self._unmatched:
            selector, services = self._unmatched.popitem()
            for service in services[:limit]:
                labels_now = self._labels(ServiceRef(MESH_SERVICE, service))
                changed = self._matches.put_service(service, labels_now or None)
                yield from _multi_zone(changed)
            if len(services) > limit:
                self._unmatched[selector] = services[limit:]
            limit -= min(limit, len(services))

    def _candidates(self, mesh: str, wanted: Labels) -> list[str]:
        """The services of a mesh that may have some labels."""
        name = wanted.get(labels.DISPLAY_NAME)
        end = "" if name is None else f"/{name}"
        # What else a label says stands in the payload as it is written.
        texts = [value.encode() for label, value in wanted.items() if label not in _COMPUTED]
        return [
            key
            for side in (self._own, self._copy)
            for key, packed in side.registry.table(MESH_SERVICE).items()
            if key.startswith(f"{mesh}/")
            and key.endswith(end)
            and all(text in packed for text in texts)
            and self._backing(key) is side
        ]

    def _endpoints_of(self, ref: ServiceRef, record: Record) -> Endpoints:
        """What stands behind each port of a service."""
        zone = zone_of(ref.key)
        if ref.kind == MESH_EXTERNAL_SERVICE:
            listed = record.spec.get("endpoints") or ()
            return lambda _: [external_endpoint(each, zone) for each in listed]
        if ref.kind == MESH_MULTI_ZONE_SERVICE:
            behind = [self._behind(key) for key in self.matched(ref)]
            return lambda each: [found for ask in behind for found in ask(each)]
        members = self._members(ref.key, record)
        if self._effect(ref) is Effect.SERVED:
            return lambda each: self._endpoints(each.port, members, zone)
        return lambda each: [
            {**found, "ready": False} for found in self._endpoints(each.port, members, zone)
        ]

    def _behind(self, service: str) -> Endpoints:
        """What a MeshService contributes to the ports of a MeshMultiZoneService.

        The port that is called as the other one is, by its name or else its number. A service of
        another zone counts while it is available and global hears from that zone, whatever is to
        become of the service itself; of one here, each instance speaks for itself.
        """
        record = self._record(ServiceRef(MESH_SERVICE, service))
        zone = zone_of(service)
        if record is None or self._lost(zone):
            return lambda _: []
        if zone != self._zone and record.spec.get("state") != "Available":
            return lambda _: []
        members = self._members(service, record)
        by_section = {each.section: each for each in ports.served(ports.listed(record.spec))}

        def endpoints(wanted: ports.Served) -> Sequence[Endpoint]:
            same = by_section.get(wanted.section)
            return [] if same is None else self._endpoints(same.port, members, zone)

        return endpoints

    def _members(self, service: str, record: Record) -> list[Record]:
        return [member for _, member in self._backing(service).members(service, record)]

    def _endpoints(
        self, port: Mapping[str, Any], members: Iterable[Record], zone: str
    ) -> Sequence[Endpoint]:
        target = port.get("targetPort")
        found = [
            endpoint_of(inbound, member, zone, here=self._zone)
            for member in members
            for inbound in inbounds(member)
            # As in Kuma, a port without targetPort matches no inbound.
            if target is not None and target in (inbound["port"], inbound.get("name"))
        ]
        return reached(found, zone, self._ingresses, here=self._zone)

    def _record(self, ref: ServiceRef) -> Record | None:
        packed = self._backing(ref.key).registry.get(ref.kind, ref.key)
        return None if packed is None else Record.unpack(packed)

    def _backing(self, key: str) -> Backing:
        return self._own if zone_of(key) == self._zone else self._copy


def _multi_zone(keys: Iterable[str]) -> Iterator[ServiceRef]:
    return (ServiceRef(MESH_MULTI_ZONE_SERVICE, key) for key in keys)
