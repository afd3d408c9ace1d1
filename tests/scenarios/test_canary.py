"""A record that goes the way of registrations, and what is known by its arriving or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.scenarios.virtualtime import now_s
from tests.scenarios.world import World
from zonemesh.model import Change
from zonemesh.travel import CANARY
from zonemesh.wire import Place, Sealed


def ages(world: World, zone: str) -> dict[str, float]:
    return world[zone].zone.canaries.ages_s(now_s())


async def test_canaries_of_all_zones_arrive_everywhere_and_at_home(world: World) -> None:
    await world.start()
    await world.pass_time(12.0)

    for zone in world.zones:
        assert ages(world, zone).keys() == {"west", "east"}
        assert max(ages(world, zone).values()) < 5.0 + 1.5
        round_trip_s = world[zone].zone.canaries.round_trip_s
        assert round_trip_s is not None
        assert 0.001 < round_trip_s < 0.2
        assert world[zone].zone.readiness.stale() is None


async def test_nobody_is_shown_a_canary(world: World) -> None:
    await world.start()
    agent = world["east"].agent()
    await world.pass_time(12.0)

    assert agent.names == {}
    assert all(event.event == "snapshot" for event in agent.shown)
    assert world.leader.registry.table(CANARY).keys() == {"/west//", "/east//"}


async def test_a_zone_whose_registrations_do_not_come_back_is_degraded(world: World) -> None:
    await world.start()
    await world.pass_time(12.0)
    west = world["west"].zone
    # What is copied up is nothing any more, while heartbeats go on: as a bug would have it.
    uplink = west.plane.uplink
    assert uplink is not None
    exported = uplink._exported

    def nothing(entries: Sequence[Sealed]) -> tuple[list[Change], Place | None]:
        return [], exported(entries)[1]

    uplink._exported = nothing  # type: ignore[method-assign]
    await world.pass_time(30.0)

    why = west.readiness.stale() or ""
    assert "has not come back from global" in why
    assert west.ages.lag_s() < 2.0  # by its heartbeats all is well
    assert ages(world, "east")["west"] > 25.0
    assert world["east"].zone.ages.origin_lags_s()["west"] < 3.0
    assert west.readiness.ready() is None


async def test_canaries_go_with_the_setting_and_with_the_zone(
    make_world: Callable[..., World],
) -> None:
    world = make_world(zone_options={"canary": 0.0})
    await world.start()
    await world.pass_time(12.0)

    assert not world.leader.registry.table(CANARY)
    assert ages(world, "west") == {}
    assert world["west"].zone.readiness.stale() is None
