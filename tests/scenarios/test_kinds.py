"""Services of every kind across control planes, zones taken out, and agents that go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.scenarios.agents import MESH, Address
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonecp.config import RuntimeConfig, UniversalConfig
from zonecp.liveness import RETURN_S, SETTLE_S
from zonemesh.agents import AGENT
from zonemesh.deciding import Delete, Put
from zonemesh.errors import ConflictError
from zonemesh.labels import DISPLAY_NAME
from zonemesh.model import Key, ServiceRef

EXTERNAL = "MeshExternalService"
MULTI_ZONE = "MeshMultiZoneService"
SERVICE = "MeshService"
CLEANUP_S = 60.0
SLACK_S = 3.0
"""Heartbeats and settling."""


def external(name: str, zone: str = "") -> Put:
    spec = {"match": {"port": 443}, "endpoints": [{"address": "192.0.2.1", "port": 443}]}
    return Put(EXTERNAL, Key(MESH, zone, "", name), {}, spec)


def multi_zone(name: str, **match: str) -> Put:
    wanted = match or {DISPLAY_NAME: name}
    spec = {"selector": {"meshService": {"matchLabels": wanted}}, "ports": [{"port": 6379}]}
    return Put(MULTI_ZONE, Key(MESH, "", "", name), {}, spec)


def zone_put(name: str, *, enabled: bool) -> Put:
    return Put("Zone", Key("", "", "", name), {}, {"enabled": enabled})


def behind(node: ZoneNode, name: str) -> list[str]:
    """The zones of the endpoints of a MeshMultiZoneService, as one zone sees them."""
    ref = ServiceRef(MULTI_ZONE, Key(MESH, "", "", name).packed)
    return [
        endpoint["zone"]
        for outbound in node.zone.vipmap.outbounds.of(ref)
        for endpoint in outbound["endpoints"]
    ]


def named(node: ZoneNode) -> dict[str, Address]:
    """The part of a zone's map that HostnameGenerators make."""
    return {name: at for name, at in node.map.items() if name.endswith(".mesh.local")}


# External services


async def test_what_is_made_on_global_has_one_address_in_every_zone(world: World) -> None:
    await world.start()
    nodes = list(world.zone_nodes.values())
    agent = world["east"].agent()

    await world.write(external("api"), multi_zone("redis"))

    names = {"api.extsvc.mesh.local", "redis.mzsvc.mesh.local"}
    await world.until(lambda: all(names <= named(node).keys() for node in nodes))
    await world.until(lambda: names <= agent.names.keys())
    assert named(nodes[0]) == named(nodes[1])
    assert named(nodes[0])["api.extsvc.mesh.local"].startswith("242.")
    assert named(nodes[0])["redis.mzsvc.mesh.local"].startswith("243.")


async def test_an_external_service_made_in_a_zone_is_named_there_alone(world: World) -> None:
    await world.start()
    west, east = world["west"], world["east"]

    await west.write(external("api", "west"))
    await world.until(lambda: "api.extsvc.mesh.local" in named(west))
    await world.pass_time(5.0)

    assert named(west)["api.extsvc.mesh.local"].startswith("242.")
    assert named(east) == {}
    key = Key(MESH, "west", "", "api").packed
    assert world.leader.registry.get(EXTERNAL, key) is not None


async def test_a_zone_cut_off_from_global_still_binds_external_services(world: World) -> None:
    await world.start()
    west = world["west"]
    west.cut()
    await world.pass_time(5.0)

    await west.write(external("api", "west"))
    assert named(west)["api.extsvc.mesh.local"].startswith("242.")
    await world.write(external("other"))
    bound = named(west)

    west.heal()
    await world.until(lambda: "other.extsvc.mesh.local" in named(west))
    assert len(set(named(west).values())) == 2
    assert bound.items() <= named(west).items()


async def test_another_replica_that_leads_gives_the_same_address_back(world: World) -> None:
    await world.start()
    east = world["east"]
    world.removals.update({"redis"})
    await world.write(multi_zone("redis"))
    await world.until(lambda: "redis.mzsvc.mesh.local" in named(east))
    before = named(east)
    await world.write(Delete(MULTI_ZONE, Key(MESH, "", "", "redis")))
    await world.until(lambda: named(east) == {})

    world.leader.kill()
    await world.until(world.has_leader)
    await world.write(multi_zone("redis"), multi_zone("other"))

    await world.until(lambda: len(named(east)) == 2)
    assert before.items() <= named(east).items()


# Services over several zones


async def test_a_multi_zone_service_gains_loses_and_regains_zones_at_once(world: World) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    agent = east.agent()
    await world.write(multi_zone("redis"))
    await world.until(lambda: "redis.mzsvc.mesh.local" in agent.names)
    address = agent.names["redis.mzsvc.mesh.local"]
    assert behind(east, "redis") == []

    await west.run_dataplane("r-1", "redis")
    took_s = await world.until(lambda: behind(east, "redis") == ["west"])
    await east.run_dataplane("r-1", "redis")
    assert sorted(behind(east, "redis")) == ["east", "west"]
    await world.until(lambda: sorted(behind(west, "redis")) == ["east", "west"])

    await west.stop_dataplane("r-1")
    lost_s = await world.until(lambda: behind(east, "redis") == ["east"])
    await west.run_dataplane("r-2", "redis")
    back_s = await world.until(lambda: sorted(behind(east, "redis")) == ["east", "west"])

    assert max(took_s, lost_s, back_s) < 1.0
    assert agent.names["redis.mzsvc.mesh.local"] == address
    assert "redis.mzsvc.mesh.local" not in agent.removed


async def test_a_multi_zone_service_survives_the_restart_of_everything(world: World) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    agent = east.agent()
    await world.write(multi_zone("redis"))
    await west.run_dataplane("r-1", "redis")
    await world.until(lambda: behind(east, "redis") == ["west"])
    before = named(east)
    for node in world.nodes:
        node.kill()

    for node in world.nodes:
        node.start()
    await world.until(lambda: east.ready and west.ready, 30.0)
    await world.until(world.has_leader, 30.0)

    await world.until(lambda: named(east) == before)
    assert behind(east, "redis") == ["west"]
    assert agent.removed == []


# Zones taken out


async def taken_out(world: World, *, enabled: bool) -> None:
    await world.write(zone_put("west", enabled=enabled))


async def without_west(world: World, *services: str) -> dict[str, Address]:
    """West has services and is taken out; what east's names were before."""
    await world.start_with(*services)
    east = world["east"]
    before = named(east)
    world.removals.update(services)
    await taken_out(world, enabled=False)
    await world.until(lambda: named(east) == {})
    return before


async def test_a_zone_that_is_taken_out_loses_its_names_elsewhere_until_it_is_back(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    world.removals.update({"redis"})
    agent = east.agent()
    await world.write(multi_zone("redis"))
    await west.run_dataplane("r-1", "redis")
    await world.until(lambda: behind(east, "redis") == ["west"])
    await world.until(lambda: "redis.svc.west.mesh.local" in agent.names)
    here, there = named(west), named(east)

    await taken_out(world, enabled=False)
    out_s = await world.until(lambda: "redis.svc.west.mesh.local" not in agent.names)
    await world.until(lambda: behind(east, "redis") == [])
    await world.pass_time(3.0)
    assert named(east).keys() == {"redis.mzsvc.mesh.local"}
    assert named(west) == here

    await taken_out(world, enabled=True)
    back_s = await world.until(lambda: there.items() <= agent.names.items())
    assert behind(east, "redis") == ["west"]
    assert max(out_s, back_s) < 1.0


async def test_what_happens_while_a_zone_is_taken_out_is_there_when_it_is_back(
    world: World,
) -> None:
    before = await without_west(world, "redis", "kafka")
    west, east = world["west"], world["east"]

    await west.register("later")
    await west.remove("kafka")
    await west.write(west.put("redis", port=81))
    await world.pass_time(2.0)
    assert named(east) == {}
    await taken_out(world, enabled=True)

    await world.until(world.converged)
    redis = "redis.svc.west.mesh.local"
    assert named(east)[redis] == before[redis]


@pytest.mark.parametrize("restart", ["east", "global"])
async def test_a_zone_that_is_taken_out_stays_so_across_restarts(
    world: World, restart: str
) -> None:
    await without_west(world, "redis")
    west, east = world["west"], world["east"]

    if restart == "east":
        await east.stop()
        east.start()
        await world.until(lambda: east.ready)
    else:
        world.leader.kill()
        await world.until(world.has_leader)
    await west.register("later")
    await world.pass_time(3.0)

    assert named(east) == {}
    assert east.zone.vipmap.others.is_out("west")


async def test_only_a_zone_that_is_offline_can_be_deleted_and_takes_its_own_with_it(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    world.removals.update({"redis"})
    await world.write(multi_zone("redis"), external("api"))
    await west.run_dataplane("r-1", "redis")
    await west.write(external("mine", "west"))
    await world.until(lambda: behind(east, "redis") == ["west"])
    kept = {name: at for name, at in named(east).items() if ".west." not in name}
    item = Delete("Zone", Key("", "", "", "west"))
    with pytest.raises(ConflictError, match="still connected"):
        await world.write(item)

    await west.stop()
    await world.pass_time(15.0)
    await world.write(item)

    await world.until(lambda: named(east) == kept)
    assert kept.keys() == {"redis.mzsvc.mesh.local", "api.extsvc.mesh.local"}
    assert behind(east, "redis") == []
    held = [key for table in world.leader.registry.tables.values() for key in table]
    assert not any(key.startswith(f"{MESH}/west/") for key in held)


async def test_a_zone_deleted_while_it_was_taken_out_is_back_with_its_addresses(
    world: World,
) -> None:
    before = await without_west(world, "redis")
    west, east = world["west"], world["east"]
    await west.stop()
    await world.pass_time(15.0)
    await world.write(Delete("Zone", Key("", "", "", "west")))
    await world.pass_time(2.0)
    assert named(east) == {}

    west.start()

    await world.until(world.converged, 30.0)
    assert named(east) == before


# Agents


@pytest.fixture
async def cleaning(make_world: Callable[..., World]) -> World:
    """A zone that removes Dataplanes a minute after their agent has gone."""
    universal = UniversalConfig(dataplane_cleanup_age=CLEANUP_S)
    world = make_world(
        zones=("west",), zone_options={"runtime": RuntimeConfig(universal=universal)}
    )
    await world.start()
    return world


def dataplanes(world: World) -> set[str]:
    table = world["west"].zone.state.registry.table("Dataplane")
    return {Key.parse(key).name for key in table}


def online(world: World) -> set[str]:
    return {Key.parse(key).name for key in world["west"].zone.state.agents.online}


def offline(world: World) -> set[str]:
    return {Key.parse(key).name for key in world["west"].zone.state.agents.offline}


async def settled(world: World) -> None:
    """Until who was there before this control plane began has had its time to come back."""
    await world.pass_time(RETURN_S + SLACK_S)


async def test_a_dataplane_goes_offline_with_its_agent_and_is_removed_after_the_delay(
    cleaning: World,
) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    await west.run_dataplane("r-2", "redis")
    agent = west.agent(dataplane="r-1")
    came_s = await world.until(lambda: online(world) == {"r-1"})
    await settled(world)

    await west.part_with(agent)
    gone_s = await world.until(lambda: offline(world) == {"r-1"})
    await world.pass_time(CLEANUP_S - SLACK_S)
    assert dataplanes(world) == {"r-1", "r-2"}
    await world.pass_time(2 * SLACK_S)

    assert dataplanes(world) == {"r-2"}
    assert max(came_s, gone_s) < 2 * SETTLE_S
    assert named(west).keys() == {"redis.svc.mesh.local"}
    await world.until(lambda: AGENT not in nonempty(world.leader.registry.tables))


def nonempty(tables: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {kind for kind, table in tables.items() if table}


async def test_a_dataplane_that_never_had_an_agent_is_never_removed(cleaning: World) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    west.agent()

    await world.pass_time(5 * CLEANUP_S)

    assert dataplanes(world) == {"r-1"}
    assert offline(world) == set()


async def test_an_agent_may_be_there_before_its_dataplane(cleaning: World) -> None:
    world, west = cleaning, cleaning["west"]
    west.agent(dataplane="r-1")
    await world.pass_time(2.0)
    assert online(world) == set()

    await west.run_dataplane("r-1", "redis")

    await world.until(lambda: online(world) == {"r-1"})


async def test_an_agent_that_reconnects_at_once_was_never_gone(cleaning: World) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    agent = west.agent(dataplane="r-1")
    await world.until(lambda: online(world) == {"r-1"})
    await settled(world)
    before = world.times_written("zone:west:up", AGENT, west.key("r-1"))

    await west.part_with(agent)
    west.agent(dataplane="r-1")
    await world.pass_time(5.0)

    assert online(world) == {"r-1"}
    assert world.times_written("zone:west:up", AGENT, west.key("r-1")) == before


async def test_one_of_two_agents_of_a_dataplane_keeps_it_online(cleaning: World) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    agents = [west.agent(dataplane="r-1") for _ in range(2)]
    await settled(world)

    await west.part_with(agents[0])
    await world.pass_time(2 * CLEANUP_S)

    assert online(world) == dataplanes(world) == {"r-1"}


async def test_a_restart_of_the_zone_starts_the_clock_anew(cleaning: World) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    agent = west.agent(dataplane="r-1")
    await settled(world)
    await west.part_with(agent)
    await world.pass_time(CLEANUP_S - SLACK_S)

    west.kill()
    west.start()
    await world.until(lambda: west.ready)
    await world.pass_time(CLEANUP_S - SLACK_S)
    assert dataplanes(world) == {"r-1"}
    await world.pass_time(3 * SLACK_S)

    assert dataplanes(world) == set()


@pytest.mark.parametrize("away_s", [0.0, 1.0, RETURN_S - 2.0])
async def test_an_agent_that_comes_back_after_a_restart_was_never_gone(
    cleaning: World, away_s: float
) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    agent = west.agent(dataplane="r-1")
    await settled(world)
    written = world.times_written("zone:west:up", AGENT, west.key("r-1"))
    assert written == 1

    await west.stop()
    west.agents.remove(agent)
    west.start()
    await world.until(lambda: west.running)
    await world.pass_time(away_s)
    west.agent(dataplane="r-1")
    await settled(world)

    assert online(world) == {"r-1"}
    assert world.times_written("zone:west:up", AGENT, west.key("r-1")) == written


@pytest.mark.parametrize("news_s", [0.0, 2.0, RETURN_S - 0.3, RETURN_S - 0.05, RETURN_S + 1.0])
async def test_an_agent_that_went_with_its_zone_is_missed_whatever_else_happens_then(
    cleaning: World, news_s: float
) -> None:
    world, west = cleaning, cleaning["west"]
    await west.run_dataplane("r-1", "redis")
    await west.run_dataplane("r-2", "redis")
    agent = west.agent(dataplane="r-1")
    await settled(world)
    west.kill()
    west.agents.remove(agent)
    west.start()
    await world.until(lambda: west.running)

    await world.pass_time(news_s)
    west.agent(dataplane="r-2")

    await world.until(lambda: offline(world) == {"r-1"}, RETURN_S + SLACK_S)
    await world.until(lambda: online(world) == {"r-2"})


async def test_a_zone_that_lost_its_log_takes_over_what_is_known_of_agents(
    cleaning: World,
) -> None:
    world, west = cleaning, cleaning["west"]
    for name in ("r-1", "r-2", "r-3"):
        await west.run_dataplane(name, "redis")
    agents = [west.agent(dataplane=name) for name in ("r-1", "r-2")]
    await settled(world)
    await world.pass_time(10 * CLEANUP_S)
    await west.part_with(agents[1])
    await world.until(lambda: offline(world) == {"r-2"})
    await world.pass_time(5.0)
    west.kill()
    west.lose_disk()

    west.start()
    await world.until(lambda: west.ready, 30.0)
    assert dataplanes(world) == {"r-1", "r-2", "r-3"}
    await world.pass_time(CLEANUP_S + 2 * SLACK_S)

    assert online(world) == {"r-1"}
    assert dataplanes(world) == {"r-1", "r-3"}
