"""A mesh of a plan's shape, and what its maps must be."""

from __future__ import annotations

from collections.abc import Iterator

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.agents import MESH, Address
from tests.scenarios.world import World
from tests.simulation.operations import Plan, Shape
from zonemesh.deciding import Put
from zonemesh.hostnames import MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE
from zonemesh.ipam import Binding, ipv4_text, vip_kind
from zonemesh.model import Key, zone_of
from zonemesh.registry import Registry
from zonemesh.runtime.sections import SnapshotConfig

SHARED = "dup"
SHARED_NAME = f"{SHARED}.shared.mesh.local"
OTHER_KINDS = {MESH_EXTERNAL_SERVICE: "extsvc", MESH_MULTI_ZONE_SERVICE: "mzsvc"}


class SimulatedWorld(World):
    """What its maps must be, with services of all kinds and the names that several zones want."""

    reuses = False

    def expected(self, zone: str) -> dict[str, Address]:
        found = super().expected(zone)
        found.update(self._of_other_kinds(zone))
        winner = self.winner()
        if winner is not None:
            # Whose it is, is `agreed`'s to say.
            found[SHARED_NAME] = self[zone].map.get(SHARED_NAME, winner)
        return found

    def _of_other_kinds(self, zone: str) -> Iterator[tuple[str, Address]]:
        """What was made on global, by its log, and in the zone itself, by the zone's."""
        for registry, origin in ((self.whole, ""), (self[zone].zone.state.registry, zone)):
            for kind, domain in OTHER_KINDS.items():
                for key in registry.table(kind):
                    if zone_of(key) == origin:
                        address = _address(registry, kind, key)
                        # One without an address is missed wherever it is looked for.
                        yield f"{Key.parse(key).name}.{domain}.mesh.local", address or ""

    @property
    def whole(self) -> Registry:
        """A replica's state: all agree once the mesh is at rest."""
        return next(each.registry for each in self.replicas if each.running)

    def winner(self) -> Address | None:
        """The address of the one merged first of those that want the shared name."""
        registry = self.whole
        found = []
        for node in self.zone_nodes.values():
            packed = registry.get(
                vip_kind("MeshService"), Key(MESH, node.config.name, "", SHARED).packed
            )
            if SHARED in node.services and packed is not None:
                binding = Binding.unpack(packed)
                if binding.live and binding.address is not None and binding.order is not None:
                    found.append((binding.order, binding.address))
        return ipv4_text(min(found)[1]) if found else None

    def differences(self) -> Iterator[str]:
        for told in super().differences():
            # With few addresses, some services wait until others have rested.
            if not (self.reuses and "has no address for" in told):
                yield told


def _address(registry: Registry, kind: str, key: str) -> Address | None:
    packed = registry.get(vip_kind(kind), key)
    binding = None if packed is None else Binding.unpack(packed)
    if binding is None or binding.address is None or not binding.live:
        return None
    return ipv4_text(binding.address)


def make_world(plan: Plan) -> SimulatedWorld:
    shape: Shape = plan.shape
    snapshots = SnapshotConfig(entries=shape.snapshot_entries, bytes=1 << 20)
    ipam = IpamConfig(
        mesh_service=MeshServicePool(cidr=(shape.pool,)), quarantine=shape.quarantine_s
    )
    world = SimulatedWorld(
        zones=shape.zones,
        globals=shape.globals,
        seed=plan.seed,
        global_config=GlobalConfig(snapshots=snapshots, ipam=ipam),
        zone_options={"snapshots": snapshots},
        zone_replicas=shape.zone_replicas,
    )
    world.reuses = shape.reuses
    return world


def shared_generator() -> Put:
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": SHARED}}},
        "template": "{{ .DisplayName }}.shared.mesh.local",
    }
    return Put("HostnameGenerator", Key("", "", "", "shared"), {}, spec)
