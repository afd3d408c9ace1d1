"""Several control planes of one zone on one log: one leads, any may die, no name is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonecp.config import RuntimeConfig, UniversalConfig
from zonecp.liveness import MOVE_S, RETURN_S
from zonemesh.agents import AGENT, AgentNote
from zonemesh.model import Key
from zonemesh.travel import up_log

SERVICES = [f"svc-{number}" for number in range(4)]


@pytest.fixture
async def replicated(make_world: Callable[..., World]) -> AsyncIterator[World]:
    world = make_world(zone_replicas=2)
    await world.start()
    yield world
    world.check()


def leader(world: World, zone: str = "west") -> ZoneNode:
    found = world.leading(zone)
    assert found is not None
    return found


def follower(world: World, zone: str = "west") -> ZoneNode:
    return next(node for node in world.of_zone(zone) if node.running and not node.leads)


async def test_one_leads_and_the_other_serves_the_same_map(replicated: World) -> None:
    world = replicated
    agents = [node.agent() for node in world.of_zone("west")]
    await leader(world).register("redis")

    await world.until(world.converged)
    assert world.leading("west") is not None
    assert agents[0].names == agents[1].names
    assert follower(world).zone.backend.leader_url() == leader(world).zone.url
    assert leader(world).zone.backend.leader_url() is None
    # Streams have one writer: nothing was published twice.
    assert world.times_written(up_log("west"), "MeshService", leader(world).key("redis")) == 1


@pytest.mark.parametrize("steps", range(0, 200, 10))
async def test_a_zones_leader_killed_at_any_step_loses_and_doubles_nothing(
    make_world: Callable[..., World], steps: int
) -> None:
    world = make_world(zone_replicas=2)
    await world.start()
    agents = world.roam("west"), world.roam("east")
    await leader(world).register("before")
    await world.until(world.converged)
    killed = leader(world)
    acknowledged = await killed.register_and_die(*SERVICES, steps=steps)

    taken_s = await world.until(lambda: world.leading("west") is not None)
    assert taken_s <= 3.0
    new = leader(world)
    assert acknowledged | {"before"} <= set(new.services)
    await new.register("after")
    killed.start()
    await world.until(world.converged)
    await world.until(world.up_matches)
    await world.until(lambda: {len(each.names) for each in agents} == {len(new.services)})
    for agent in agents:
        assert agent.removed == []
    for service in new.services:
        assert world.times_written(up_log("west"), "MeshService", new.key(service)) == 1
    assert world.full_syncs("west") == 1  # the first start's


async def test_a_zones_leader_that_stops_hands_over_at_once(replicated: World) -> None:
    world = replicated
    await world.pass_time(1.0)
    leaving = leader(world)
    stopping = asyncio.create_task(leaving.stop())
    await world.until(lambda: not leaving.leads)
    taken_s = await world.until(lambda: world.leading("west") is not None)
    await stopping

    assert taken_s <= 0.1
    await leader(world).register("redis")


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 8, 12, 20, 40])
async def test_a_zones_frozen_leader_that_wakes_takes_nothing_back(
    replicated: World, steps: int
) -> None:
    world = replicated
    agents = world.roam("west"), world.roam("east")
    await leader(world).register(*SERVICES)
    await world.until(world.converged)
    old = leader(world)
    writing = asyncio.create_task(old.register("late"))
    await old.run_steps(steps)
    old.freeze()
    await world.until(lambda: world.leading("west") is not None, 3.0)
    new = leader(world)
    await new.register("meanwhile")
    await world.pass_time(8.0)
    old.thaw()
    await world.until(lambda: not old.leads, 2.0)
    await asyncio.wait({writing})
    writing.exception()

    await world.until(world.converged)
    assert new.leads
    assert old.running
    assert old.zone.own.follower.resyncs.total() == 0
    await world.until(world.up_matches)
    for agent in agents:
        assert agent.removed == []
    world.entries(up_log("west"))  # one chain


async def test_whoever_starts_while_another_leads_is_ready_once_it_has_caught_up(
    replicated: World,
) -> None:
    world = replicated
    second = follower(world)
    await second.stop()
    await leader(world).register(*SERVICES)
    second.start()

    await world.until(lambda: second.ready, 3.0)
    assert not second.leads
    await world.until(lambda: second.zone.readiness.behind() is None, 3.0)
    assert set(second.services) == set(SERVICES)


async def test_an_agent_that_knows_more_than_a_follower_waits_and_is_told_nothing_older(
    replicated: World,
) -> None:
    world = replicated
    slow = follower(world)
    assert slow.own_link is not None
    agent = leader(world).agent()
    slow.own_link.cut()
    await leader(world).register("redis")
    await world.until(lambda: "redis.svc.mesh.local" in agent.names)
    serving = slow.agent(strict=False)
    serving.revision = agent.revision
    await world.pass_time(6.0)

    assert serving.shown == []  # it waits for 5 s, is told 503, and asks again
    slow.own_link.heal()
    await world.until(lambda: serving.shown != [], 8.0)
    assert "redis.svc.mesh.local" in slow.map


# Whose agent is there


def note_of(world: World, name: str) -> AgentNote | None:
    registry = leader(world).zone.state.registry
    return AgentNote.of(registry, Key("default", "west", "", name).packed)


def noted(world: World, name: str) -> bool:
    note = note_of(world, name)
    return note is not None and note.online


def notes_written(world: World, zone: str, name: str) -> int:
    return world.times_written(up_log(zone), AGENT, Key("default", zone, "", name))


async def test_an_agent_at_a_follower_is_online(replicated: World) -> None:
    world = replicated
    await leader(world).run_dataplane("r-1", "redis")
    agent = follower(world).agent(dataplane="r-1")
    came_s = await world.until(lambda: noted(world, "r-1"))
    await world.pass_time(2 * RETURN_S)
    assert noted(world, "r-1")

    await follower(world).part_with(agent)
    gone_s = await world.until(lambda: not noted(world, "r-1"), 2 * MOVE_S)
    assert came_s <= 3.0
    assert gone_s >= MOVE_S


async def test_an_agent_that_moves_between_replicas_was_never_gone(replicated: World) -> None:
    world = replicated
    await leader(world).run_dataplane("r-1", "redis")
    agent = world.roam("west", dataplane="r-1")
    await world.until(lambda: noted(world, "r-1"))
    await world.pass_time(RETURN_S + 1.0)
    for _ in range(4):
        await agent.leave()
        await world.pass_time(3.0)

    assert noted(world, "r-1")
    assert notes_written(world, "west", "r-1") == 1


@pytest.mark.parametrize("at_leader", [True, False])
async def test_an_agent_whose_replica_dies_was_never_gone(
    replicated: World, at_leader: bool
) -> None:
    world = replicated
    await leader(world).run_dataplane("r-1", "redis")
    agent = world.roam("west", dataplane="r-1")
    await world.until(lambda: noted(world, "r-1"))
    await world.pass_time(RETURN_S + 1.0)
    assert agent.at is not None
    if agent.at.leads != at_leader:
        await agent.leave()
        await world.until(lambda: agent.at is not None and agent.at.leads == at_leader)
        await world.pass_time(2.0)
    agent.at.kill()
    await world.until(lambda: world.leading("west") is not None, 3.0)
    await world.pass_time(2 * RETURN_S)

    assert noted(world, "r-1")
    assert notes_written(world, "west", "r-1") == 1


async def test_an_agent_that_went_with_its_replica_is_offline_and_its_dataplane_goes(
    make_world: Callable[..., World],
) -> None:
    runtime = RuntimeConfig(universal=UniversalConfig(dataplane_cleanup_age=20.0))
    world = make_world(zone_replicas=2, zone_options={"runtime": runtime})
    await world.start()
    await leader(world).run_dataplane("r-1", "redis")
    world["west-2"].agent(dataplane="r-1")
    await world.until(lambda: noted(world, "r-1"))
    world["west-2"].kill()
    await world.until(lambda: world.leading("west") is not None, 3.0)

    await world.until(lambda: not noted(world, "r-1"), 2 * RETURN_S)
    await world.until(
        lambda: not world["west"].zone.state.registry.table("Dataplane"),
        30.0,
    )


async def test_the_own_logs_store_that_is_away_for_long_makes_nobody_offline(
    replicated: World,
) -> None:
    world = replicated
    await leader(world).run_dataplane("r-1", "redis")
    agents = [node.agent() for node in world.of_zone("west")]
    follower(world).agent(dataplane="r-1")
    await world.until(lambda: noted(world, "r-1"))
    await world.pass_time(RETURN_S + 1.0)
    world.own_stores["west"].cut(everyone=True)
    await world.pass_time(30.0)
    for node in world.of_zone("west"):
        assert node.ready
    world.own_stores["west"].heal(everyone=True)
    await world.until(lambda: world.leading("west") is not None)
    await world.pass_time(2 * RETURN_S)

    assert noted(world, "r-1")
    assert notes_written(world, "west", "r-1") == 1
    for agent in agents:
        assert agent.removed == []
