"""A zone's up stream that is lost, set back or damaged is made good, and no name goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.beginnings import filled
from tests.scenarios.losses import lose_log
from tests.scenarios.world import World
from zonemesh.seen import Seen
from zonemesh.travel import up_log


async def test_a_lost_up_stream_is_published_again_and_nothing_is_swept(world: World) -> None:
    west, _, agent = await filled(world)
    lose_log(world.store, up_log("west"))
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
    world.start_globals()

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
