"""A zone is lost for a while, or for good: what others serve of it meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.scenarios.agents import MESH, Address
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonecp.leaving import leave
from zonemesh.deciding import Delete, Put
from zonemesh.errors import ConfigError
from zonemesh.labels import DISPLAY_NAME
from zonemesh.lostpolicy import LABEL
from zonemesh.model import Key, ServiceRef
from zonemesh.seen import Seen

SERVICE = "MeshService"
MULTI_ZONE = "MeshMultiZoneService"
OFFLINE_S = 13.0
"""By when a zone that is killed counts as offline: 10 s of log time, heartbeats, a start."""
VERDICT_S = 1.0
"""From global's verdict to its effect in every zone."""


def seen(world: World, zone: str = "west") -> Seen:
    found = Seen.of(world.leader.registry, zone)
    assert found is not None
    return found


def state(world: World, zone: str = "west") -> str:
    return seen(world, zone).state


def mesh_with(policy: str | None) -> Put:
    labels = {} if policy is None else {LABEL: policy}
    return Put("Mesh", Key("", "", "", MESH), labels, {})


def service(node: ZoneNode, name: str, policy: str | None = None) -> Put:
    """A service that one Dataplane, `dp-<name>`, stands behind."""
    spec = {
        "selector": {"dataplaneTags": {"kuma.io/service": name}},
        "ports": [{"port": 6379, "targetPort": 6379, "appProtocol": "tcp"}],
    }
    return Put(SERVICE, node.key(name), {} if policy is None else {LABEL: policy}, spec)


def dataplane(node: ZoneNode, name: str) -> Put:
    inbound = {"port": 6379, "tags": {"kuma.io/service": name}}
    spec = {"networking": {"address": "10.0.0.1", "inbound": [inbound]}}
    return Put("Dataplane", node.key(f"dp-{name}"), {}, spec)


def multi_zone(name: str) -> Put:
    spec = {
        "selector": {"meshService": {"matchLabels": {DISPLAY_NAME: name}}},
        "ports": [{"port": 6379}],
    }
    return Put(MULTI_ZONE, Key(MESH, "", "", name), {}, spec)


def endpoints(node: ZoneNode, kind: str, key: Key) -> list[tuple[str, bool]]:
    """Zone and readiness of what stands behind a service, as one zone's data planes get it."""
    ref = ServiceRef(kind, key.packed)
    return [
        (each["zone"], each["ready"])
        for outbound in node.zone.vipmap.outbounds.of(ref)
        for each in outbound["endpoints"]
    ]


def of_west(node: ZoneNode) -> dict[str, Address]:
    return {name: at for name, at in node.map.items() if name.endswith(".svc.west.mesh.local")}


def name_of(service: str) -> str:
    return f"{service}.svc.west.mesh.local"


async def with_services(world: World, **policies: str | None) -> ZoneNode:
    """West has services with such policies, one Dataplane each, and east has an agent."""
    await world.start()
    west = world["west"]
    await west.write(*(service(west, name, policy) for name, policy in policies.items()))
    await west.write(*(dataplane(west, name) for name in policies))
    await world.until(world.converged)
    return west


async def lose(world: World, node: ZoneNode) -> None:
    node.kill()
    await world.until(lambda: state(world) == "offline", OFFLINE_S)


async def test_policies_decide_what_is_left_of_a_lost_zone_and_all_is_back_with_it(
    world: World,
) -> None:
    west = await with_services(world, kept=None, dark="unavailable", gone="withdraw-20s")
    east = world["east"]
    agent = east.agent()
    await world.until(world.converged)
    before, bound = dict(agent.names), west.services
    world.removals.add("gone")
    await lose(world, west)

    await world.until(
        lambda: endpoints(east, SERVICE, west.key("dark")) == [("west", False)], VERDICT_S
    )
    assert endpoints(east, SERVICE, west.key("kept")) == [("west", True)]
    assert endpoints(east, SERVICE, west.key("gone")) == [("west", True)]
    assert agent.names == before
    taken_s = await world.until(lambda: name_of("gone") not in agent.names, 25.0)
    assert 18.0 < taken_s < 22.0
    assert endpoints(east, SERVICE, west.key("gone")) == []
    assert agent.names == {at: ip for at, ip in before.items() if at != name_of("gone")}
    agents_view = [each for each in agent.shown if name_of("gone") in each.removed]
    assert [each.event for each in agents_view] == ["delta"]  # by tombstone, not by absence

    west.start()
    await world.until(lambda: state(world) == "online", 5.0)
    await world.until(lambda: agent.names == before, VERDICT_S)
    await world.until(world.converged)
    assert west.services == bound
    assert endpoints(east, SERVICE, west.key("dark")) == [("west", True)]
    await world.until(world.digests_agree)


async def test_a_mesh_s_policy_holds_for_all_that_declare_none(world: World) -> None:
    west = await with_services(world, kept="keep", plain=None)
    await world.write(mesh_with("withdraw-5s"))
    world.removals.add("plain")
    agent = world["east"].agent()
    await world.until(world.converged)
    await lose(world, west)

    await world.until(lambda: name_of("plain") not in agent.names, 8.0)
    assert name_of("kept") in agent.names


async def test_a_policy_that_changes_while_the_zone_is_lost_holds_at_once(world: World) -> None:
    west = await with_services(world, redis=None)
    east, agent = world["east"], world["east"].agent()
    await world.until(world.converged)
    bound = west.services["redis"]
    await lose(world, west)
    await world.pass_time(5.0)

    await world.write(mesh_with("unavailable"))
    await world.until(
        lambda: endpoints(east, SERVICE, west.key("redis")) == [("west", False)], VERDICT_S
    )
    world.removals.add("redis")
    await world.write(mesh_with("withdraw-3s"))
    await world.until(lambda: name_of("redis") not in agent.names, 2 * VERDICT_S)
    await world.write(mesh_with("keep"))
    await world.until(lambda: agent.names.get(name_of("redis")) == bound, VERDICT_S)


@pytest.mark.parametrize("policy", [None, "unavailable", "withdraw-300s"])
async def test_a_multi_zone_service_leaves_a_lost_zone_and_returns_to_it_whatever_the_policy(
    world: World, policy: str | None
) -> None:
    west = await with_services(world, redis=policy)
    east = world["east"]
    await east.write(service(east, "redis"), dataplane(east, "redis"))
    await world.write(multi_zone("redis"))
    key = Key(MESH, "", "", "redis")
    both = [("east", True), ("west", True)]
    await world.until(lambda: endpoints(east, MULTI_ZONE, key) == both)
    await lose(world, west)

    await world.until(lambda: endpoints(east, MULTI_ZONE, key) == [("east", True)], VERDICT_S)
    west.start()
    await world.until(lambda: state(world) == "online", 5.0)
    await world.until(lambda: endpoints(east, MULTI_ZONE, key) == both, VERDICT_S)


async def test_a_cut_off_zone_serves_its_own_and_keeps_what_it_knew_of_others(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    await world.write(mesh_with("withdraw-5s"))
    await west.register("redis")
    await east.register("kafka")
    await world.until(world.converged)
    agent = west.agent()
    await world.until(world.converged)
    before = dict(agent.names)
    world.removals.add("redis")
    west.cut()

    await world.until(lambda: of_west(east) == {}, OFFLINE_S + 8.0)
    assert agent.names == before
    west.heal()
    await world.until(world.converged, 20.0)
    assert agent.names == before
    assert agent.removed == []


@pytest.mark.parametrize("everyone", [True, False])
async def test_while_global_s_log_stands_still_nothing_is_withdrawn(
    world: World, everyone: bool
) -> None:
    """`everyone`: the store is away; else nobody leads global, and zones write on."""
    west = await with_services(world, redis="withdraw-30s")
    east = world["east"]
    agent = east.agent()
    await world.until(world.converged)
    await lose(world, west)
    if everyone:
        world.store.cut(everyone=True)
    else:
        for node in world.replicas:
            node.kill()
    await world.pass_time(600.0)
    if everyone:
        world.store.heal(everyone=True)
    else:
        world.start_globals()
    await world.until(world.has_leader, 10.0)
    await world.pass_time(10.0)
    assert name_of("redis") in agent.names
    assert state(world, "east") == "online"

    world.removals.add("redis")
    await world.until(lambda: name_of("redis") not in agent.names, 30.0)


@pytest.mark.parametrize("moment", ["before offline", "before withdrawal", "after it"])
async def test_another_leader_goes_on_where_the_last_one_stopped(world: World, moment: str) -> None:
    west = await with_services(world, redis="withdraw-20s")
    agent = world["east"].agent()
    await world.until(world.converged)
    bound = west.services["redis"]
    world.removals.add("redis")

    async def change_leaders() -> None:
        former = world.leader
        former.kill()
        await world.until(world.has_leader)
        former.start()

    west.kill()
    await world.pass_time(5.0)
    if moment == "before offline":
        await change_leaders()
    await world.until(lambda: world.has_leader() and state(world) == "offline", OFFLINE_S)
    lost_ms = seen(world).offline_ms
    if moment == "before withdrawal":
        await world.pass_time(10.0)
        await change_leaders()
    await world.until(lambda: name_of("redis") not in agent.names, 30.0)
    assert seen(world).offline_ms == lost_ms
    assert world.leader.registry.log_time_ms - (lost_ms or 0) >= 20_000
    if moment == "after it":
        await change_leaders()
        await world.pass_time(5.0)
        assert name_of("redis") not in agent.names
    west.start()
    await world.until(lambda: agent.names.get(name_of("redis")) == bound)
    await world.until(world.converged)


@pytest.mark.parametrize("fresh", [False, True])
async def test_a_zone_that_starts_while_another_is_lost_serves_the_same_of_it(
    world: World, fresh: bool
) -> None:
    """From its own copy of the log, or from a snapshot of global's."""
    west = await with_services(world, kept=None, dark="unavailable", gone="withdraw-5s")
    east = world["east"]
    await world.until(world.converged)
    before, bound = dict(east.map), west.services
    world.removals.add("gone")
    await lose(world, west)
    await world.until(lambda: name_of("gone") not in east.map, 10.0)
    await east.stop()
    if fresh:
        east.lose_disk()
        await world.leader.replica.snapshotter.take()
    east.start()

    await world.until(lambda: east.ready, 30.0)
    await world.until(lambda: name_of("kept") in east.map)
    assert of_west(east).keys() == {name_of("kept"), name_of("dark")}
    assert endpoints(east, SERVICE, west.key("dark")) == [("west", False)]
    west.start()
    await world.until(lambda: east.map == before)
    assert west.services == bound


async def test_the_address_of_a_withdrawn_service_is_nobody_else_s(world: World) -> None:
    west = await with_services(world, redis="withdraw-0s")
    east = world["east"]
    bound = west.services["redis"]
    world.removals.add("redis")
    await lose(world, west)
    await world.until(lambda: of_west(east) == {}, VERDICT_S)

    await east.register(*(f"svc-{number}" for number in range(50)))
    await world.until(lambda: all(address for address in east.services.values()))
    assert bound not in east.services.values()


async def test_a_lost_zone_that_is_deleted_takes_all_with_it(world: World) -> None:
    west = await with_services(world, kept=None, gone="withdraw-0s")
    east = world["east"]
    world.removals.update(["kept", "gone"])
    await lose(world, west)
    await world.until(lambda: of_west(east).keys() == {name_of("kept")}, VERDICT_S)
    await world.write(Delete("Zone", Key("", "", "", "west")))

    await world.until(lambda: of_west(east) == {})
    await world.until(lambda: east.zone.vipmap.others.is_lost("west") is False)
    west.start()
    await world.until(world.converged, 30.0)


async def test_a_zone_that_hears_nothing_of_global_or_is_slow_to_be_heard_is_stale(
    make_world: Callable[..., World],
) -> None:
    world = make_world()
    await world.start()
    west = world["west"]
    west.cut()

    await world.until(lambda: state(world) == "stale", 8.0)
    assert seen(world).online
    west.heal()
    await world.until(lambda: state(world) == "online", 5.0)
    west.cut()
    await world.until(lambda: state(world) == "stale", 8.0)
    await world.until(lambda: state(world) == "offline", 8.0)


def told(world: World) -> list[tuple[str, str]]:
    """What the leader has been told to log of zones, in order."""
    notes: list[Mapping[str, Any]] = [entry.note for entry in world.entries("global")]
    return [(zone, state) for note in notes for zone, state, _ in note.get("zones", ())]


async def test_each_change_of_a_zone_s_state_is_told_once(world: World) -> None:
    west = await with_services(world, redis="withdraw-5s")
    world.removals.add("redis")
    await lose(world, west)
    await world.pass_time(20.0)
    west.start()
    await world.until(lambda: state(world) == "online", 5.0)
    await world.pass_time(20.0)

    assert [each for zone, each in told(world) if zone == "west"] == [
        "stale",
        "offline",
        "offline",  # and its service is withdrawn
        "online",
    ]


# Leaving


async def say_goodbye(world: World, zone: str = "west") -> None:
    """What an operator does with `zonecp leave`."""
    node = world[zone]
    await leave(world.store.peer(), zone, node.clock, watch_s=3.0)


async def test_a_zone_that_leaves_is_lost_at_once_and_back_with_its_first_entry(
    world: World,
) -> None:
    west = await with_services(world, kept=None, gone="withdraw-0s")
    east, agent = world["east"], world["east"].agent()
    await world.until(world.converged)
    before, bound = dict(agent.names), west.services
    await west.stop()
    world.removals.add("gone")
    await say_goodbye(world)

    taken_s = await world.until(lambda: state(world) == "left", VERDICT_S)
    await world.until(lambda: name_of("gone") not in agent.names, VERDICT_S - taken_s)
    assert name_of("kept") in agent.names
    await world.pass_time(30.0)
    assert state(world) == "left"  # and not merely offline
    west.start()
    await world.until(lambda: state(world) == "online", 5.0)
    await world.until(lambda: agent.names == before, VERDICT_S)
    await world.until(world.converged)
    assert west.services == bound
    assert endpoints(east, SERVICE, west.key("kept")) == [("west", True)]
    full_syncs = west.zone.plane.uplink.full_syncs if west.zone.plane.uplink else None
    assert full_syncs == 0  # its stream goes on where it left


async def test_restarting_a_zone_is_no_goodbye(world: World) -> None:
    west = await with_services(world, redis="withdraw-0s")
    agent = world["east"].agent()
    await world.until(world.converged)

    for _ in range(3):
        await west.stop()
        await world.pass_time(1.0)
        west.start()
        await world.until(world.converged)

    assert agent.removed == []
    assert state(world) == "online"
    assert "left" not in [each for _, each in told(world)]


async def test_a_zone_that_runs_is_not_said_to_have_left(world: World) -> None:
    await world.start()

    with pytest.raises(ConfigError, match="zone west is running"):
        await say_goodbye(world)
    with pytest.raises(ConfigError, match="nothing of it is in this Redis"):
        await leave(world.store.peer(), "nowhere", world["west"].clock, watch_s=0.0)

    await world.pass_time(5.0)
    assert state(world) == "online"


async def test_a_goodbye_while_the_zone_starts_after_all_is_taken_back(world: World) -> None:
    west = await with_services(world, redis=None)
    await west.stop()
    await leave(world.store.peer(), "west", west.clock, watch_s=0.0)
    west.start()
    await leave(world.store.peer(), "west", west.clock, watch_s=0.0)

    await world.until(world.converged)
    await world.until(lambda: state(world) == "online", 5.0)
    await world.pass_time(30.0)
    assert state(world) == "online"


async def test_to_leave_twice_or_when_offline_already_is_to_leave(world: World) -> None:
    west = await with_services(world, redis="withdraw-20s")
    await lose(world, west)
    lost_ms = seen(world).offline_ms
    await say_goodbye(world)
    await world.until(lambda: state(world) == "left", VERDICT_S)
    written = len(world.entries("zone:west:up"))
    await say_goodbye(world)

    assert len(world.entries("zone:west:up")) == written
    assert seen(world).offline_ms == lost_ms  # its services do not wait longer for that


async def test_a_deleted_zone_that_says_goodbye_is_not_met_anew(world: World) -> None:
    west = await with_services(world, redis=None)
    await west.stop()
    await world.until(lambda: state(world) == "offline", OFFLINE_S)
    world.removals.add("redis")
    zone = Key("", "", "", "west")
    await world.write(Delete("Zone", zone))
    await world.until(lambda: of_west(world["east"]) == {})
    await say_goodbye(world)

    await world.pass_time(5.0)
    assert world.leader.registry.get("Zone", zone.packed) is None
    west.start()
    await world.until(world.converged, 30.0)
    assert state(world) == "online"
