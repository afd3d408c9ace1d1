"""Grace, quarantine and offline run on log time: a log that stands still expires nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.world import World
from zonecp.config import MeshServiceConfig
from zonemesh.seen import Seen

QUARANTINE_S = 20.0
GRACE_S = 20.0
HOUR_MS = 3_600_000


def tiny(make_world: Callable[..., World]) -> World:
    """One zone and four addresses in all."""
    pool = MeshServicePool(cidr=("241.0.0.0/30",))
    ipam = IpamConfig(mesh_service=pool, quarantine=QUARANTINE_S)
    world = make_world(zones=("west",), global_config=GlobalConfig(ipam=ipam))
    world.auditor.reuse = True
    return world


async def full(make_world: Callable[..., World]) -> World:
    world = tiny(make_world)
    await world.start_with("a", "b", "c", "d")
    return world


def online(world: World, zone: str) -> bool | None:
    seen = Seen.of(world.leader.registry, zone)
    return None if seen is None else seen.online


async def test_an_address_rests_before_another_service_gets_it(
    make_world: Callable[..., World],
) -> None:
    world = await full(make_world)
    west = world["west"]
    freed = west.services["a"]
    await west.remove("a")
    await west.register("e")
    await world.pass_time(QUARANTINE_S - 2.0)
    assert west.services["e"] is None

    taken_s = await world.until(lambda: west.services["e"] is not None, 5.0)
    assert taken_s > 1.0
    assert west.services["e"] == freed


async def test_the_same_service_has_its_address_back_at_once(
    make_world: Callable[..., World],
) -> None:
    world = await full(make_world)
    west = world["west"]
    before = west.services["a"]
    await west.remove("a")
    await world.pass_time(2.0)
    await west.register("e", "a")

    assert west.services["a"] == before
    assert west.services["e"] is None


async def test_a_disk_that_stood_still_for_minutes_ends_no_quarantine(
    make_world: Callable[..., World],
) -> None:
    world = await full(make_world)
    west = world["west"]
    await west.remove("a")
    await west.register("e")
    west.disk_link.cut()
    await world.pass_time(600.0)
    west.disk_link.heal()
    await world.pass_time(8.0)  # at most 5 s count of them, and these

    assert west.services["e"] is None
    await world.until(lambda: west.services["e"] is not None, QUARANTINE_S)


@pytest.mark.parametrize("jump_ms", [24 * HOUR_MS, -24 * HOUR_MS])
async def test_a_wall_clock_that_jumps_ends_no_quarantine_and_no_grace(
    make_world: Callable[..., World], jump_ms: int
) -> None:
    world = await full(make_world)
    west = world["west"]
    agent = west.agent()
    await west.remove("a")
    await west.register("e")
    for node in world.nodes:
        node.wall_offset_ms += jump_ms
    await world.pass_time(10.0)

    assert west.services["e"] is None
    assert online(world, "west")
    assert set(agent.removed) <= {"a.svc.mesh.local"}
    await world.until(lambda: west.services["e"] is not None, QUARANTINE_S)


def graceful(make_world: Callable[..., World]) -> World:
    options = {"mesh_service": MeshServiceConfig(deletion_grace_period=GRACE_S)}
    return make_world(zone_options=options)


async def test_a_generated_service_outlives_its_last_workload_by_the_grace_period(
    make_world: Callable[..., World],
) -> None:
    world = graceful(make_world)
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.run_dataplane("dp-1", "redis")
    await world.until(world.converged)
    bound, names = west.services, dict(agent.names)
    world.removals.add("redis")
    await west.stop_dataplane("dp-1")
    await world.pass_time(GRACE_S - 2.0)
    assert west.services == bound
    # The legacy name is its Dataplanes' and goes with them, as in Kuma.
    assert agent.names.keys() == names.keys() - {"redis.mesh"}

    await world.until(lambda: west.services == {}, 4.0)
    await world.until(world.converged)
    assert agent.names == {}
    await west.run_dataplane("dp-2", "redis")
    await world.until(world.converged)
    assert west.services == bound  # the same key gets its address back
    assert agent.names == names


async def test_neither_a_frozen_zone_nor_a_frozen_disk_ends_the_grace_period(
    make_world: Callable[..., World],
) -> None:
    world = graceful(make_world)
    await world.start()
    west = world["west"]
    await west.run_dataplane("dp-1", "redis")
    await west.stop_dataplane("dp-1")
    west.freeze()
    await world.pass_time(120.0)
    west.thaw()
    await world.pass_time(3.0)
    west.disk_link.cut()
    await world.pass_time(120.0)
    west.disk_link.heal()
    await world.pass_time(3.0)
    assert west.services["redis"] is not None
    west.kill()
    await world.pass_time(120.0)
    west.start()
    await world.until(lambda: west.ready)
    assert west.services["redis"] is not None
    world.removals.add("redis")
    await world.until(lambda: west.services == {}, GRACE_S)


async def test_a_zone_without_heartbeats_is_offline_and_comes_back(world: World) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register("redis")
    await world.until(world.converged)
    west.kill()

    taken_s = await world.until(lambda: online(world, "west") is False, 15.0)
    assert 9.0 < taken_s < 13.0
    assert agent.names.keys() == {"redis.svc.west.mesh.local"}  # kept
    west.start()
    await world.until(lambda: online(world, "west") is True, 5.0)
    await world.until(world.converged)
    assert agent.removed == []


async def test_a_store_that_was_away_marks_nobody_offline(world: World) -> None:
    await world.start()
    await world.pass_time(2.0)
    world.store.cut(everyone=True)
    await world.pass_time(600.0)
    world.store.heal(everyone=True)
    await world.until(world.has_leader, 10.0)

    for _ in range(100):
        await world.pass_time(0.1)
        if world.has_leader():
            assert online(world, "west")
            assert online(world, "east")


async def test_a_leader_that_was_away_marks_nobody_offline(
    make_world: Callable[..., World],
) -> None:
    world = make_world(globals=1)
    await world.start()
    await world.pass_time(2.0)
    world.replicas[0].kill()
    await world.pass_time(600.0)
    world.replicas[0].start()
    await world.until(world.has_leader)

    for _ in range(100):
        await world.pass_time(0.1)
        assert online(world, "west")
        assert online(world, "east")
