"""A zone's map under test: its registries, and a client that has applied every delta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgpack

from tests.builders import NOW_MS, Chain, put_dataplane, put_service
from zonemesh.deciding import Put
from zonemesh.hostnames import ServiceFacts, default_global_generators, default_zone_generators
from zonemesh.ipam import Binding, vip_kind
from zonemesh.labels import DISPLAY_NAME
from zonemesh.legacymap import Named
from zonemesh.model import Change, Key, Record, ServiceRef
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN, kept_by
from zonemesh.vipmap import Delta, VipMap

SERVICE = "MeshService"
EXTERNAL = "MeshExternalService"
MULTI_ZONE = "MeshMultiZoneService"
VIP = vip_kind(SERVICE)
POOL = 241 << 24


def key_of(name: str, zone: str = "west", mesh: str = "default") -> str:
    return Key(mesh, zone, "", name).packed


def record(item: Put, **labels: str) -> Change:
    packed = Record(
        created_ms=NOW_MS,
        modified_ms=NOW_MS,
        labels={**item.labels, **labels},
        spec=item.spec,
    ).pack()
    return Change(item.kind, item.key.packed, packed)


def service(name: str, zone: str = "west", **labels: str) -> Change:
    return record(put_service(name, zone=zone), **labels)


def available(name: str, zone: str, *, state: str = "Available", **labels: str) -> Change:
    """A service as its own zone's control plane publishes it."""
    put = put_service(name, zone=zone)
    return record(replace(put, spec={**put.spec, "state": state}), **labels)


def binding(
    name: str,
    address: int | None,
    zone: str = "west",
    *,
    order: int | None = None,
    released_ms: int | None = None,
    birth: int = 1,
) -> Change:
    offset = None if address is None else POOL + address
    return Change(VIP, key_of(name, zone), Binding(offset, order, released_ms, birth).pack())


def external(
    name: str, *endpoints: tuple[str, int], zone: str = "", port: int = 443, **labels: str
) -> Change:
    """A MeshExternalService."""
    listed = [{"address": address, "port": number} for address, number in endpoints]
    spec = {"match": {"port": port, "protocol": "tls"}, "endpoints": listed}
    return record(Put(EXTERNAL, Key("default", zone, "", name), labels, spec))


def multi_zone(
    name: str, *ports: Mapping[str, Any], match: Mapping[str, str] | None = None
) -> Change:
    """A MeshMultiZoneService; its selector asks for services of its own name if nothing else."""
    selector = {"meshService": {"matchLabels": match or {DISPLAY_NAME: name}}}
    spec = {"selector": selector, "ports": list(ports) or [{"port": 80}]}
    return record(Put(MULTI_ZONE, Key("default", "", "", name), {}, spec))


def bound(kind: str, name: str, address: int, zone: str = "", order: int = 1) -> Change:
    """The address of a service of any kind."""
    packed = Binding(POOL + address, order, None, 0).pack()
    return Change(vip_kind(kind), key_of(name, zone), packed)


def zone_record(name: str, *, enabled: bool = True) -> Change:
    return record(Put("Zone", Key("", "", "", name), {}, {"enabled": enabled}))


def standing(zone: str, lost_s: int | None) -> Change:
    """What global has decided about a zone: online, or lost for so long."""
    fields = {"online": lost_s is None, "lost_ms": 1000 * (lost_s or 0)}
    return Change(SEEN, zone_key(zone), msgpack.packb(fields))


def mesh_record(**labels: str) -> Change:
    return record(Put("Mesh", Key("", "", "", "default"), labels, {}))


def ingress(zone: str, address: str, port: int = 10001, name: str = "ingress") -> Change:
    """How other zones reach a zone's services."""
    networking = {
        "address": "10.9.9.9",
        "port": 1,
        "advertisedAddress": address,
        "advertisedPort": port,
    }
    return record(Put("ZoneIngress", Key("", zone, "", name), {}, {"networking": networking}))


def generator(
    name: str,
    template: str,
    *,
    zone: str = "",
    created_ms: int = NOW_MS,
    mesh: str = "",
    **match: str,
) -> Change:
    """A generator for MeshServices; of one mesh alone if one is given."""
    spec = {"selector": {"meshService": {"matchLabels": match}}, "template": template}
    if mesh:
        spec["mesh"] = mesh
    packed = Record(created_ms=created_ms, modified_ms=created_ms, spec=spec).pack()
    return Change("HostnameGenerator", Key("", zone, "", name).packed, packed)


def defaults(zone: str) -> list[Change]:
    """What zone and global start with."""
    found = default_zone_generators() if zone else default_global_generators()
    return [
        Change(
            "HostnameGenerator",
            Key("", zone, "", name).packed,
            Record(created_ms=NOW_MS, modified_ms=NOW_MS, labels=labels, spec=spec).pack(),
        )
        for name, spec, labels in found
    ]


class View:
    """A zone's two registries, its map, and a client that has applied every delta."""

    def __init__(self, zone: str = "west", made: type[VipMap] = VipMap) -> None:
        self.zone = zone
        self.own = Chain()
        self.copy = Chain(Registry(keeps=kept_by(zone)))
        self.map = made(zone, self.own.registry, self.copy.registry)
        self.client: dict[str, dict[str, Named]] = {}

    def flush(self) -> dict[str, Delta]:
        deltas = self.map.flush()
        for mesh, delta in deltas.items():
            names = self.client.setdefault(mesh, {})
            assert not delta.put.keys() & delta.removed
            for name in delta.removed:
                names.pop(name, None)  # it may have come and gone since the last flush
            names.update(delta.put)
        return deltas

    @property
    def names(self) -> dict[str, int]:
        published = self.map.published["default"]
        return {name: named.address - POOL for name, named in sorted(published.items())}

    def from_scratch(self) -> VipMap:
        """The map of registries that hold the same, and have never held anything else."""
        registries = []
        for registry in (self.own.registry, self.copy.registry):
            twin = registry.empty()
            for row in registry.freeze().rows():
                twin.put(*row)
            registries.append(twin)
        fresh = VipMap(self.zone, *registries)
        fresh.flush()
        return fresh


def started(zone: str = "west", made: type[VipMap] = VipMap) -> View:
    view = View(zone, made)
    view.own.commit(*defaults(zone))
    view.copy.commit(*defaults(""))
    view.flush()
    return view


class Counting(VipMap):
    """Tells whose facts it has made: what costs when there are many services."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.read: list[ServiceRef] = []
        super().__init__(*args, **options)

    def _make_facts(self, ref: ServiceRef, *packed: Any) -> ServiceFacts:
        self.read.append(ref)
        return super()._make_facts(ref, *packed)


def removal(change: Change) -> Change:
    return change._replace(payload=None)


def dataplane(name: str, service: str, *, zone: str = "west", address: str = "10.0.0.1") -> Change:
    put = put_dataplane(name, service, zone=zone)
    return record(replace(put, spec={"networking": {**put.spec["networking"], "address": address}}))


def endpoints(view: View, ref: ServiceRef) -> list[tuple[str, int, str, int]]:
    """What stands behind the first port."""
    (first, *_) = view.map.outbounds.of(ref)
    return [
        (each["address"], each["port"], each["zone"], each["priority"])
        for each in first["endpoints"]
    ]


def two_zones(**east: str) -> View:
    """West's map with `web` of two zones, a Dataplane behind each, and one over both."""
    view = started()
    view.own.commit(
        available("web", "west"), binding("web", 1), dataplane("w", "web", address="10.0.0.1")
    )
    view.copy.commit(
        available("web", "east", **east),
        binding("web", 2, "east", order=2),
        dataplane("e", "web", zone="east", address="10.0.0.2"),
        multi_zone("web"),
        bound(MULTI_ZONE, "web", 3),
    )
    view.flush()
    return view
