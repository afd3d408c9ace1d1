"""A zone's control plane that dies and returns with its log: nothing twice, nothing left out."""

from __future__ import annotations

import pytest

from tests.scenarios.world import World
from zonemesh.log.memory import Effect
from zonemesh.travel import up_log

SERVICES = [f"svc-{number}" for number in range(4)]


async def test_a_restarted_zone_resumes_its_uplink_where_it_was(world: World) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register("redis")
    await world.until(world.converged)
    shown = len(agent.shown)
    west.kill()
    await world.pass_time(2.0)
    west.start()
    await world.until(lambda: west.ready)
    await world.pass_time(3.0)

    assert world.full_syncs("west") == 1  # the first start's
    assert world.times_written(up_log("west"), "MeshService", west.key("redis")) == 1
    assert len(agent.shown) == shown
    await west.register("kafka")
    await world.until(world.converged)


async def test_what_was_registered_just_before_a_graceful_stop_arrives(world: World) -> None:
    await world.start()
    west = world["west"]
    await west.register(*SERVICES)
    await west.stop()
    west.start()

    await world.until(world.converged)
    assert set(west.services) == set(SERVICES)


@pytest.mark.parametrize("steps", range(0, 90, 5))
async def test_a_zone_killed_at_any_step_copies_each_entry_once(world: World, steps: int) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register("before")
    await world.until(world.converged)
    acknowledged = await west.register_and_die(*SERVICES, steps=steps)
    west.start()

    await world.until(world.converged)
    await world.until(world.up_matches)
    assert acknowledged | {"before"} <= set(west.services)
    assert agent.removed == []
    assert world.full_syncs("west") == 1
    for service in west.services:
        assert world.times_written(up_log("west"), "MeshService", west.key(service)) == 1


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_an_up_entry_of_unknown_fate_is_copied_once(world: World, effect: Effect) -> None:
    await world.start()
    west = world["west"]
    west.link.fail_next_append(effect)
    await west.register(*SERVICES)

    await world.until(world.converged)
    for service in SERVICES:
        assert world.times_written(up_log("west"), "MeshService", west.key(service)) == 1


@pytest.mark.parametrize("steps", range(0, 120, 10))
async def test_a_zone_killed_at_any_step_of_its_first_start_starts_again(
    world: World, steps: int
) -> None:
    for node in world.nodes:
        node.start()
    west = world["west"]
    west.kill_after(steps)
    await world.until(lambda: not west.alive)
    west.start()
    await world.until(lambda: west.ready, 15.0)
    await west.register("redis")

    await world.until(world.converged)


@pytest.mark.parametrize("steps", range(0, 200, 20))
async def test_a_zone_killed_at_any_step_of_its_adoption_adopts_again(
    world: World, steps: int
) -> None:
    await world.start()
    west = world["west"]
    agents = west.agent(), world["east"].agent()
    await west.register(*SERVICES)
    await world.until(world.converged)
    bound = west.services
    west.kill()
    west.lose_disk()
    west.start()
    await world.pass_time(10.4)  # the owner's stream has been watched by then, or nearly
    west.kill_after(steps)
    await world.until(lambda: not west.alive)
    west.start()

    await world.until(lambda: west.ready, 30.0)
    await world.until(world.converged)
    assert west.services == bound
    assert all(agent.removed == [] for agent in agents)
