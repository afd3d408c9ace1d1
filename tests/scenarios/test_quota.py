"""A zone that brings too much, with everything between its log and the other zones' maps."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from globalcp.config import GlobalConfig, QuotaConfig
from globalcp.config import ZoneConfig as ZonesConfig
from globalcp.streamcut import StreamCutter
from tests.scenarios.world import World
from zonemesh.seen import Seen
from zonemesh.travel import SEEN, up_log


def limited(**limits: int) -> GlobalConfig:
    return GlobalConfig(zones=ZonesConfig(quota=QuotaConfig(**limits)))


def seen_in_east(world: World) -> set[str]:
    """Services of west that east has names of."""
    end = ".svc.west.mesh.local"
    return {name.removesuffix(end) for name in world["east"].map if name.endswith(end)}


@pytest.fixture
async def small() -> AsyncIterator[World]:
    """A mesh in which a zone may bring three services."""
    world = World(global_config=limited(services=3))
    yield world
    await world.close()


async def test_what_a_full_quota_refused_reaches_other_zones_when_there_is_room(
    small: World,
) -> None:
    await small.start()
    west, east = small["west"], small["east"]
    east.agent()
    await west.register("a", "b", "c", "d", "e")
    await small.until(lambda: seen_in_east(small) == {"a", "b", "c"})
    await small.until(lambda: west.zone.over_quota.refused > 0)
    assert set(west.services) == {"a", "b", "c", "d", "e"}
    assert "d.svc.mesh.local" in west.map
    assert (west.zone.over_quota.describe() or "").startswith("quota: 3 services; ")

    await east.register("x", "y", "z")
    await small.until(lambda: {"x", "y", "z"} <= {name.split(".")[0] for name in west.map})
    await west.remove("a", "b")

    await small.until(lambda: seen_in_east(small) == {"c", "d", "e"}, 90.0)
    await small.until(lambda: west.zone.over_quota.describe() is None)
    await small.until(small.up_matches)


async def test_another_leader_knows_what_was_refused(small: World) -> None:
    await small.start()
    await small["west"].register("a", "b", "c", "d")
    await small.until(lambda: small["west"].zone.over_quota.refused > 0)
    small.leader.kill()
    await small.until(small.has_leader)

    await small["west"].remove("a")

    await small.until(lambda: seen_in_east(small) == {"b", "c", "d"}, 90.0)


async def test_a_stream_that_is_cut_unread_loses_nothing(world: World) -> None:
    west = await world.start_with("before")
    leader = world.leader
    leader.freeze()
    world.standby.kill()
    await west.register(*(f"svc-{number}" for number in range(50)))
    await world.pass_time(1.0)

    # As the cutter of a leader does that does not come to read it.
    stream = world.store.log(up_log("west"))
    cutter = StreamCutter(world.store.peer(), leader.registry, bytes_max=1_000)
    await cutter._shorten("west")
    assert cutter.cut == 1
    assert len(world.entries(stream.name)) == 1
    leader.thaw()
    next(node for node in world.replicas if not node.alive).start()

    await world.until(world.converged, 30.0)
    await world.until(world.up_matches)


async def test_a_zone_that_sends_too_fast_is_read_slower_and_delays_nobody() -> None:
    world = World(global_config=limited(bytes_per_second=8 << 10))
    await world.start()
    west, east = world["west"], world["east"]
    for first in range(0, 600, 20):
        await west.register(*(f"svc-{number}" for number in range(first, first + 20)))

    counts = world.leader.replica.plane.counts
    await world.until(lambda: counts.held_s.get("west", 0.0) > 1.0)
    await east.register("quiet")
    delay_s = await world.until(lambda: "quiet.svc.east.mesh.local" in west.map)
    assert delay_s < 1.0
    assert counts.held_s.get("west", 0.0) > 0.0

    await world.until(world.converged, 60.0)
    seen = Seen.of(world.leader.registry, "west")
    assert seen is not None
    assert seen.online
    assert all(
        Seen.unpack(change.payload).online
        for entry in world.entries("global")
        for change in entry.changes
        if change.kind == SEEN and change.payload is not None
    )
    await world.close()


async def test_a_zone_shortens_its_stream_itself_while_no_global_reads_it() -> None:
    world = World(zones=("west",), globals=1)
    west = await world.start_with("before")
    world.leader.kill()
    uplink = west.zone.plane.uplink
    assert uplink is not None
    uplink._stream_bytes_max = 20_000
    stream = world.store._server.data.log(up_log("west")).stream
    assert stream is not None

    for turn in range(6):
        await west.register(*(f"svc-{turn}-{number}" for number in range(100)))
        await world.pass_time(60.0)
        assert sum(len(raw.data) for raw in stream.raws) < 40_000

    assert uplink.full_syncs >= 3
    world.replicas[0].start()
    await world.until(world.converged, 30.0)
    await world.until(world.up_matches)
    await world.close()
