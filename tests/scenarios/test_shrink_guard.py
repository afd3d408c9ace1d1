"""Global's log is lost or goes back, and other zones' maps keep what nobody removed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.scenarios.agents import Agent
from tests.scenarios.losses import lose_globals, lose_log
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonecp.config import ShrinkGuardConfig
from zonemesh.deciding import Delete
from zonemesh.log.appender import Appender
from zonemesh.model import Key

SERVICES = [f"svc-{number}" for number in range(8)]
GUARD = ShrinkGuardConfig(share=0.3, services=3, patience=60.0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(zone_options={"shrink_guard": GUARD})
    yield made
    await made.close()


async def filled(world: World) -> tuple[ZoneNode, ZoneNode, Agent]:
    await world.start()
    west, east = world["west"], world["east"]
    agent = east.agent()
    await west.register(*SERVICES)
    await east.register("local")
    await world.until(world.converged)
    return west, east, agent


async def new_log(world: World) -> None:
    """Somebody emptied Redis and lost every global's disk: a log of another incarnation begins."""
    lose_globals(world)
    lose_log(world.store, "global")
    stranger = Appender(world.store.log("global"), writer="stranger", clock=world["east"].clock)
    await stranger.create("another", term=9)
    await world.pass_time(8.0)
    await stranger.commit(note={"hash": ""})  # of a global that knows nothing of a recovery


async def west_is_held(world: World) -> Agent:
    """A new global that does not recover has begun a log, and west is not there to be met."""
    west, east, agent = await filled(world)
    west.kill()
    await new_log(world)
    await world.until(lambda: east.zone.shrink_guard.holding.get("west") == 8)
    assert "8 of west" in (east.zone.backend.describe()["held_back"] or "")
    return agent


def of_west(agent: Agent) -> list[str]:
    return [name for name in agent.names if ".west." in name]


async def test_no_name_goes_while_a_new_global_has_not_met_its_zone(world: World) -> None:
    agent = await west_is_held(world)
    assert len(of_west(agent)) == 8
    await world["east"].register("new")
    world.start_globals()
    await world.until(lambda: "new.svc.mesh.local" in agent.names)

    world["west"].start()
    await world.until(world.converged, 30.0)
    await world.until(lambda: not world["east"].zone.shrink_guard.holding)

    assert agent.removed == []
    assert len(of_west(agent)) == 8


async def test_what_was_removed_meanwhile_goes_once_its_zone_is_merged_again(world: World) -> None:
    agent = await west_is_held(world)
    west = world["west"]
    west.cut()
    west.start()
    world.start_globals()
    await world.until(lambda: west.leads)
    await west.remove("svc-0", "svc-1")
    west.heal()

    await world.until(world.converged, 30.0)

    assert {name.partition(".")[0] for name in agent.removed} == {"svc-0", "svc-1"}


async def test_a_zone_that_does_not_come_back_is_believed_gone_after_the_patience(
    world: World,
) -> None:
    agent = await west_is_held(world)

    await world.pass_time(GUARD.patience - 10.0)
    assert len(of_west(agent)) == 8
    world.removals.update(SERVICES)  # nobody removed them; from here on that is expected
    await world.pass_time(15.0)

    assert of_west(agent) == []
    assert world["east"].zone.shrink_guard.describe() is None


async def test_an_operator_may_confirm_at_once(world: World) -> None:
    agent = await west_is_held(world)

    world.removals.update(SERVICES)
    world["east"].zone.shrink_guard.confirm()
    await world.until(lambda: of_west(agent) == [], 3.0)


async def test_a_deleted_zone_and_a_disabled_one_take_their_names_at_once(world: World) -> None:
    west, east, agent = await filled(world)
    await west.stop()
    await world.pass_time(12.0)
    world.removals.update(SERVICES)

    await world.write(Delete("Zone", Key("", "", "", "west")))

    await world.until(lambda: not [name for name in agent.names if ".west." in name], 3.0)
    assert east.zone.shrink_guard.holding == {}


async def test_a_zone_away_while_most_was_removed_lets_it_go_at_once(world: World) -> None:
    west, east, agent = await filled(world)
    east.cut()
    await west.remove(*SERVICES[:7])
    await world.pass_time(3.0)
    leader = world.leader.replica
    leader.snapshotter.ask()
    await world.until(lambda: leader.snapshotter.taken > 0)
    await leader.target.trim(leader.state.registry.position)
    east.heal()

    await world.until(world.converged, 15.0)
    assert east.zone.follower is not None
    assert east.zone.follower.resyncs["gap"] == 1
    assert east.zone.shrink_guard.holding == {}
    assert len([name for name in agent.names if ".west." in name]) == 1
