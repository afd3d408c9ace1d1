"""The ordinary course of things: registered in one zone, resolvable in all, at one address."""

from __future__ import annotations

from tests.scenarios.world import World


async def test_a_service_registered_in_west_has_the_same_address_in_east(world: World) -> None:
    await world.start()
    await world.pass_time(2.0)
    await world["west"].register("redis")
    taken_s = await world.until(lambda: "redis.svc.west.mesh.local" in world["east"].map)

    here, there = world["west"].map, world["east"].map
    assert here["redis.svc.mesh.local"] == there["redis.svc.west.mesh.local"]
    assert here["redis.svc.mesh.local"].startswith("241.")
    assert taken_s < 0.1


async def test_everybody_agrees_on_digests_at_equal_cursors(world: World) -> None:
    await world.start()
    await world["west"].register("redis", "kafka")
    await world["east"].register("web")
    await world["west"].remove("kafka")

    await world.until(world.converged)
    await world.until(world.digests_agree)
    await world.until(world.up_matches)
