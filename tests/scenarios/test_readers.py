"""Readers that missed something, or whose log changed under them, know it and lose no name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from globalcp.config import GlobalConfig
from tests.scenarios.agents import Agent
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.log.appender import Appender
from zonemesh.log.memory import Part
from zonemesh.model import Key
from zonemesh.recovery import Recovery
from zonemesh.runtime.sections import SnapshotConfig
from zonemesh.seen import Seen
from zonemesh.travel import up_log

FOUND_S = 2.0


def short(world: Callable[..., World], **options: object) -> World:
    """A world in which logs are trimmed after some seconds."""
    snapshots = SnapshotConfig(entries=12, bytes=1 << 20)
    return world(
        global_config=GlobalConfig(snapshots=snapshots),
        zone_options={"snapshots": snapshots},
        **options,
    )


MULTI_ZONE = Put(
    "MeshMultiZoneService",
    Key("default", "", "", "redis"),
    {},
    {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "redis"}}},
        "ports": [{"port": 80, "appProtocol": "tcp"}],
    },
)


def recovering(world: World) -> bool:
    return not world.has_leader() or Recovery.of(world.leader.registry) is not None


def resyncs(node: ZoneNode) -> dict[str, int]:
    assert node.zone.follower is not None
    return dict(node.zone.follower.resyncs)


async def filled(world: World) -> tuple[ZoneNode, ZoneNode, Agent]:
    await world.start()
    west, east = world["west"], world["east"]
    await west.register("redis", "kafka")
    await east.register("web")
    agent = east.agent()
    await world.until(world.converged)
    return west, east, agent


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

    await world.until(lambda: resyncs(east) == {"gap": 1}, 5.0 + FOUND_S)
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == ["kafka.svc.west.mesh.local"]
    await west.register("later")
    await world.until(world.converged)
    assert resyncs(east) == {"gap": 1}


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

    await world.until(lambda: resyncs(east).get("gap", 0) > 0, FOUND_S)
    # Until the leader has found out too, and put a snapshot there.
    await world.until(world.converged, 20.0)
    await world.until(world.digests_agree)
    assert agent.removed == []


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
    assert {*resyncs(east), *resyncs(west)} <= {"rolled_back"}  # unless nobody had looked before


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

    await world.until(lambda: resyncs(east) == {"fork": 1}, FOUND_S)
    third.thaw()
    await world.until(world.digests_agree, 10.0)
    assert agent.removed == []
    assert world["east"].map == world.expected("east")


async def test_an_emptied_store_is_restored_from_the_longest_history(world: World) -> None:
    west, east, agent = await filled(world)
    bound, known = west.services, world.leader.registry.digest
    assert known
    world.store.flush()

    await world.until(lambda: resyncs(east).get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not recovering(world), 10.0)
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
    await world.until(lambda: not recovering(world), 15.0)
    await west.register("mongo")
    await world.until(world.converged)
    await world.write(MULTI_ZONE)
    await world.until(lambda: "redis.mzsvc.mesh.local" in agent.names)
    bound, positions = west.services, world.leader.registry.position
    multi = agent.names["redis.mzsvc.mesh.local"]

    world.store.restore(before)

    await world.until(lambda: resyncs(east).get("store_lost", 0) > 1, 3 * FOUND_S)
    await world.until(founded_again, 15.0)
    await world.until(lambda: not recovering(world), 30.0)
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

    await world.until(lambda: not recovering(world), 15.0)
    assert ahead.replica.restorer.restored["store_lost"] == 1
    assert behind.replica.restorer.restored["store_lost"] == 0
    for each in world.replicas:
        if not each.alive:
            each.start()
    await world.until(world.converged)
    await world.until(world.digests_agree)


async def test_with_nothing_left_global_is_rebuilt_from_the_zones(world: World) -> None:
    west, east, agent = await filled(world)
    await world.write(MULTI_ZONE)
    await world.until(lambda: "redis.mzsvc.mesh.local" in east.map)
    before = {zone: node.map for zone, node in world.zone_nodes.items()}
    uptime = world.leader.registry.position.term
    for each in world.replicas:
        each.kill()
        each.lose_disk()
    world.store.flush()
    await world.pass_time(3.0)
    await west.register("mongo")  # zones go on by themselves
    for each in world.replicas:
        each.start()

    await world.until(lambda: world.has_leader() and recovering(world), 10.0)
    assert world.leader.registry.position.term > uptime
    await world.until(lambda: not recovering(world), 20.0)
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
    for each in world.replicas:
        each.kill()
        each.lose_disk()
    world.store.flush()
    await world.pass_time(3.0)
    for each in world.replicas:
        each.start()
    number = 0
    while not world.has_leader():
        await west.register(f"west-{number}")
        await east.register(f"east-{number}")
        await world.pass_time(0.02)
        number += 1

    assert world.leader.registry.position.term > uptime
    assert Recovery.of(world.leader.registry) is not None
    await world.until(lambda: not recovering(world), 20.0)
    await world.until(world.converged)
    assert agent.removed == []


async def test_a_log_of_another_incarnation_takes_no_name(world: World) -> None:
    _, east, agent = await filled(world)
    for each in world.replicas:
        each.kill()
        each.lose_disk()
    world.store.delete_key("global", "log")
    world.store.delete_key("global", "head")
    stranger = Appender(world.store.log("global"), writer="stranger", clock=east.clock)
    await stranger.create("another", term=9)
    await world.until(lambda: resyncs(east).get("store_lost", 0) > 0, FOUND_S)
    for each in world.replicas:
        each.start()

    await world.until(world.converged, 20.0)
    assert agent.removed == []


@pytest.mark.parametrize("part", ["log", "head"])
async def test_a_key_of_globals_log_that_somebody_deletes_is_made_good(
    world: World, part: Part
) -> None:
    west, _, agent = await filled(world)
    world.store.delete_key("global", part)
    await world.pass_time(10.0)
    await world.until(lambda: not recovering(world), 10.0)

    await west.register("mongo")
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert agent.removed == []


async def test_a_zone_that_lost_its_disk_reads_the_snapshot_of_a_restored_log(world: World) -> None:
    west, east, _ = await filled(world)
    world.store.flush()
    await world.until(lambda: resyncs(east).get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not recovering(world), 10.0)
    west.kill()
    west.lose_disk()
    west.start()
    await world.until(lambda: west.running)

    await world.until(world.digests_agree, 30.0)
    await world.until(world.converged, 30.0)


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
    assert resyncs(east) == {"gap": 1}
    assert agent.removed == []


async def test_a_lost_up_stream_is_published_again_and_nothing_is_swept(world: World) -> None:
    west, _, agent = await filled(world)
    world.store.delete_key(up_log("west"), "log")
    world.store.delete_key(up_log("west"), "head")
    world.store.delete_key(up_log("west"), "snapshots")
    world.store.delete_key(up_log("west"), "chunks")
    await west.register("mongo")

    await world.until(world.converged)
    await world.until(world.up_matches)
    assert agent.removed == []
    assert world.leader.replica.plane.counts.resyncs["west", "store_lost"] == 1
    await west.remove("mongo")
    await world.until(world.converged)


async def test_a_zone_that_left_the_set_of_zones_is_read_again(world: World) -> None:
    """Redis came back as it was a moment ago, while the zone was publishing itself anew."""
    west, east, _ = await filled(world)
    world.store._server.data.zones.discard("west")
    await world.pass_time(0.5)  # global looks which zones there are
    await west.register("mongo")

    await world.until(lambda: "mongo.svc.west.mesh.local" in east.map)
    await world.until(world.converged)


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
    await world.until(lambda: resyncs(east).get("store_lost", 0) > 0, 3 * FOUND_S)
    await world.until(lambda: not recovering(world), 10.0)
    await east.register("since")
    await world.until(lambda: "since.svc.east.mesh.local" in agent.names)
    west.kill()
    west.set_disk_back(backup)
    west.start()

    await world.until(lambda: west.ready)
    await world.until(world.converged, 20.0)
    assert agent.removed == []


async def test_a_zone_says_that_its_stream_takes_nothing_until_it_does(world: World) -> None:
    west, east, _ = await filled(world)
    world.store.delete_key(up_log("west"), "head")  # an outsider; the stream itself is kept
    await west.register("late")

    def refused() -> str | None:
        said: str | None = west.zone.backend.describe()["uplink_refused"]
        return said

    await world.until(lambda: refused() is not None)
    assert "late.svc.mesh.local" in west.map
    assert "there is no log" in (refused() or "")

    world.store.delete_key(up_log("west"), "log")
    await world.until(lambda: "late.svc.west.mesh.local" in east.map)
    assert refused() is None


@pytest.mark.parametrize("lost", [1, 3])
async def test_an_up_stream_that_was_rolled_back_is_completed_and_nothing_is_swept(
    world: World, lost: int
) -> None:
    west, _, agent = await filled(world)
    await west.register("mongo")
    await world.until(world.converged)
    await world.pass_time(3.0)
    world.store.roll_back(up_log("west"), len(world.entries(up_log("west"))) - lost)
    await west.register("last")

    await world.until(world.converged)
    await world.until(world.up_matches)
    assert agent.removed == []


async def test_an_up_stream_rolled_back_while_its_zone_is_down_is_completed(
    world: World,
) -> None:
    west, _, agent = await filled(world)
    await west.register("mongo")
    await world.until(world.converged)
    west.kill()
    world.store.roll_back(up_log("west"), 1)
    await world.pass_time(3.0)
    west.start()

    await world.until(world.converged)
    await world.until(world.up_matches)
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


@pytest.mark.parametrize("kept", [1, 2, 3])
async def test_a_zone_whose_stream_global_cannot_read_on_publishes_a_snapshot(
    world: World, kept: int
) -> None:
    west, _, agent = await filled(world)
    for each in world.replicas:
        each.kill()
    await west.register("mongo")
    await west.remove("kafka")
    await world.pass_time(1.0)
    world.store.trim_to(up_log("west"), kept)
    for each in world.replicas:
        each.start()

    await world.until(world.has_leader)
    await world.until(world.converged, 15.0)
    await world.until(world.up_matches)
    assert agent.removed == ["kafka.svc.west.mesh.local"]


async def test_a_bad_entry_in_one_zones_stream_stops_no_other_zone(
    make_world: Callable[..., World],
) -> None:
    world = make_world(zones=("west", "east", "north"))
    west, _, agent = await filled(world)
    stream = world.store._server.data.log(up_log("west")).stream
    assert stream is not None
    west.freeze()
    last = stream.raws[-1]
    stream.raws[-1] = last._replace(data=last.data[:-3] + b"xyz")
    killed = world.leader
    killed.kill()
    await world.until(world.has_leader, 3.0)
    killed.start()
    await world["north"].register("cold")

    await world.until(lambda: "cold.svc.north.mesh.local" in agent.names)
    seen = Seen.of(world.leader.registry, "north")
    assert seen is not None
    assert seen.online
    assert agent.removed == []
    west.thaw()
    await west.register("mongo")
    await world.until(world.converged, 20.0)  # by a snapshot beyond the bad entry
    assert agent.removed == []


async def test_an_entry_that_was_damaged_in_a_zones_stream_is_made_up_for_by_its_zone(
    world: World,
) -> None:
    west, _, agent = await filled(world)
    stream = world.store._server.data.log(up_log("west")).stream
    assert stream is not None
    for each in world.replicas:
        each.freeze()
    await west.register("mongo")
    await world.pass_time(0.1)
    last = stream.raws[-1]
    stream.raws[-1] = last._replace(data=last.data[:-3] + b"xyz")  # of its hash: still msgpack
    for each in world.replicas:
        each.thaw()

    await world.until(world.converged, 15.0)
    assert agent.removed == []


async def test_who_knows_nothing_reads_a_restored_log_from_its_snapshot(world: World) -> None:
    _, east, agent = await filled(world)
    world.store.flush()
    await world.pass_time(5.0)
    await world.until(lambda: not recovering(world) and world.has_leader(), 15.0)
    for node in (east, world.standby):
        node.kill()
        node.disk.delete_key("global", "log")
        node.disk.delete_key("global", "head")
        node.disk.delete_key("global", "snapshots")
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
    await world.until(lambda: not recovering(world) and world.has_leader(), 15.0)
    east.kill()
    for part in ("log", "head", "snapshots"):
        east.disk.delete_key("global", part)
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
