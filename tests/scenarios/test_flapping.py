"""A thousand leaders and a thousand zone flaps: no address changes, and no name is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.beginnings import filled
from tests.scenarios.world import World

LEADERS = 1_000
FLAPS = 1_000
PARTS = 5
KILLED_EVERY = 10
"""Of the leaders; the others resign."""


def addresses(world: World) -> list[Any]:
    return [(node.services, node.map) for node in world.zone_nodes.values()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(PARTS))
async def test_a_thousand_leader_changes_move_no_address(world: World, part: int) -> None:
    _, _, agent = await filled(world)
    before = addresses(world)
    seen = set()
    for number in range(LEADERS // PARTS):
        leader = world.leader
        if number % KILLED_EVERY == part:
            leader.kill()
            leader.start()
        else:
            await leader.replica.leadership.resign()
        term = world.entries("global")[-1].position.term
        await world.until(
            lambda term=term: (
                world.has_leader()  # type: ignore[misc]
                and world.leader.registry.position.term > term
            )
        )
        seen.add(world.leader.registry.position.term)

    assert len(seen) >= LEADERS // PARTS
    await world.until(world.converged)
    await world.until(world.digests_agree)
    assert addresses(world) == before
    assert agent.removed == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", range(PARTS))
async def test_a_thousand_zone_flaps_move_no_address(world: World, part: int) -> None:
    _, _, agent = await filled(world)
    before = addresses(world)
    flaps = 0
    for number in range(FLAPS // PARTS):
        node = world[("west", "east")[number % 2]]
        if number % KILLED_EVERY == part:
            node.kill()
            node.start()
        else:
            node.cut()
            await world.pass_time(0.2)
            node.heal()
        await world.pass_time(0.2)
        flaps += 1

    assert flaps == FLAPS // PARTS
    await world.until(world.converged, 20.0)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
    assert addresses(world) == before
    assert agent.removed == []
