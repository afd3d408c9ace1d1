"""A record that is damaged in one process's memory: found, healed from the log, counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.world import World
from zonemesh.log import scrub
from zonemesh.model import Key
from zonemesh.registry import Registry

FOUND_S = 12.0
"""Each zone's turn comes every fifth heartbeat."""
SCRUBBED_S = scrub.EVERY_S + 5.0

KEY = Key("default", "west", "", "redis").packed


def by_change(registry: Registry) -> None:
    """As a bug in applying would: everything follows from it, the state hash too."""
    payload = registry.get("MeshService", KEY)
    assert payload is not None
    registry.put("MeshService", KEY, payload.replace(b"\x50", b"\x51", 1))
    assert registry.get("MeshService", KEY) != payload


def in_memory(registry: Registry) -> None:
    """As a bit that flips: nobody is told."""
    payload = registry.tables["MeshService"][KEY]
    registry.tables["MeshService"][KEY] = payload[:-1] + bytes([payload[-1] ^ 1])


async def started(world: World) -> None:
    await world.start_with("redis")


@pytest.mark.parametrize("damage", [by_change, in_memory])
async def test_a_standby_that_differs_loads_the_state_anew(
    world: World, damage: Callable[[Registry], None]
) -> None:
    await started(world)
    standby = world.standby
    damage(standby.registry)

    await world.until(lambda: standby.replica.follower.agreement.mismatches > 0, SCRUBBED_S)
    await world.pass_time(3.0)

    assert standby.registry.get("MeshService", KEY) == world.leader.registry.get("MeshService", KEY)
    await world.until(world.digests_agree)  # an entry may be on its way
    assert standby.replica.follower.resyncs["state_mismatch"] == 1
    assert standby.replica.follower.agreement.unmended is None


@pytest.mark.parametrize("damage", [by_change, in_memory])
async def test_a_zone_whose_part_differs_loads_it_anew(
    world: World, damage: Callable[[Registry], None]
) -> None:
    await started(world)
    east = world["east"].zone
    assert east.follower is not None
    damage(east.copy)

    wait_s = FOUND_S if damage is by_change else SCRUBBED_S
    await world.until(lambda: east.follower.agreement.mismatches > 0, wait_s)  # type: ignore[union-attr]
    await world.pass_time(3.0)

    assert east.copy.get("MeshService", KEY) == world.leader.registry.get("MeshService", KEY)
    await world.until(world.digests_agree)  # an entry may be on its way
    assert east.follower.resyncs["state_mismatch"] == 1
    assert world.converged()


async def test_a_leader_whose_memory_is_damaged_leads_on_only_with_what_the_log_says(
    world: World,
) -> None:
    await started(world)
    leader = world.leader
    term = leader.registry.position.term
    in_memory(leader.registry)

    await world.until(lambda: leader.registry.position.term > term, SCRUBBED_S)
    await world.until(world.converged)

    assert leader.replica.follower.agreement.mismatches == 1
    assert len({each.registry.get("MeshService", KEY) for each in world.replicas}) == 1
    await world["west"].register("after")
    await world.until(world.converged)


async def test_a_zone_whose_own_records_are_damaged_takes_them_from_its_log(world: World) -> None:
    await started(world)
    west = world["west"].zone
    before = west.state.registry.get("MeshService", KEY)
    in_memory(west.state.registry)

    await world.until(lambda: west.own.follower.agreement.mismatches > 0, SCRUBBED_S)
    await world.until(world.converged)

    assert west.state.registry.get("MeshService", KEY) == before


async def test_nobody_is_blamed_while_zones_register_and_leaders_change(world: World) -> None:
    await started(world)
    for number in range(6):
        await world["west"].register(f"a{number}")
        await world["east"].register(f"b{number}")
        if number == 3:
            world.leader.kill()
            await world.until(world.has_leader)
        await world.pass_time(6.0)

    agreements = [each.replica.follower.agreement for each in world.replicas if each.running]
    for node in world.zone_nodes.values():
        assert node.zone.follower is not None
        agreements += [node.zone.follower.agreement, node.zone.own.follower.agreement]
    assert [each.mismatches for each in agreements] == [0] * len(agreements)


async def test_a_copy_that_never_agrees_is_given_up_and_said(world: World) -> None:
    await started(world)
    east = world["east"].zone
    assert east.follower is not None
    east.follower._told = lambda note: "f" * 16 if "states" in note else None

    await world.pass_time(60.0)

    assert east.follower.agreement.unmended is not None
    assert east.follower.resyncs["state_mismatch"] == 3
    assert world.converged()
