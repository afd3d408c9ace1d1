"""Several services that want one name: the same one has it in every zone, however it came about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.model import Key

NAME = "dup.shared.mesh.local"
ZONES = ("west", "east", "north")


async def sharing(make_world: Callable[..., World], seed: int = 0, **options: object) -> World:
    """A generator on global names services of all zones alike."""
    world = make_world(zones=ZONES, seed=seed, **options)
    await world.start()
    spec = {
        "selector": {"meshService": {"matchLabels": {}}},
        "template": "{{ .DisplayName }}.shared.mesh.local",
    }
    generator = Put("HostnameGenerator", Key("", "", "", "shared"), {}, spec)
    await world.leader.replica.backend.write([generator])
    return world


def holders(world: World) -> set[str | None]:
    return {world[zone].map.get(NAME) for zone in ZONES}


async def at_rest(world: World) -> None:
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    await world.until(lambda: len(holders(world)) == 1, what="zones disagree about a name")


async def west_first(world: World) -> None:
    await world["west"].register("dup")
    await world.pass_time(1.0)
    await world["east"].register("dup")


async def east_first(world: World) -> None:
    await world["east"].register("dup")
    await world.pass_time(1.0)
    await world["west"].register("dup")


async def at_once(world: World) -> None:
    await world["east"].register("dup")
    await world["west"].register("dup")
    await world["north"].register("dup")


async def while_cut_off(world: World) -> None:
    world["west"].cut()
    await world["west"].register("dup")
    await world.pass_time(1.0)
    await world["east"].register("dup")
    await world.pass_time(1.0)
    world["west"].heal()


async def with_a_clock_that_is_slow(world: World) -> None:
    await west_first(world)
    world["north"].wall_offset_ms = -600_000
    await world["north"].register("dup")


@pytest.mark.parametrize(
    "register", [west_first, east_first, at_once, while_cut_off, with_a_clock_that_is_slow]
)
@pytest.mark.parametrize("seed", range(3))
async def test_every_zone_names_the_same_winner(
    make_world: Callable[..., World], register: Callable[[World], Awaitable[None]], seed: int
) -> None:
    world = await sharing(make_world, seed)
    await register(world)
    await world.until(lambda: all(NAME in world[zone].map for zone in ZONES), 15.0)
    await world.pass_time(2.0)
    await at_rest(world)
    (winner,) = holders(world)

    if register is west_first:
        assert winner == world["west"].services["dup"]
    if register in (east_first, while_cut_off):
        assert winner == world["east"].services["dup"]
    # The same again from nothing but what is stored.
    for node in world.nodes:
        node.kill()
        node.start()
    await world.until(world.has_leader)
    await world.until(lambda: all(world[zone].ready for zone in ZONES))
    await at_rest(world)
    assert holders(world) == {winner}


async def test_a_removed_winners_name_goes_to_the_next_and_back_again(
    make_world: Callable[..., World],
) -> None:
    world = await sharing(make_world)
    await west_first(world)
    await at_rest(world)
    west, east = world["west"], world["east"]
    first, second = west.services["dup"], east.services["dup"]
    assert holders(world) == {first}
    await west.remove("dup")

    await world.until(lambda: holders(world) == {second})
    await west.register("dup")
    await world.until(lambda: holders(world) == {first})  # it ranks as before
    await at_rest(world)


async def test_who_waits_for_an_address_takes_no_name_from_who_has_one(
    make_world: Callable[..., World],
) -> None:
    """However short the pool is, and for how long: the name goes on being answered."""
    ipam = IpamConfig(mesh_service=MeshServicePool(cidr=("241.0.0.0/28",)))
    world = await sharing(make_world, global_config=GlobalConfig(ipam=ipam))
    west, east = world["west"], world["east"]
    await world.until(world.digests_agree)
    west.cut()
    agent = west.agent()
    await west.register("dup")
    await world.until(lambda: NAME in west.map)
    await east.register(*(f"east-{number}" for number in range(20)), "dup")
    await world.until(lambda: "east-0.svc.east.mesh.local" in world["north"].map)
    await world.until(lambda: east.services["dup"] is None)
    west.heal()

    await world.until(lambda: "east-0.svc.east.mesh.local" in west.map, 15.0)
    await at_rest(world)
    assert holders(world) == {west.services["dup"]}
    assert NAME not in agent.removed


async def test_a_winners_zone_that_loses_its_log_keeps_its_name(
    make_world: Callable[..., World],
) -> None:
    world = await sharing(make_world)
    await west_first(world)
    await at_rest(world)
    west = world["west"]
    (winner,) = holders(world)
    west.kill()
    west.lose_disk()
    west.start()
    await world.until(lambda: west.ready, 20.0)

    await world.pass_time(2.0)
    await at_rest(world)
    assert holders(world) == {winner}
