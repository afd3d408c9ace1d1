"""What must not end a zone's control plane, nor its leadership of its own log."""

from __future__ import annotations

from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.travel import up_log

ALMOST_A_RECORD = 65_360


async def test_services_as_large_as_they_may_be_fit_into_the_zones_stream(world: World) -> None:
    await world.start()
    west = world["west"]
    spec = {
        "selector": {"dataplaneTags": {"kuma.io/service": "redis"}},
        "ports": [{"port": 80, "targetPort": 80, "appProtocol": "tcp"}],
        "carried": "x" * ALMOST_A_RECORD,
    }
    for number in range(6):
        await west.zone.backend.write([Put("MeshService", west.key(f"big-{number}"), {}, spec)])
    await world.until(world.converged)

    await west.run_dataplane("dp-1", "redis")  # changes the state of every one of them

    await world.until(world.converged)
    assert west.alive


async def test_a_stream_whose_entries_are_gone_is_begun_anew_by_the_same_leader(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    await west.register("redis")
    await world.until(world.converged)
    led = west.zone.leadership.terms_led
    before = east.map
    world.store.delete_key(up_log("west"), "log")

    await west.register("kafka")

    await world.until(world.converged)
    assert west.zone.leadership.terms_led == led
    assert before.items() <= east.map.items()
