"""Readers that missed something, or whose log changed under them, know it and lose no name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.beginnings import filled, short
from tests.scenarios.world import World

FOUND_S = 2.0


async def test_a_reader_behind_a_trimmed_log_resynchronises_from_the_snapshot(
    make_world: Callable[..., World],
) -> None:
    world = short(make_world)
    west, east, agent = await filled(world)
    east.cut()
    await west.remove("kafka")
    await west.register("mongo")
    await world.pass_time(40.0)
    assert world.entries("global")[0].position > east.zone.copy.position
    east.heal()

    await world.until(lambda: east.resyncs == {"gap": 1}, 5.0 + FOUND_S)
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == ["kafka.svc.west.mesh.local"]
    await west.register("later")
    await world.until(world.converged)
    assert east.resyncs == {"gap": 1}


async def test_a_reader_trimmed_under_its_feet_finds_out_within_two_seconds(
    make_world: Callable[..., World],
) -> None:
    world = short(make_world)
    west, east, agent = await filled(world)
    await world.pass_time(30.0)
    east.freeze()
    await west.register("mongo")
    await world.pass_time(2.0)
    world.store.trim_to("global", 1)
    east.thaw()

    await world.until(lambda: east.resyncs.get("gap", 0) > 0, FOUND_S)
    # Until the leader has found out too, and put a snapshot there.
    await world.until(world.converged, 20.0)
    await world.until(world.digests_agree)
    assert agent.removed == []


async def test_a_fork_is_found_out(make_world: Callable[..., World]) -> None:
    world = make_world(globals=3)
    _, east, agent = await filled(world)
    clone = world.store.clone()
    first = world.leader
    first.kill()
    await world.until(world.has_leader, 3.0)
    await world.pass_time(2.0)
    east.freeze()
    behind = east.zone.copy.position
    world.leader.kill()
    (third,) = [each for each in world.replicas if each.alive]
    third.freeze()
    world.store.restore(clone)  # a replica that never heard of the second term
    world.store.delete_key("global", "leader")
    first.start()
    await world.until(lambda: first.running and first.registry.position > behind, 10.0)
    assert first.registry.position.term == behind.term
    east.thaw()

    await world.until(lambda: east.resyncs == {"fork": 1}, FOUND_S)
    third.thaw()
    await world.until(world.digests_agree, 10.0)
    assert agent.removed == []
    assert world["east"].map == world.expected("east")


@pytest.mark.parametrize("who", ["zone", "standby"])
async def test_a_hole_in_globals_log_is_bridged_by_a_snapshot(world: World, who: str) -> None:
    west, east, agent = await filled(world)
    reader = east if who == "zone" else world.standby
    reader.cut()
    await west.register("mongo")
    await world.pass_time(3.0)
    world.store.delete_entry("global", world.entries("global")[-2].position)
    reader.heal()

    await world.until(world.converged, 20.0)
    await world.until(world.digests_agree, 10.0)
    assert agent.removed == []


async def test_a_reader_for_whom_no_snapshot_is_made_yet_looks_again_soon(world: World) -> None:
    """That there is none is not the same fault met again and again, which is waited out."""
    west, east, agent = await filled(world)
    east.cut()
    await west.register("mongo")
    await world.pass_time(3.0)
    for entry in world.entries("global")[:-1]:
        world.store.delete_entry("global", entry.position)
    for replica in world.replicas:
        replica.freeze()
    east.heal()
    await world.pass_time(7.0)
    follower = east.zone.follower
    assert follower is not None
    assert follower.unbridged

    for replica in world.replicas:
        replica.thaw()

    await world.until(lambda: follower.current and follower.halted is None, 6.0)
    await world.until(world.converged)
    assert east.resyncs == {"gap": 1}
    assert agent.removed == []


async def test_a_term_that_was_lost_is_passed_over_and_no_map_goes_back(world: World) -> None:
    """Two masters: a leader goes on in its term, and readers have followed a later one elsewhere.

    Whoever has been told of the later one takes nothing older, so that it would wait for ever.
    """
    west, east, agent = await filled(world)
    first, second = world.leader, world.standby
    first.freeze()
    clone = world.store.clone()
    await world.until(lambda: second.leads, 10.0)
    second.kill()
    second.start()
    await world.until(lambda: second.leads, 10.0)
    await west.register("mongo")
    await world.until(lambda: "mongo.svc.west.mesh.local" in east.map)
    lost = east.zone.copy.position
    for node in (second, west, east):
        node.freeze()
    world.store.restore(clone)
    first.thaw()
    await world.until(lambda: first.leads and first.registry.position.seq > 3, 10.0)
    assert first.registry.position.term < lost.term

    for node in (second, west, east):
        node.thaw()
    shown = [lost]

    def heals() -> bool:
        shown.append(east.zone.copy.position)
        return bool(shown[-1] > lost) and world.converged()

    await world.until(heals, 15.0)
    assert shown == sorted(shown)
    assert agent.removed == []
    await west.register("last")
    await world.until(lambda: "last.svc.west.mesh.local" in east.map)


async def test_a_global_standby_behind_a_trimmed_log_resynchronises(
    make_world: Callable[..., World],
) -> None:
    world = short(make_world)
    west, _, _ = await filled(world)
    standby = world.standby
    standby.cut()
    await west.register("mongo")
    await world.pass_time(40.0)
    standby.heal()

    await world.until(lambda: standby.replica.follower.resyncs["gap"] == 1, 5.0 + FOUND_S)
    await world.until(world.digests_agree)
    world.leader.kill()
    await world.until(lambda: standby.leads, 3.0)
    await west.register("last")
    await world.until(lambda: "last.svc.west.mesh.local" in world["east"].map)
