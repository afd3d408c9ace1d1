"""A zone's map under test: its registries, and a client that has applied every delta."""

from __future__ import annotations

from tests.builders import NOW_MS, Chain, put_service
from zonemesh.deciding import Put
from zonemesh.hostnames import default_global_generators, default_zone_generators
from zonemesh.ipam import Binding, vip_kind
from zonemesh.model import Change, Key, Record
from zonemesh.registry import Registry
from zonemesh.travel import kept_by
from zonemesh.vipmap import Delta, Named, VipMap

SERVICE = "MeshService"
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


def generator(
    name: str, template: str, *, zone: str = "", created_ms: int = NOW_MS, **match: str
) -> Change:
    spec = {"selector": {"meshService": {"matchLabels": match}}, "template": template}
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

    def __init__(self, zone: str = "west") -> None:
        self.zone = zone
        self.own = Chain()
        self.copy = Chain(Registry(keeps=kept_by(zone)))
        self.map = VipMap(zone, self.own.registry, self.copy.registry)
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


def started(zone: str = "west") -> View:
    view = View(zone)
    view.own.commit(*defaults(zone))
    view.copy.commit(*defaults(""))
    view.flush()
    return view
