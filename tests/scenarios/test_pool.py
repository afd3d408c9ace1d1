"""Addresses come from leased blocks; when they run short, that service waits and says so."""

from __future__ import annotations

from collections.abc import Callable

from tests.scenarios.beginnings import pooled
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.ipam import ipv4_text
from zonemesh.model import Record
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest.backend import Found


def waiting(node: ZoneNode) -> set[str]:
    return {service for service, address in node.services.items() if address is None}


def conditions(node: ZoneNode, service: str) -> list[str]:
    key = node.key(service)
    packed = node.zone.state.registry.get("MeshService", key.packed)
    assert packed is not None
    found = Found(key, Record.unpack(packed))
    status = node.zone.backend.status(KINDS["MeshService"], found)
    assert status is not None
    return [each["type"] for each in status.get("conditions", ())]


async def test_a_burst_beyond_a_zones_stock_is_bound_as_soon_as_global_leases_more(
    make_world: Callable[..., World],
) -> None:
    world = pooled(make_world, "241.0.0.0/24")  # 256 blocks of one address
    await world.start()
    west = world["west"]
    await west.register(*(f"svc-{number}" for number in range(40)))
    assert waiting(west)

    taken_s = await world.until(lambda: not waiting(west), 5.0)
    assert taken_s < 1.0
    await world.until(world.converged)
    assert len(set(west.services.values())) == 40


async def test_a_cut_off_zone_binds_as_far_as_its_stock_reaches_and_the_rest_later(
    make_world: Callable[..., World],
) -> None:
    world = pooled(make_world, "241.0.0.0/24")
    await world.start()
    west = world["west"]
    west.cut()
    await west.register(*(f"svc-{number}" for number in range(10)))
    await world.pass_time(5.0)
    held = west.services
    assert 0 < len(waiting(west)) < 10
    west.heal()

    await world.until(lambda: not waiting(west), 15.0)
    await world.until(world.converged)
    assert all(west.services[name] == address for name, address in held.items() if address)


async def test_a_pool_smaller_than_demand_makes_only_the_last_ones_wait(
    make_world: Callable[..., World],
) -> None:
    world = pooled(make_world, "241.0.0.0/29")  # eight addresses
    await world.start()
    west, east = world["west"], world["east"]
    await east.register("early")
    for number in range(9):
        await west.register(f"svc-{number}")
        await world.pass_time(0.5)
    await world.pass_time(3.0)

    assert waiting(west)
    for service in waiting(west):
        assert conditions(west, service) == ["VIPAllocated"]
        assert f"{service}.svc.mesh.local" not in west.map
    bound = [name for name in west.services if name not in waiting(west)]
    assert all(conditions(west, service) == [] for service in bound)
    assert len(east.map) == len(bound) + 1  # all the others are served everywhere
    held = west.services
    # Who waits keeps nobody else from being updated or removed.
    await west.write(west.put(bound[0], port=8080))
    await world.pass_time(2.0)
    assert west.services == held
    assert ("MeshService", "west") in world.leader.replica.state.shortages


async def test_every_address_lies_in_a_block_of_its_zone(world: World) -> None:
    await world.start()
    for zone in ("west", "east"):
        await world[zone].register(*(f"{zone}-{number}" for number in range(50)))
    await world.until(world.converged)

    ledger = world.leader.replica.state.ledgers["MeshService"]
    for zone in ("west", "east"):
        held = {
            ipv4_text(address)
            for block in ledger.blocks(zone)
            for address in range(block.first, block.first + block.size)
        }
        assert held >= set(world[zone].services.values())
