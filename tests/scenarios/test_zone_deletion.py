"""A zone that was deleted while it was away, and comes back."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.world import World
from zonemesh.deciding import Delete
from zonemesh.model import Key
from zonemesh.travel import up_log

SERVICES = [f"svc-{number}" for number in range(4)]
NAMES = {f"{service}.svc.west.mesh.local" for service in SERVICES}


async def delete_west(world: World) -> None:
    """West is offline, and an operator has deleted it."""
    await world.pass_time(12.0)
    world.removals.update(SERVICES)
    item = Delete("Zone", Key("", "", "", "west"))
    (outcome,) = await world.leader.replica.backend.write([item])
    assert not isinstance(outcome, Exception), outcome
    await world.until(lambda: not NAMES & world["east"].map.keys())


async def back_and_whole(world: World) -> None:
    await world.until(world.converged, 30.0)
    await world.until(world.up_matches)
    await world.until(world.digests_agree)
    await world["west"].register("later")
    await world.until(world.converged)


@pytest.mark.parametrize("successor", [False, True])
@pytest.mark.parametrize("snapshot_lost", [False, True])
async def test_a_deleted_zone_that_starts_again_has_its_names_and_addresses_again(
    world: World, successor: bool, snapshot_lost: bool
) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register(*SERVICES)
    await world.until(world.converged)
    bound = west.services
    await west.stop()
    await delete_west(world)
    if snapshot_lost:
        data = world.store._server.data.log(up_log("west"))
        data.snapshots, data.chunks = [], {}
    if successor:
        world.leader.kill()
        await world.until(world.has_leader)
    west.start()

    if successor:
        next(node for node in world.replicas if not node.alive).start()
    await back_and_whole(world)
    assert {service: west.services[service] for service in SERVICES} == bound
    assert agent.names == world["east"].map


async def test_a_deleted_zone_that_was_only_cut_off_has_its_names_again(world: World) -> None:
    west = await world.start_with(*SERVICES)
    bound = west.services
    west.cut()
    await delete_west(world)
    west.heal()

    await back_and_whole(world)
    assert {service: west.services[service] for service in SERVICES} == bound


async def test_a_deleted_zone_stays_away_when_another_replica_leads(world: World) -> None:
    west = await world.start_with(*SERVICES)
    await west.stop()
    await delete_west(world)
    await world.leader.stop()

    await world.until(world.has_leader)
    await asyncio.sleep(10.0)
    world.check()
    assert not NAMES & world["east"].map.keys()
