"""A zone that stood alone joins a global with all it has, and one that leaves keeps what it had."""

from __future__ import annotations

from collections.abc import Callable

from tests.scenarios.agents import MESH
from tests.scenarios.loglines import newest_log
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.errors import ConfigError
from zonemesh.ipam import BLOCK, Binding, Block, ipv4_text, parse_ipv4
from zonemesh.joining import HeldBlock, Side, Vip, block_rows, compare, vip_rows
from zonemesh.legacy import service_key
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.registry import Registry

CLASHING = ("z41", "z145")
"""Zones whose first block is the same one: 241.30.32.0."""


async def start_alone(world: World, *nodes: ZoneNode) -> None:
    for node in nodes:
        node.federate(federated=False)
        node.start()
    await world.until(lambda: all(node.ready for node in nodes))


async def join(world: World, *nodes: ZoneNode) -> None:
    for node in nodes:
        if node.alive:
            await node.stop()
        node.federate()
        node.start()
    await world.until(lambda: all(node.running for node in nodes))


async def give(node: ZoneNode) -> None:
    """A service of each sort: a user's, a generated one, and its legacy name."""
    await node.register(f"by-user-{node.name}")
    await node.run_dataplane(f"dp-{node.name}", f"generated-{node.name}")
    await node.run_dataplane(f"shared-{node.name}", "shared")


async def test_a_zone_that_joins_keeps_every_address_and_no_agent_misses_a_name(
    world: World,
) -> None:
    west, east = world["west"], world["east"]
    world.start_globals()
    await world.until(world.has_leader)
    east.start()
    await start_alone(world, west)
    agent = west.agent()
    await give(west)
    await give(east)
    await world.until(lambda: len(west.map) == 5)
    before, bound = west.map, west.services

    await join(world, west)

    await world.until(world.converged, 20.0)
    assert west.services == bound
    assert {name: west.map[name] for name in before} == before
    assert agent.removed == []
    assert west.zone.plane.renumbered == 0
    assert world.leader.registry.table("zone.verdict") == {}
    # What it brought is global's by now.
    await world.until(lambda: not west.zone.state.registry.table(LEGACY_VIP))
    assert "shared.mesh" in east.map


async def test_blocks_of_a_zone_that_joins_are_its_own_used_or_not(world: World) -> None:
    west = world["west"]
    await start_alone(world, west)
    await west.register("redis")
    held = {block.first for block in west.zone.state.ledgers["MeshService"].blocks("west")}
    world.start_globals()
    await world.until(world.has_leader)
    world["east"].start()

    await join(world, west)

    await world.until(world.converged, 20.0)
    await world.until(lambda: held <= firsts(world, "west"))


def firsts(world: World, zone: str) -> set[int]:
    ledger = world.leader.replica.state.ledgers["MeshService"]
    return {block.first for block in ledger.blocks(zone)}


async def test_two_zones_that_stood_alone_join_and_a_clash_renumbers_only_that_block(
    make_world: Callable[..., World],
) -> None:
    world = make_world(zones=CLASHING)
    world.auditor.reuse = True  # what is tested here is that addresses move
    first, second = (world[zone] for zone in CLASHING)
    await start_alone(world, first, second)
    await first.register(*(f"a-{number}" for number in range(20)))
    await second.register(*(f"b-{number}" for number in range(20)))
    shared = set(blocks(first)) & set(blocks(second))
    assert len(shared) == 1
    bound = {**first.services, **second.services}
    moving = {name for name in second.services if within(shared, bound[name])}
    assert 0 < len(moving) < 20
    world.start_globals()
    await world.until(world.has_leader)

    await join(world, first)
    await world.until(lambda: shared <= {ipv4_text(each) for each in firsts(world, first.name)})
    foretold = compare(side(second), Side(zone="", blocks=held_by(world.leader.registry)))
    assert {vip.name for vip in foretold.vips} == moving
    await join(world, second)

    await world.until(world.converged, 30.0)
    now = {**first.services, **second.services}
    assert {name for name in bound if now[name] != bound[name]} == moving
    assert len(set(now.values())) == 40
    assert second.zone.plane.renumbered == len(moving)
    assert first.zone.plane.renumbered == 0
    assert newest_log(400).count("vip_renumbered") == len(moving)


def held_by(registry: Registry) -> list[HeldBlock]:
    return [
        HeldBlock(pool, zone, parse_ipv4(at), size) for pool, zone, at, size in block_rows(registry)
    ]


def side(node: ZoneNode) -> Side:
    registry, zone = node.zone.state.registry, node.config.name
    vips = [
        Vip(pool, mesh, name, parse_ipv4(at)) for pool, mesh, name, at in vip_rows(registry, zone)
    ]
    return Side(zone=zone, blocks=held_by(registry), vips=vips)


def blocks(node: ZoneNode) -> list[str]:
    found = node.zone.state.ledgers["MeshService"].blocks(node.config.name)
    return [ipv4_text(block.first) for block in found]


def within(shared: set[str], address: str | None) -> bool:
    # Both are of 4,096 addresses: sixteen third octets.
    assert address is not None
    (block,) = shared
    a, b, c, _ = map(int, block.split("."))
    x, y, z, _ = map(int, address.split("."))
    return (a, b) == (x, y) and c <= z < c + 16


async def test_a_zone_that_stood_alone_does_not_take_over_another_of_its_name(
    world: World,
) -> None:
    west = await world.start_with("redis")
    await west.stop()
    stranger = world.zone_node("west", "west-2")
    await start_alone(world, stranger)
    await stranger.register("other")
    stranger.expected_failure = ConfigError

    await stranger.stop()
    stranger.federate()
    stranger.start()

    await world.until(lambda: stranger.failure is not None, 20.0)
    assert "stood alone" in str(stranger.failure)
    await world.pass_time(3.0)
    west.start()
    await world.until(world.converged, 20.0)
    assert set(west.services) == {"redis"}


async def test_a_zone_that_leaves_keeps_its_addresses_and_comes_back_with_them(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    await give(west)
    await give(east)
    await world.until(world.converged)
    bound, names = west.services, west.map
    await west.stop()
    west.federate(federated=False)
    west.start()

    await world.until(lambda: west.ready and "shared.mesh" in west.map, 15.0)
    assert west.services == bound
    own = {name for name in names if ".east." not in name and "east" not in name}
    assert {name: west.map[name] for name in own} == {name: names[name] for name in own}
    await west.register("meanwhile")
    await west.run_dataplane("dp-meanwhile", "made-alone")
    await world.until(lambda: "made-alone.mesh" in west.map)
    alone = west.map

    await join(world, west)

    await world.until(world.converged, 30.0)
    assert {name: west.map[name] for name in alone} == alone
    assert west.zone.plane.renumbered == 0


async def test_every_block_has_one_owner_after_zones_have_come_and_gone(world: World) -> None:
    west = world["west"]
    await start_alone(world, west)
    await give(west)
    world.start_globals()
    await world.until(world.has_leader)
    world["east"].start()
    await join(world, west)
    await world.until(world.converged, 20.0)

    west.kill()
    west.start()

    await world.until(world.converged, 20.0)
    table = world.leader.registry.table(BLOCK).items()
    held = [(key.split("/")[2], Block.unpack(payload).first) for key, payload in table]
    assert len(held) == len(set(held))
    for packed in world.leader.registry.table("vip.MeshService").values():
        assert Binding.unpack(packed).live


def set_apart(node: ZoneNode, service: str, address: str) -> None:
    """The zone alone binds a legacy name elsewhere than its hash says, as after a collision."""
    legacy = node.zone.state.legacy
    assert legacy is not None
    legacy.remembered = {service_key(MESH, service): parse_ipv4(address)}.get


async def test_a_legacy_name_stays_where_the_zone_that_brings_it_first_had_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.auditor.reuse = True
    west, east = world["west"], world["east"]
    await start_alone(world, west, east)
    set_apart(west, "shared", "250.0.0.1")
    set_apart(east, "shared", "250.0.0.2")
    await west.run_dataplane("dp-1", "shared")
    await east.run_dataplane("dp-2", "shared")
    await world.until(lambda: "shared.mesh" in west.map and "shared.mesh" in east.map)
    agents = west.agent(), east.agent(strict=False)
    world.start_globals()
    await world.until(world.has_leader)

    await join(world, west)
    await world.until(lambda: not west.zone.state.registry.table(LEGACY_VIP), 20.0)
    await join(world, east)

    await world.until(world.converged, 20.0)
    assert east.map["shared.mesh"] == west.map["shared.mesh"] == "250.0.0.1"
    await world.until(lambda: not east.zone.state.registry.table(LEGACY_VIP), 20.0)
    assert [agent.removed for agent in agents] == [[], []]
    assert west.zone.plane.renumbered == 0
    assert east.zone.plane.renumbered == 1
    assert "vip_renumbered" in newest_log()
