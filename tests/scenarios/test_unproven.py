"""What is written to a zone's log that is an old one, or a new one, and what had been removed."""

from __future__ import annotations

import pytest

from tests.scenarios.losses import lose_log
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.log.memory import Clone
from zonemesh.travel import up_log


async def backed_up(world: World, *services: str) -> tuple[ZoneNode, Clone]:
    """A zone with services, and a backup of its disk."""
    west = await world.start_with(*services)
    await world.pass_time(1.0)
    return west, west.disk.clone()


async def to_adopt(west: ZoneNode) -> None:
    """Until its log says that it lacks something, and nothing has been taken over yet."""
    for _ in range(5_000):
        await west.run_steps(1)
        if west.composed and west.zone.state.note is not None and not west.zone.state.adopted:
            return
    raise AssertionError("it never was to adopt anything")


async def at_rest(world: World) -> None:
    await world.until(world.converged, 30.0)
    await world.until(world.digests_agree, 30.0)
    await world.until(world.up_matches, 30.0)


async def test_what_is_removed_before_a_zone_has_adopted_stays_removed(world: World) -> None:
    west, _ = await backed_up(world, "redis", "kafka")
    bound = west.services
    west.kill()
    west.lose_disk()
    west.start()
    await world.until(lambda: west.leads)
    await west.register("redis", "mongo")
    await west.remove("redis", "mongo")

    await world.until(lambda: west.ready, 30.0)
    await at_rest(world)
    assert west.services == {"kafka": bound["kafka"]}
    await west.register("redis")
    await world.until(lambda: west.services["redis"] == bound["redis"])  # it was resting
    await at_rest(world)


@pytest.mark.parametrize("stream", ["there", "rolled back", "lost"])
@pytest.mark.parametrize("skew_ms", [0, -600_000, 600_000])
async def test_what_was_removed_since_a_backup_stays_removed_whatever_clocks_say(
    world: World, stream: str, skew_ms: int
) -> None:
    west, backup = await backed_up(world, "redis", "kafka")
    agents = west.agent(), world["east"].agent()
    west.wall_offset_ms = skew_ms
    await west.remove("redis")
    await west.write(west.put("kafka", port=8080))
    await west.register("mongo")
    await world.until(lambda: "mongo.svc.west.mesh.local" in agents[1].names)
    bound = west.services
    await world.until(world.up_matches)
    west.kill()
    if stream == "lost":
        lose_log(world.store, up_log("west"))
    elif stream == "rolled back":
        world.store.roll_back(up_log("west"), 2)
    west.set_disk_back(backup)
    west.start()

    await world.until(lambda: west.leads)
    await at_rest(world)
    assert west.services == bound
    packed = west.zone.state.registry.get("MeshService", west.key("kafka").packed)
    assert packed is not None
    assert b"\x1f\x90" in packed  # port 8080
    assert not any(set(agent.removed) - {"redis.svc.mesh.local", "redis.svc.west.mesh.local"}
                   for agent in agents)  # fmt: skip


async def test_what_is_written_to_an_old_log_that_is_cut_off_outlives_a_restart_and_adoption(
    world: World,
) -> None:
    west, backup = await backed_up(world, "redis", "kafka", "mongo")
    await west.remove("redis")
    await west.register("nats")
    bound = west.services
    await world.until(lambda: "nats.svc.west.mesh.local" in world["east"].map)
    west.cut()
    west.kill()
    west.set_disk_back(backup)
    west.start()
    await world.until(lambda: west.leads)
    await west.remove("kafka")
    await west.register("redis")  # nothing changes here by it: the backup has it
    await west.register("new")
    west.kill()
    west.start()
    await world.until(lambda: west.leads)
    west.heal()

    await at_rest(world)
    assert set(west.services) == {"redis", "mongo", "nats", "new"}
    assert west.services["mongo"] == bound["mongo"]
    assert west.services["nats"] == bound["nats"]


async def test_nothing_is_removed_by_a_store_that_is_older_than_the_backup(world: World) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await world.pass_time(1.0)
    stale = world.store.clone()
    await west.register("redis")
    await world.until(world.converged)
    await world.pass_time(1.0)
    backup = west.disk.clone()
    await west.register("kafka")
    await world.until(world.converged)
    await world.until(world.up_matches)
    bound = west.services
    west.kill()
    west.set_disk_back(backup)
    world.store.restore(stale)
    west.start()

    await world.until(lambda: west.leads)
    await at_rest(world)
    assert west.services == bound
    assert agent.removed == []


async def test_marks_are_gone_once_a_log_has_proven_whole(world: World) -> None:
    west, _ = await backed_up(world, "redis")
    west.cut()
    west.kill()
    west.start()
    await world.until(lambda: west.leads)
    await west.register("kafka")
    kinds = west.zone.state.registry.tables
    assert any(table for kind, table in kinds.items() if kind.startswith("written."))
    west.heal()

    await at_rest(world)
    kinds = west.zone.state.registry.tables
    assert not any(table for kind, table in kinds.items() if kind.startswith("written."))


async def test_the_marks_of_a_backup_count_no_more(world: World) -> None:
    """It was taken before the log had proven whole; what it marks was published and removed."""
    await world.start()
    west = world["west"]
    await west.stop()
    west.start()
    await world.until(lambda: west.leads)
    await west.register("redis")
    backup = west.disk.clone()
    await west.register("kafka")
    await world.until(world.converged)
    await west.remove("redis")
    await world.until(world.converged)
    await world.until(world.up_matches)
    west.kill()
    west.set_disk_back(backup)
    west.start()

    await world.until(lambda: west.leads)
    await at_rest(world)
    assert set(west.services) == {"kafka"}


@pytest.mark.parametrize("restarts", [0, 1])  # after one it leads in a term that was used
async def test_a_log_set_back_into_its_adoption_brings_nothing_back(
    world: World, restarts: int
) -> None:
    west, backup = await backed_up(world, "redis", "kafka", "mongo")
    await west.register("nats")
    await world.until(world.converged)
    west.kill()
    west.set_disk_back(backup)
    west.start()
    await to_adopt(west)
    half_adopted = west.disk.clone()
    await at_rest(world)
    await west.remove("kafka")
    await at_rest(world)
    for _ in range(restarts):
        west.kill()
        west.start()
        await at_rest(world)
        await west.register("late")
        await at_rest(world)
    term = west.zone.state.registry.position.term
    west.kill()
    west.set_disk_back(half_adopted)
    west.start()

    await world.until(lambda: west.leads and west.zone.state.adopted, 30.0)
    assert west.zone.state.registry.position.term > term
    await west.remove("mongo")
    await at_rest(world)
    assert set(west.services) == {"redis", "nats"} | ({"late"} if restarts else set())


async def test_an_old_log_that_was_written_on_beyond_what_it_lacks_is_known_by_its_hashes(
    world: World,
) -> None:
    """Cut off, it was led in the same term again, until its positions were above all known."""
    west, backup = await backed_up(world, "redis", "kafka")
    west.kill()
    west.start()
    await world.until(lambda: west.leads)
    await west.remove("redis")
    await west.register("nats")
    await at_rest(world)
    bound = west.services
    term = west.zone.state.registry.position.term
    west.cut()
    west.kill()
    west.set_disk_back(backup)
    west.start()
    await world.until(lambda: west.leads)
    await world.pass_time(120.0)
    assert west.zone.state.registry.position.term == term
    west.heal()

    await at_rest(world)
    assert west.services == bound
