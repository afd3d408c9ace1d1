"""An operator changes a pool by restarting one replica after the other with a new configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.loglines import newest_log
from tests.scenarios.losses import lose_globals, lose_log
from tests.scenarios.world import World
from zonemesh.ipam import BLOCK, Block, Pool, parse_ipv4
from zonemesh.travel import GLOBAL_LOG

OLD, NEW = "241.0.0.0/8", "10.64.0.0/10"
POOL = Pool("MeshService", (NEW,))


def config(*cidrs: str, **ipam: Any) -> GlobalConfig:
    return GlobalConfig(ipam=IpamConfig(mesh_service=MeshServicePool(cidr=cidrs), **ipam))


def new(address: str | None) -> bool:
    return address is not None and POOL.covers(parse_ipv4(address))


async def test_bound_addresses_stay_and_new_services_get_theirs_from_the_new_range(
    world: World,
) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register("redis", "kafka")
    await world.until(world.converged)
    bound = west.services

    await world.roll_out(config(NEW))
    settings = world.leader.replica.state.settings
    await world.until(
        lambda: bool(west.zone.state.ledgers["MeshService"].open_blocks(POOL, "west"))
    )
    await west.register("late")

    await world.until(world.converged)
    assert {name: west.services[name] for name in bound} == bound
    assert new(west.services["late"])
    assert settings.former == {"MeshService": (OLD,)}
    assert agent.removed == []
    assert world.leader.replica.state.draining() == {("MeshService", "west"): 2}


async def test_a_zone_cut_off_during_the_change_binds_in_its_old_blocks_and_nobody_else_does(
    world: World,
) -> None:
    await world.start()
    west = world["west"]
    west.cut()
    await world.roll_out(config(NEW))
    await west.register("redis")
    bound = west.services
    await world.pass_time(5.0)

    west.heal()

    await world.until(world.converged, 15.0)
    assert west.services == bound
    assert not new(bound["redis"])


async def test_draining_blocks_survive_restarts_of_their_zone_and_the_loss_of_its_log(
    world: World,
) -> None:
    west = await world.start_with("redis")
    bound = west.services
    await world.roll_out(config(NEW))
    west.kill()
    west.start()
    await world.until(world.converged, 15.0)
    assert west.services == bound

    west.kill()
    west.lose_disk()
    west.start()

    await world.until(world.converged, 30.0)
    assert west.services == bound


async def test_draining_blocks_survive_the_loss_of_global_s_log(world: World) -> None:
    west = await world.start_with("redis")
    bound = west.services
    await world.roll_out(config(NEW))
    await world.until(lambda: west.zone.copy.cursor == world.leader.registry.cursor)
    lose_globals(world)
    lose_log(world.store, GLOBAL_LOG)
    world.start_globals()

    await world.until(world.converged, 120.0)
    assert west.services == bound


async def test_a_standby_with_another_configuration_says_so_and_takes_it_over_when_it_leads(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    await world.start()
    standby = world.standby
    await standby.stop()
    standby.config = config(NEW, quarantine=7200.0)
    standby.start()
    await world.until(lambda: standby.running and standby.replica.ready() is None)
    await world.until(lambda: standby.replica.follower.lag_s is not None)
    assert newest_log(400).count("settings_differ") == 1
    described = standby.replica.backend.describe()["settings"]
    assert described["differs"] == {
        "pools.MeshService": {"mesh": (OLD,), "configured": (NEW,)},
        "quarantine_ms": {"mesh": 86_400_000, "configured": 7_200_000},
    }
    assert "settings_changed" not in newest_log(400)

    await world.leader.stop()

    await world.until(lambda: standby.leads)
    await world.until(lambda: standby.replica.state.settings.pools["MeshService"] == (NEW,))
    await world.until(lambda: "settings_changed" in newest_log())
    assert standby.replica.backend.describe()["settings"]["differs"] == {}


async def test_a_range_that_is_taken_back_is_in_use_again(world: World) -> None:
    west = await world.start_with("redis")
    await world.roll_out(config(NEW))
    await world.roll_out(config(OLD))
    await world.until(lambda: west.zone.state.settings.pools["MeshService"] == (OLD,))

    await west.register("late")

    await world.until(world.converged)
    assert not new(west.services["late"])
    assert world.leader.replica.state.draining() == {}
    blocks = world.leader.registry.table(BLOCK).values()
    firsts = [Block.unpack(payload).first for payload in blocks]
    assert len(firsts) == len(set(firsts))


async def test_an_emptied_range_goes_back_and_another_pool_may_have_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    world.auditor.reuse = True
    await world.start()
    await world.roll_out(config(OLD, quarantine=60.0))
    west, east = world["west"], world["east"]
    await west.register("redis", "kafka")
    await world.until(world.converged)
    kept = west.services["kafka"]

    await world.roll_out(config(NEW, quarantine=60.0))
    await west.remove("redis")
    await world.pass_time(30.0)
    assert west.services == {"kafka": kept}
    held = old_blocks(world)
    assert held
    await west.remove("kafka")
    await world.until(lambda: not old_blocks(world), 240.0)

    for zone in (west, east):
        own = zone.zone.state.registry.table(BLOCK).values()
        assert not any(in_old(Block.unpack(payload)) for payload in own)
    await west.register("kafka")
    await world.until(world.converged)
    assert new(west.services["kafka"])


def in_old(block: Block) -> bool:
    return Pool("MeshService", (OLD,)).covers(block.first, block.size)


def old_blocks(world: World) -> list[int]:
    """Of the removed range: held by anybody, or at rest."""
    blocks = map(Block.unpack, world.leader.registry.table(BLOCK).values())
    return [block.first for block in blocks if in_old(block)]
