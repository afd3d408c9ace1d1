"""A zone that cannot reach global's store goes on by itself, as far as it knows enough."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from tests.scenarios.losses import lose_log
from tests.scenarios.world import World
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.seen import Seen
from zonemesh.travel import up_log


async def test_a_zone_cut_off_binds_and_serves_and_east_gets_the_same_addresses_later(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    agent = west.agent()
    west.cut()
    await west.register("redis", "kafka")
    await world.until(lambda: len(agent.names) == 2, 0.2)
    bound = west.services
    assert None not in bound.values()
    await world.pass_time(30.0)
    assert east.map == {}

    west.heal()
    taken_s = await world.until(world.converged)
    assert taken_s <= 7.0  # the longest pause between two tries, and then some
    assert west.services == bound
    assert east.map["redis.svc.west.mesh.local"] == bound["redis"]
    assert west.zone.plane.uplink is not None
    assert west.zone.plane.uplink.full_syncs == 1  # the first start's


async def test_a_zone_whose_store_is_away_at_start_goes_on_from_its_own_log(world: World) -> None:
    await world.start()
    west, agent = world["west"], world["west"].agent()
    await west.register("redis")
    await world.until(world.converged)
    bound = west.services
    await world.pass_time(0.7)  # the copy on disk is half a second behind what agents were told
    west.kill()
    west.cut()
    west.start()

    await world.until(lambda: west.ready, 3.0)
    await west.register("kafka")
    await world.until(lambda: len(agent.names) == 2)
    assert west.services["redis"] == bound["redis"]
    west.heal()
    await world.until(world.converged)


async def test_a_zone_that_knows_nothing_and_reaches_nobody_binds_and_publishes_nothing(
    world: World,
) -> None:
    await world.start()
    west, agent = world["west"], world["west"].agent()
    await west.register("redis")
    await world.until(world.converged)
    bound, shown = west.services, len(agent.shown)
    west.kill()
    west.lose_disk()
    west.cut()
    west.start()
    await world.until(lambda: west.leads)
    await west.register("kafka")
    await world.pass_time(20.0)

    assert west.services == {"kafka": None}
    assert not west.ready
    assert len(agent.shown) == shown
    assert agent.names.keys() == {"redis.svc.mesh.local"}
    west.heal()
    await world.until(world.converged, 20.0)
    assert west.services["redis"] == bound["redis"]
    assert agent.names.keys() == {"redis.svc.mesh.local", "kafka.svc.mesh.local"}


async def test_a_zone_that_lost_its_log_adopts_what_it_had_and_nobody_loses_a_name(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    agents = west.agent(), east.agent()
    await west.register("by-user")
    await west.run_dataplane("dp-1", "generated")
    await world.until(world.converged)
    bound = west.services
    first = world.store._server.data.log(up_log("west")).head
    assert first is not None
    west.kill()
    west.lose_disk()
    await world.pass_time(1.0)
    west.start()

    taken_s = await world.until(lambda: west.ready, 30.0)
    assert taken_s >= 10.0  # it watched the owner's stream first
    await world.until(world.converged)
    assert west.services == bound
    await world.until(lambda: world.entries(up_log("west"))[-1].position.term > first.position.term)
    second = world.store._server.data.log(up_log("west")).head
    assert second is not None
    assert first.owner != second.owner
    for agent in agents:
        assert agent.removed == []
    await west.register("after")
    await world.until(world.converged)


@pytest.mark.parametrize("lost", ["everything", "log", "head"])
async def test_a_zone_that_lost_its_log_adopts_nothing_while_globals_is_missing(
    world: World, lost: str
) -> None:
    """An empty store is no empty mesh: it is about to be restored."""
    await world.start()
    west = world["west"]
    agents = west.agent(), world["east"].agent()
    await west.register("redis", "kafka")
    await world.until(world.converged)
    bound = west.services
    await world.pass_time(1.0)
    west.kill()
    west.lose_disk()
    if lost == "everything":
        world.store.flush()
    else:
        world.store.delete_key("global", lost)  # type: ignore[arg-type]
        lose_log(world.store, up_log("west"))
    west.start()

    await world.until(lambda: west.running)
    await world.until(world.converged, 90.0)
    assert west.services == bound
    assert [agent.removed for agent in agents] == [[], []]


async def test_what_was_registered_before_adoption_stays_and_what_was_not_comes_back(
    world: World,
) -> None:
    west = await world.start_with("old", "both")
    bound = west.services
    west.kill()
    west.lose_disk()
    west.start()
    await world.until(lambda: west.leads)
    await west.write(west.put("both", port=8080), west.put("new", port=8080))

    await world.until(lambda: west.ready, 30.0)
    await world.until(world.converged)
    assert {name: west.services[name] for name in bound} == bound
    assert west.services["new"] is not None
    packed = world.leader.registry.get("MeshService", west.key("both").packed)
    assert packed is not None
    assert b"\x1f\x90" in packed  # port 8080: the newer one


async def test_a_second_control_plane_under_a_living_zones_name_is_refused(world: World) -> None:
    await world.start()
    west = world["west"]
    agent = west.agent()
    await west.register("redis")
    await world.until(world.converged)
    bound = west.services
    newcomer = world.zone_node("west", "west-2")
    newcomer.expected_failure = ConfigError
    their_agent = newcomer.agent()
    newcomer.start()

    await world.until(lambda: newcomer.failure is not None, 15.0)
    assert isinstance(newcomer.failure, ConfigError)
    assert "another control plane" in str(newcomer.failure)
    assert their_agent.shown == []
    assert west.services == bound
    await west.register("kafka")
    await world.until(world.converged)
    assert west.running
    assert agent.removed == []
    seen = Seen.of(world.leader.registry, "west")
    assert seen is not None
    assert seen.uid == west.zone.state.note.uid  # type: ignore[union-attr]


async def test_a_zone_that_was_taken_over_while_it_was_frozen_gives_way_when_it_wakes(
    world: World,
) -> None:
    west = await world.start_with("redis")
    bound = west.services
    west.freeze()
    west.expected_failure = ConfigError
    newcomer = world.zone_node("west", "west-2")
    newcomer.start()
    await world.until(lambda: newcomer.ready, 30.0)
    await world.pass_time(3.0)
    west.thaw()

    await world.until(lambda: west.failure is not None, 15.0)
    assert newcomer.running
    assert newcomer.services == bound
    world.zone_nodes["west"] = newcomer
    await newcomer.register("kafka")
    await world.until(world.converged)


async def test_writes_while_nobody_leads_yet_are_refused_and_not_lost_in_silence(
    world: World,
) -> None:
    await world.start()
    west = world["west"]
    west.kill()
    west.start()
    await world.until(lambda: west.running)
    outcome: object = None
    try:
        await west.register("redis")
        outcome = "written"
    except UnavailableError:
        outcome = "refused"

    await world.until(world.converged)
    assert ("redis" in west.services) == (outcome == "written")


async def test_a_store_that_comes_and_goes_every_three_seconds_lets_zones_converge(
    world: World,
) -> None:
    await world.start()
    agent = world["east"].agent()
    for number in range(6):
        world.store.cut(everyone=True)
        await world["west"].register(f"svc-{number}")
        await asyncio.sleep(3.0)
        world.store.heal(everyone=True)
        await asyncio.sleep(3.0)

    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == []


async def test_a_zone_without_any_global_yet_accepts_and_is_bound_once_there_is_one(
    make_world: Callable[..., World],
) -> None:
    world = make_world(globals=1)
    west = world["west"]
    for zone in world.zone_nodes.values():
        zone.start()
    await world.until(lambda: west.leads)
    await west.register("redis")
    await world.pass_time(5.0)
    assert not west.ready
    world.replicas[0].start()
    await world.until(world.converged, 15.0)
    assert west.services["redis"] is not None


async def test_a_flood_of_writes_to_a_disk_that_stands_still_ends_no_leadership(
    world: World,
) -> None:
    await world.start()
    west = world["west"]
    west.disk_link.cut()
    writer = west.zone.leadership.writer
    assert writer is not None
    flood = []
    for _ in range(2):  # the second time with an entry on its way
        with contextlib.suppress(UnavailableError):
            while True:
                flood.append(writer.enqueue(west.put("redis")))
        await asyncio.sleep(0.01)
    await world.pass_time(5.0)
    west.disk_link.heal()
    await asyncio.gather(*flood)

    assert west.zone.leadership.terms_led == 1
    await world.until(world.converged)
    assert set(west.services) == {"redis"}
