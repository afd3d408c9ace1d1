"""How old what a replica knows is: never shown younger than it is."""

from __future__ import annotations

from tests.scenarios.world import World

AWAY_S = 3_600.0


async def test_a_zone_restarted_while_cut_off_says_how_old_its_copy_is(world: World) -> None:
    await world.start()
    await world["west"].register("redis")
    await world.until(world.converged)
    east = world["east"]
    await east.stop()
    east.cut()
    await world.pass_time(AWAY_S)

    east.start()
    await world.pass_time(30.0)

    assert east.zone.ready() is None  # it serves what it knows
    assert AWAY_S < east.zone.lag_s() < AWAY_S + 60
    east.heal()
    await world.until(lambda: east.zone.lag_s() < 3)


async def test_a_leader_has_no_lag_however_long_ago_it_took_over(world: World) -> None:
    await world.start()
    world.leader.kill()
    await world.until(world.has_leader)
    await world.pass_time(600.0)

    assert world.leader.replica.backend.describe()["lag_s"] == 0.0
