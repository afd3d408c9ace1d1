"""Two control planes that each take a zone for their own: one of them ends, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.scenarios.nodes import GlobalNode, ZoneNode
from tests.scenarios.world import World
from zonemesh.errors import ConfigError
from zonemesh.travel import up_log


def newcomer_to(world: World, *, takeover: bool = False) -> ZoneNode:
    """Another control plane under the name of zone west, which has a disk of its own."""
    node = world.zone_node("west", "west-2")
    node.takeover = takeover
    node.expected_failure = ConfigError
    return node


def copy_of(world: World, node: ZoneNode) -> ZoneNode:
    """A control plane that runs on a copy of another's data directory."""
    found = newcomer_to(world)
    found.disk.restore(node.disk.clone())
    found.disk.delete_key(found.own_log, "leader")  # a copy is not locked
    return found


def uid_of(node: ZoneNode) -> str:
    note = node.zone.state.note
    assert note is not None
    return note.uid


def zone_west(node: GlobalNode) -> Mapping[str, Any]:
    """What global's `/_state` says of it."""
    found: Mapping[str, Any] = node.replica.backend.describe()["zones"]["west"]
    return found


def owner(world: World) -> str:
    head = world.store._server.data.log(up_log("west")).head
    assert head is not None
    return head.owner


async def test_a_refused_claim_is_shown_by_global_with_both_uids(world: World) -> None:
    await world.start()
    newcomer = newcomer_to(world)
    newcomer.start()
    await world.until(lambda: newcomer.failure is not None, 15.0)

    assert uid_of(world["west"]) in str(newcomer.failure)
    assert uid_of(newcomer) in str(newcomer.failure)
    await world.until(lambda: all("claimed_by" in zone_west(each) for each in world.replicas), 3.0)
    for replica in world.replicas:
        shown = zone_west(replica)
        assert shown["uid"] == uid_of(world["west"])
        assert shown["claimed_by"]["uid"] == uid_of(newcomer)
        insight = replica.replica.backend.insight("west")
        assert insight is not None
        assert insight["zonemesh"]["claimedBy"]["owner"] == uid_of(world["west"])
    await world.pass_time(700.0)
    assert "claimed_by" not in zone_west(world.leader)


async def test_an_operator_may_have_a_zone_taken_over_from_one_that_lives(world: World) -> None:
    await world.start()
    west, agents = world["west"], (world["west"].agent(), world["east"].agent())
    await west.register("redis", "kafka")
    await west.run_dataplane("dp-1", "generated")
    await world.until(world.converged)
    bound, old_uid = west.services, uid_of(west)
    west.expected_failure = ConfigError
    newcomer = newcomer_to(world, takeover=True)
    newcomer.start()

    await world.until(lambda: west.failure is not None, 5.0)
    await world.until(lambda: newcomer.ready, 5.0)
    assert old_uid in str(west.failure)
    assert uid_of(newcomer) in str(west.failure)
    world.zone_nodes["west"] = newcomer
    await newcomer.register("after")
    await world.until(world.converged)
    assert {name: newcomer.services[name] for name in bound} == bound
    assert owner(world) == uid_of(newcomer)
    for agent in agents:
        assert agent.removed == []
    world.entries(up_log("west"))  # one chain

    # It is one's word for one time: who lost does not take it back, nor is it needed again.
    west.failure = None
    west.start()
    await world.until(lambda: west.failure is not None, 15.0)
    assert newcomer.running
    newcomer.takeover = False
    newcomer.kill()
    newcomer.start()
    await world.until(world.converged)


async def test_what_is_registered_while_a_zone_is_taken_over_is_adopted_or_refused(
    world: World,
) -> None:
    await world.start()
    west = world["west"]
    await world.until(world.converged)
    west.expected_failure = ConfigError
    newcomer = newcomer_to(world, takeover=True)
    newcomer.start()
    written = []
    for number in range(200):
        if not west.running or newcomer.ready:
            break
        await west.register(f"svc-{number}")
        written.append(f"svc-{number}")
        await world.pass_time(0.001)
    await world.until(lambda: newcomer.ready, 5.0)
    world.zone_nodes["west"] = newcomer
    await world.until(world.converged)

    # What had not gone up when the stream changed hands is not known to anybody else: it is left
    # out from some point on, never in between.
    known = [name in newcomer.services for name in written]
    assert known == sorted(known, reverse=True)
    assert any(known)


async def test_a_zone_with_a_log_of_its_own_that_takes_a_name_over_keeps_both_parts(
    world: World,
) -> None:
    west = await world.start_with("theirs")
    bound = west.services
    newcomer = newcomer_to(world, takeover=True)
    # A log that has been a zone's for long, in another mesh.
    other = World(zones=("west",), globals=1)
    await other.start()
    await other["west"].register("ours")
    await other.until(other.converged)
    await other["west"].stop()
    newcomer.disk.restore(other["west"].disk.clone())
    await other.close()
    world.auditor.reuse = True  # of two worlds, each with its own addresses
    west.expected_failure = ConfigError
    newcomer.start()

    await world.until(lambda: west.failure is not None, 10.0)
    await world.until(lambda: newcomer.ready, 10.0)
    world.zone_nodes["west"] = newcomer
    await world.until(world.converged)
    assert newcomer.services["theirs"] == bound["theirs"]
    assert newcomer.services.keys() == {"theirs", "ours"}


async def test_a_copy_of_a_running_zones_data_directory_is_refused(world: World) -> None:
    await world.start()
    west, agent = world["west"], world["east"].agent()
    await west.register("redis")
    await world.until(world.converged)
    await world.pass_time(1.0)
    copy = copy_of(world, west)
    copy.start()

    ended_s = await world.until(lambda: copy.failure is not None, 5.0)
    assert "another process with the same UID" in str(copy.failure)
    assert uid_of(west) in str(copy.failure)
    assert ended_s < 5.0
    assert west.running
    await west.register("kafka")
    await world.until(world.converged)
    assert agent.removed == []
    assert world.full_syncs("west") == 1


async def test_a_copy_taken_long_ago_is_refused_too(world: World) -> None:
    west = await world.start_with("redis")
    copy = copy_of(world, west)
    await west.register("kafka")
    west.kill()
    west.start()
    await world.until(world.converged)
    await world.pass_time(5.0)
    copy.start()

    await world.until(lambda: copy.failure is not None, 5.0)
    assert west.running
    await world.until(world.converged)


async def test_one_that_was_paused_while_its_copy_went_on_ends_when_it_wakes(
    world: World,
) -> None:
    west = await world.start_with("redis")
    await world.pass_time(1.0)
    copy = copy_of(world, west)
    copy.expected_failure = None
    west.expected_failure = ConfigError
    west.freeze()
    copy.start()
    await world.until(lambda: copy.ready, 5.0)
    await copy.register("kafka")
    await world.pass_time(5.0)
    west.thaw()

    await world.until(lambda: west.failure is not None, 5.0)
    assert "another process with the same UID" in str(west.failure)
    world.zone_nodes["west"] = copy
    await world.until(world.converged)
    assert set(copy.services) == {"redis", "kafka"}


async def test_an_operator_may_have_a_copy_go_on_instead(world: World) -> None:
    west = await world.start_with("redis")
    await world.pass_time(1.0)
    copy = copy_of(world, west)
    copy.takeover, copy.expected_failure = True, None
    west.expected_failure = ConfigError
    copy.start()

    await world.until(lambda: west.failure is not None, 5.0)
    world.zone_nodes["west"] = copy
    await copy.register("kafka")
    await world.until(world.converged)


async def test_two_copies_that_start_together_leave_one(world: World) -> None:
    west = await world.start_with("redis")
    await west.stop()
    copy = copy_of(world, west)
    west.expected_failure = ConfigError
    west.start()
    copy.start()

    await world.until(lambda: (west.failure is None) != (copy.failure is None), 10.0)
    await world.pass_time(10.0)
    (left,) = [node for node in (west, copy) if node.running]
    world.zone_nodes["west"] = left
    await world.until(world.converged)
    assert set(left.services) == {"redis"}
