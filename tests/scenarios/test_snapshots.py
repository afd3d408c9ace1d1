"""Logs that are trimmed to their snapshots: whoever starts anew gets the same state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from globalcp.config import GlobalConfig
from tests.scenarios.losses import lose_log
from tests.scenarios.nodes import GlobalNode
from tests.scenarios.world import World
from zonemesh.log.leadership import Leadership
from zonemesh.runtime.sections import SnapshotConfig
from zonemesh.travel import up_log


async def grown(make_world: Callable[..., World], globals: int = 2) -> World:  # noqa: A002
    """A minute of changes with a snapshot every twelve entries."""
    snapshots = SnapshotConfig(entries=12, bytes=1 << 20)
    world = make_world(
        globals=globals,
        global_config=GlobalConfig(snapshots=snapshots),
        zone_options={"snapshots": snapshots},
    )
    await world.start()
    for number in range(12):
        await world["west"].register(f"west-{number}")
        await world["east"].register(f"east-{number}")
        if number % 3 == 2:
            await world["west"].remove(f"west-{number}")
        await world.pass_time(4.0)
    assert world.entries("global")[0].position > (1, 0)  # trimmed
    return world


async def in_step(world: World) -> None:
    await world.until(world.converged, 15.0)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)


async def test_logs_stay_short_and_everybody_in_step(make_world: Callable[..., World]) -> None:
    world = await grown(make_world)

    await in_step(world)
    assert len(world.entries("global")) < 60
    assert len(world.entries(up_log("west"))) < 60
    for node in world.zone_nodes.values():
        assert node.zone.follower is not None
        assert node.zone.follower.resyncs.total() == 0


async def test_a_standby_restarted_from_snapshot_and_tail_takes_over(
    make_world: Callable[..., World],
) -> None:
    world = await grown(make_world)
    standby = world.standby
    standby.kill()
    standby.start()
    await in_step(world)
    leader = world.leader
    leader.kill()
    await world.until(lambda: standby.leads, 4.0)
    await world["west"].register("after")
    leader.start()

    await in_step(world)


async def test_a_new_replica_with_an_empty_disk_joins(make_world: Callable[..., World]) -> None:
    world = await grown(make_world)
    third = GlobalNode(world, "global-3", world.global_config)
    world.replicas.append(third)
    third.start()
    await world.until(lambda: third.running)

    await in_step(world)


@pytest.mark.parametrize("lost", ["nothing", "copy", "disk"])
async def test_a_zone_restarts_from_its_own_snapshot_and_globals(
    make_world: Callable[..., World], lost: str
) -> None:
    world = await grown(make_world)
    west, agent = world["west"], world["east"].agent()
    bound = west.services
    west.kill()
    if lost == "copy":
        lose_log(west.disk, "global")
    if lost == "disk":
        west.lose_disk()
    await world["east"].register("meanwhile")
    await world.pass_time(40.0)  # beyond the tail that west's copy continues
    west.start()
    await world.until(lambda: west.ready, 20.0)

    await in_step(world)
    assert west.services == bound
    assert agent.removed == []


async def test_a_zone_that_joins_late_gets_everything(make_world: Callable[..., World]) -> None:
    world = await grown(make_world)
    world.zone_nodes["north"] = north = world.zone_node("north")
    north.start()
    await world.until(lambda: world.settled(north))
    await north.register("cold")

    await in_step(world)


@pytest.mark.parametrize("stream", ["there", "lost", "rolled back"])
async def test_a_zone_restored_from_an_old_backup_adopts_what_it_lacks(
    make_world: Callable[..., World], stream: str
) -> None:
    world = await grown(make_world)
    west, agent = world["west"], world["east"].agent()
    backup = west.disk.clone()
    await west.register("since", "since-too")
    await world.until(world.converged)
    bound = west.services
    west.kill()
    west.set_disk_back(backup)
    if stream == "lost":
        lose_log(world.store, up_log("west"))
    elif stream == "rolled back":
        world.store.roll_back(up_log("west"), 2)
    west.start()
    await world.until(lambda: west.running)

    await in_step(world)
    assert west.services == bound
    assert agent.removed == []


async def test_nothing_of_a_log_off_a_disk_is_answered_before_it_is_led(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    await world.start()
    west = world["west"]
    await west.register("redis")
    await in_step(world)
    west.kill()
    led, run = asyncio.Event(), Leadership.run

    async def late(leadership: Leadership) -> None:
        await led.wait()
        await run(leadership)

    monkeypatch.setattr(Leadership, "run", late)
    west.start()
    await world.until(lambda: west.composed)
    await world.pass_time(1.0)

    assert not west.ready  # it may be an old backup, which only its leader finds out
    led.set()
    await world.until(lambda: west.ready)


async def test_lost_snapshots_are_made_again(make_world: Callable[..., World]) -> None:
    world = await grown(make_world)
    world.store.delete_key("global", "snapshots")
    world.store.delete_key("global", "chunks")
    await world.pass_time(6.0)
    third = GlobalNode(world, "global-3", world.global_config)
    world.replicas.append(third)
    third.start()
    await world.until(lambda: third.running)

    await in_step(world)


async def test_leaders_that_never_lead_for_long_keep_the_log_short_all_the_same(
    make_world: Callable[..., World],
) -> None:
    world = make_world(globals=2)
    await world.start()
    await world["west"].register("before")
    sizes = []

    for number in range(12):
        await world["west"].register(f"svc-{number}")
        await world.pass_time(20.0)
        leader = world.leader
        await leader.stop()
        await world.until(world.has_leader)
        leader.start()
        sizes.append(len(world.entries("global")))

    await in_step(world)
    assert max(sizes) < 300  # 12 terms have some 500 entries
