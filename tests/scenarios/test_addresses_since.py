"""Global's log is set back: what global itself has given out since is known to zones, and stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from globalcp.config import GlobalConfig, IpamConfig, MeshMultiZoneServicePool, MeshServicePool
from tests.scenarios.beginnings import MULTI_ZONE, filled
from tests.scenarios.losses import lose_globals, lose_log
from tests.scenarios.restoring import back_to_normal, restore, saved, stop_globals
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.ipam import Binding, Pool, ipv4_text, vip_kind
from zonemesh.model import Key
from zonemesh.travel import GLOBAL_LOG

TIGHT = "243.0.0.0/27"
"""32 addresses: where a search from a name's hash ends depends on what came before."""
LEGACY_TIGHT = "250.0.0.0/27"
NAMES = tuple(f"m{number}" for number in range(20))


def tight(make_world: Callable[..., World]) -> World:
    config = GlobalConfig()
    return make_world(
        global_config=replace(
            config,
            ipam=IpamConfig(mesh_multi_zone_service=MeshMultiZoneServicePool(cidr=(TIGHT,))),
            dns_server=replace(config.dns_server, cidr=LEGACY_TIGHT),
        )
    )


def multi_zone(name: str) -> Put:
    return replace(MULTI_ZONE, key=Key("default", "", "", name))


def given(world: World) -> dict[str, str | None]:
    """Addresses of MeshMultiZoneServices in use."""
    found: dict[str, str | None] = {}
    for key, packed in world.leader.registry.table(vip_kind(MULTI_ZONE.kind)).items():
        binding = Binding.unpack(packed)
        if binding.released_ms is None:
            address = binding.address
            found[Key.parse(key).name] = None if address is None else ipv4_text(address)
    return found


async def made_since(world: World) -> tuple[dict[str, str | None], dict[str, str | None]]:
    west = world["west"]
    for name in NAMES:
        await world.write(multi_zone(name))
        await west.run_dataplane(f"{name}-1", f"l{name}")
    await world.until(lambda: len(given(world)) == len(NAMES) and None not in given(world).values())
    await world.until(lambda: None not in world.legacy().values())
    shown = {*world.legacy(), *(f"{name}.mzsvc.mesh.local" for name in NAMES)}
    await world.until(lambda: all(shown <= node.map.keys() for node in world.zone_nodes.values()))
    world.removals.update(NAMES)  # by the restoration: they are on global as they were saved
    return given(world), world.legacy()


async def assert_as_before(
    world: World, services: dict[str, str | None], names: dict[str, str | None]
) -> None:
    await world.until(lambda: world.legacy() == names, 30.0)
    for name in reversed(NAMES):
        await world.write(multi_zone(name))
    await world.until(lambda: None not in given(world).values())
    assert given(world) == services


async def test_what_global_gave_out_after_the_snapshot_that_is_restored_does_not_move(
    make_world: Callable[..., World],
) -> None:
    world = tight(make_world)
    west, _, agent = await filled(world)
    backup = await saved(world)
    services, names = await made_since(world)
    incarnation = world.leader.registry.incarnation
    await stop_globals(world)
    lose_globals(world)

    await restore(world, backup, replace=incarnation)
    await back_to_normal(world)

    assert given(world) == {}, "what was made on global is as it was saved"
    await assert_as_before(world, services, names)
    assert [name for name in agent.removed if "mzsvc" not in name] == []
    assert west.services["redis"] is not None


async def test_the_same_holds_where_redis_was_emptied_as_well(
    make_world: Callable[..., World],
) -> None:
    world = tight(make_world)
    await filled(world)
    backup = await saved(world)
    services, names = await made_since(world)
    await stop_globals(world)
    lose_globals(world)
    world.store.flush()

    await restore(world, backup)
    await back_to_normal(world)

    await assert_as_before(world, services, names)


async def test_a_mesh_rebuilt_from_nothing_knows_the_ranges_that_were_removed(
    make_world: Callable[..., World],
) -> None:
    first, second = "10.64.0.0/10", "10.128.0.0/10"

    def config(cidr: str) -> GlobalConfig:
        return GlobalConfig(ipam=IpamConfig(mesh_service=MeshServicePool(cidr=(cidr,))))

    world = make_world(global_config=config(first))
    west, _, agent = await filled(world)
    bound = west.services
    assert all(
        Pool("", (first,)).covers(each) for each in west.zone.state.ledgers["MeshService"].held()
    )
    await world.roll_out(config(second))
    await west.register("new")
    await world.until(world.converged)
    await world.until(
        lambda: west.zone.state.settings.former == world.leader.replica.state.settings.former
    )
    lose_globals(world)
    lose_log(world.store, GLOBAL_LOG)
    world.start_globals()

    await world.until(world.converged, 120.0)
    assert {name: west.services[name] for name in bound} == bound
    assert world.leader.replica.state.settings.former == {"MeshService": (first,)}
    assert agent.removed == []
