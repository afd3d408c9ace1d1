"""Global's log is lost or set back in the store: it gets back what it had, and no name goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.beginnings import MULTI_ZONE, filled
from tests.scenarios.losses import lose_globals, lose_log
from tests.scenarios.world import World
from zonemesh.log.appender import Appender
from zonemesh.log.memory import Part
from zonemesh.recovery import Recovery

FOUND_S = 2.0


async def test_a_log_that_was_rolled_back_gets_its_entries_back(world: World) -> None:
    west, east, agent = await filled(world)
    await world.pass_time(3.0)  # heartbeats only: what is lost says nothing of services
    held = len(world.entries("global"))
    world.store.roll_back("global", held - 2)

    await world.until(lambda: len(world.entries("global")) >= held, FOUND_S)
    await world.until(world.has_leader, 3.0)
    await west.register("mongo")
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == []
    world.entries("global")
    assert {*east.resyncs, *west.resyncs} <= {"rolled_back"}  # unless nobody had looked before


async def test_an_emptied_store_is_restored_from_the_longest_history(world: World) -> None:
    west, east, agent = await filled(world)
    bound, known = west.services, world.leader.registry.digest
    assert known
    world.store.flush()

    await world.until(lambda: east.resyncs.get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not world.recovering(), 10.0)
    await west.register("mongo")
    await world.until(world.converged)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    assert agent.removed == []
    assert west.services.items() >= bound.items()
    assert world.leader.registry.position.term > 2  # above every term that was


async def test_a_store_from_before_the_log_was_founded_again_gives_way_to_what_came_since(
    world: World,
) -> None:
    west, east, agent = await filled(world)
    before = world.store.clone()
    former = world.leader.registry.incarnation

    def founded_again() -> bool:
        return world.has_leader() and world.leader.registry.incarnation != former

    world.store.flush()
    await world.until(founded_again, 15.0)
    await world.until(lambda: not world.recovering(), 15.0)
    await west.register("mongo")
    await world.until(world.converged)
    await world.write(MULTI_ZONE)
    await world.until(lambda: "redis.mzsvc.mesh.local" in agent.names)
    bound, positions = west.services, world.leader.registry.position
    multi = agent.names["redis.mzsvc.mesh.local"]

    world.store.restore(before)

    await world.until(lambda: east.resyncs.get("store_lost", 0) > 1, 3 * FOUND_S)
    await world.until(founded_again, 15.0)
    await world.until(lambda: not world.recovering(), 30.0)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    assert world.leader.registry.position.term > positions.term
    assert west.services == bound
    assert agent.names["redis.mzsvc.mesh.local"] == multi
    assert agent.removed == []


async def test_the_longest_history_restores_and_the_shorter_ones_follow_it(
    make_world: Callable[..., World],
) -> None:
    world = make_world(globals=3)
    west, _, agent = await filled(world)
    behind, ahead = [each for each in world.replicas if not each.leads]
    behind.cut()
    await west.register("mongo")
    await world.until(lambda: "mongo.svc.west.mesh.local" in agent.names)
    world.leader.kill()
    world.store.cut(everyone=True)
    world.store.flush()
    behind.heal()
    world.store.heal(everyone=True)

    await world.until(lambda: not world.recovering(), 15.0)
    assert ahead.replica.restorer.restored["store_lost"] == 1
    assert behind.replica.restorer.restored["store_lost"] == 0
    world.start_globals()
    await world.until(world.converged)
    await world.until(world.digests_agree)


async def test_with_nothing_left_global_is_rebuilt_from_the_zones(world: World) -> None:
    west, east, agent = await filled(world)
    await world.write(MULTI_ZONE)
    await world.until(lambda: "redis.mzsvc.mesh.local" in east.map)
    before = {zone: node.map for zone, node in world.zone_nodes.items()}
    uptime = world.leader.registry.position.term
    lose_globals(world)
    world.store.flush()
    await world.pass_time(3.0)
    await west.register("mongo")  # zones go on by themselves
    world.start_globals()

    await world.until(lambda: world.has_leader() and world.recovering(), 10.0)
    assert world.leader.registry.position.term > uptime
    await world.until(lambda: not world.recovering(), 20.0)
    await world.until(lambda: "mongo.svc.west.mesh.local" in agent.names)
    await world.until(world.up_matches)
    await world.until(world.digests_agree)
    for zone, node in world.zone_nodes.items():
        assert node.map.items() >= before[zone].items()
    assert agent.removed == []


async def test_zones_that_write_all_the_time_tell_a_new_global_of_the_log_that_was_lost(
    world: World,
) -> None:
    """What a zone has followed stands in its newest entry, whatever that is."""
    west, east, agent = await filled(world)
    uptime = world.leader.registry.position.term
    lose_globals(world)
    world.store.flush()
    await world.pass_time(3.0)
    world.start_globals()
    number = 0
    while not world.has_leader():
        await west.register(f"west-{number}")
        await east.register(f"east-{number}")
        await world.pass_time(0.02)
        number += 1

    assert world.leader.registry.position.term > uptime
    assert Recovery.of(world.leader.registry) is not None
    await world.until(lambda: not world.recovering(), 20.0)
    await world.until(world.converged)
    assert agent.removed == []


async def test_a_log_of_another_incarnation_takes_no_name(world: World) -> None:
    _, east, agent = await filled(world)
    lose_globals(world)
    world.store.delete_key("global", "log")
    world.store.delete_key("global", "head")
    stranger = Appender(world.store.log("global"), writer="stranger", clock=east.clock)
    await stranger.create("another", term=9)
    await world.until(lambda: east.resyncs.get("store_lost", 0) > 0, FOUND_S)
    world.start_globals()

    await world.until(world.converged, 20.0)
    assert agent.removed == []


@pytest.mark.parametrize("part", ["log", "head"])
async def test_a_key_of_globals_log_that_somebody_deletes_is_made_good(
    world: World, part: Part
) -> None:
    west, _, agent = await filled(world)
    world.store.delete_key("global", part)
    await world.pass_time(10.0)
    await world.until(lambda: not world.recovering(), 10.0)

    await west.register("mongo")
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == []


async def test_a_zone_that_lost_its_disk_reads_the_snapshot_of_a_restored_log(world: World) -> None:
    west, east, _ = await filled(world)
    world.store.flush()
    await world.until(lambda: east.resyncs.get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not world.recovering(), 10.0)
    west.kill()
    west.lose_disk()
    west.start()
    await world.until(lambda: west.running)

    await world.until(world.digests_agree, 30.0)
    await world.until(world.converged, 30.0)


async def test_an_old_copy_on_disk_of_a_log_that_was_lost_since_takes_no_agent_back(
    world: World,
) -> None:
    """The map that an agent has is of the restored log, which its zone has yet to show."""
    west, east, _ = await filled(world)
    agent = west.agent()
    await world.until(world.converged)
    await world.pass_time(1.0)
    backup = west.disk.clone()
    world.store.flush()
    await world.until(lambda: east.resyncs.get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not world.recovering(), 10.0)
    await east.register("since")
    await world.until(lambda: "since.svc.east.mesh.local" in agent.names)
    west.kill()
    west.set_disk_back(backup)
    west.start()

    await world.until(lambda: west.ready)
    await world.until(world.converged, 20.0)
    assert agent.removed == []


async def test_a_stale_failover_of_the_whole_store_is_healed(world: World) -> None:
    west, east, agent = await filled(world)
    clone = world.store.clone()
    await world.pass_time(1.5)
    world.store.restore(clone)
    await west.register("mongo")
    await east.register("late")

    await world.until(world.converged)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    assert agent.removed == []


async def test_a_stale_failover_that_lost_registrations_takes_no_name(world: World) -> None:
    west, _, agent = await filled(world)
    clone = world.store.clone()
    await west.register("mongo")
    await world.until(world.converged)
    incarnation = world.leader.registry.incarnation
    world.store.restore(clone)
    await world.pass_time(5.0)

    await world.until(world.converged)
    assert agent.removed == []
    # Byte for byte: nobody had to read anything but the missing entries again.
    assert world.leader.registry.incarnation == incarnation
    assert sum(each.replica.restorer.restored["rolled_back"] for each in world.replicas) > 0


async def test_a_stale_failover_that_lost_registrations_heals_without_moving_an_address(
    world: World,
) -> None:
    west, east, _ = await filled(world)
    clone = world.store.clone()
    await west.register("mongo")
    await east.register("late")
    await west.remove("kafka")
    await world.until(world.converged)
    bound = west.services
    world.store.restore(clone)
    await world.pass_time(5.0)

    await world.until(world.converged)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    assert west.services == bound


async def test_who_knows_nothing_reads_a_restored_log_from_its_snapshot(world: World) -> None:
    _, east, agent = await filled(world)
    world.store.flush()
    await world.pass_time(5.0)
    await world.until(lambda: not world.recovering() and world.has_leader(), 15.0)
    for node in (east, world.standby):
        node.kill()
        lose_log(node.disk, "global")
        node.start()

    await world.until(world.converged, 15.0)
    await world.until(world.digests_agree)
    assert agent.removed == []
    assert "redis.svc.west.mesh.local" in east.map


async def test_a_restored_log_without_its_snapshot_is_followed_once_there_is_one(
    world: World,
) -> None:
    _, east, agent = await filled(world)
    world.store.flush()
    await world.pass_time(5.0)
    await world.until(lambda: not world.recovering() and world.has_leader(), 15.0)
    east.kill()
    lose_log(east.disk, "global")
    world.store.delete_key("global", "snapshots")
    world.store.delete_key("global", "chunks")
    east.start()

    await world.until(world.converged, 20.0)
    assert agent.removed == []


async def test_a_rolled_back_log_that_lost_its_head_as_well_is_made_good(world: World) -> None:
    west, _, agent = await filled(world)
    await world.pass_time(2.0)
    held = len(world.entries("global"))
    world.store.roll_back("global", held - 2, head="lost")

    await world.pass_time(2.0)
    await world.until(world.has_leader, 15.0)
    await west.register("mongo")
    await world.until(world.converged, 15.0)
    assert agent.removed == []
