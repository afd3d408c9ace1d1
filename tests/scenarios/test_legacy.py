"""Legacy names and hosts of VirtualOutbounds over two zones: one address each, for everybody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.agents import MESH
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.deciding import Delete, Put
from zonemesh.ipam import ipv4_text
from zonemesh.legacy import host_key, service_key
from zonemesh.legacypool import LEGACY
from zonemesh.model import Key, ServiceRef

BY_VERSION = {
    "selectors": [{"match": {"kuma.io/service": "*", "version": "*"}}],
    "conf": {
        "host": "{{.v}}.{{.svc}}.test",
        "port": "{{.port}}",
        "parameters": [
            {"name": "svc", "tagKey": "kuma.io/service"},
            {"name": "v", "tagKey": "version"},
            {"name": "port"},
        ],
    },
}


async def on_global(world: World, *items: Put | Delete) -> None:
    outcomes = await world.leader.replica.backend.write(items)
    assert not [each for each in outcomes if isinstance(each, Exception)]


async def runs(node: ZoneNode, name: str, **tags: str) -> None:
    """A Dataplane whose inbound has these tags, `service` being `kuma.io/service`."""
    found = {"kuma.io/service": tags.pop("service"), **tags}
    spec = {"networking": {"address": "10.0.0.1", "inbound": [{"port": 6379, "tags": found}]}}
    await node.write(Put("Dataplane", node.key(name), {}, spec))


def outbounds(node: ZoneNode, key: str) -> list[dict[str, Any]]:
    return node.zone.vipmap.outbounds.of(ServiceRef(LEGACY, key))


async def test_a_service_of_two_zones_has_one_name_one_address_and_all_endpoints(
    world: World,
) -> None:
    await world.start()
    for zone in ("west", "east"):
        await runs(world[zone], f"redis-{zone}", service="redis")
    await world.until(world.converged)

    for zone, priorities in (("west", {"west": 0, "east": 1}), ("east", {"west": 1, "east": 0})):
        (outbound,) = outbounds(world[zone], service_key(MESH, "redis"))
        assert outbound["vips"][0] == world["west"].map["redis.mesh"]
        assert (outbound["port"], outbound["name"]) == (80, "redis")
        found = {each["zone"]: each["priority"] for each in outbound["endpoints"]}
        assert found == priorities


async def test_a_service_with_underscores_has_a_dotted_name_too(world: World) -> None:
    await world.start()
    service = "echo-server_echo-example_svc_1010"
    await runs(world["west"], "echo-1", service=service)
    dotted = "echo-server.echo-example.svc.1010.mesh"

    for zone in ("west", "east"):
        node = world[zone]
        await world.until(lambda node=node: dotted in node.map)  # type: ignore[misc]
        assert node.map[dotted] == node.map[f"{service}.mesh"]
        assert node.map[dotted] == world["west"].map[dotted]


async def test_a_virtual_outbound_gives_each_version_a_host_with_its_port(world: World) -> None:
    await world.start()
    await runs(world["west"], "web-1", service="web", version="v1", port="8080")
    rule = Key(MESH, "", "", "by-version")

    await on_global(world, Put("VirtualOutbound", rule, {}, BY_VERSION))
    for zone in ("west", "east"):
        node = world[zone]
        await world.until(lambda node=node: "v1.web.test" in node.map)  # type: ignore[misc]
        (outbound,) = outbounds(node, host_key(MESH, "v1.web.test"))
        assert (outbound["port"], outbound["vips"][0]) == (8080, node.map["v1.web.test"])
        assert [each["port"] for each in outbound["endpoints"]] == [6379]
    first = world["east"].map["v1.web.test"]
    assert first == world["west"].map["v1.web.test"]

    await on_global(world, Delete("VirtualOutbound", rule))
    await world.until(lambda: "v1.web.test" not in world["east"].map)
    await on_global(world, Put("VirtualOutbound", rule, {}, BY_VERSION))
    await world.until(lambda: world["east"].map.get("v1.web.test") == first)


@pytest.mark.parametrize("mode", ["Disabled", "Everywhere", "ReachableBackends", None])
async def test_a_mesh_of_mode_exclusive_has_none_and_the_same_ones_afterwards(
    world: World, mode: str | None
) -> None:
    await world.start()
    await runs(world["west"], "redis-1", service="redis")
    await world.until(world.converged)
    address = world["east"].map["redis.mesh"]
    mesh = Key("", "", "", MESH)

    await on_global(world, Put("Mesh", mesh, {}, {"meshServices": {"mode": "Exclusive"}}))
    await world.until(lambda: not any("redis.mesh" in world[z].map for z in ("west", "east")))
    assert "redis.svc.west.mesh.local" in world["east"].map

    await on_global(world, Put("Mesh", mesh, {}, {"meshServices": {"mode": mode}} if mode else {}))
    await world.until(lambda: world["east"].map.get("redis.mesh") == address)
    await world.until(world.converged)


async def test_a_generators_name_comes_before_a_legacy_one_and_leaves_it_again(
    world: World,
) -> None:
    await world.start()
    await runs(world["west"], "redis-1", service="redis")
    await world["west"].register("other")
    await world.until(world.converged)
    west = world["west"]
    legacy, other = west.map["redis.mesh"], west.map["other.svc.mesh.local"]
    generator = Key("", "", "", "taker")
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "other"}}},
        "template": "redis.mesh",
    }

    await on_global(world, Put("HostnameGenerator", generator, {}, spec))
    await world.until(lambda: west.map["redis.mesh"] == other)
    await on_global(world, Delete("HostnameGenerator", generator))

    await world.until(lambda: west.map["redis.mesh"] == legacy)


async def test_legacy_addresses_are_no_other_pools(world: World) -> None:
    await world.start()
    for number in range(30):
        await runs(world["west"], f"s-{number}", service=f"s-{number}")
    await world.until(world.converged, 20.0)

    found = [world["east"].map[f"s-{number}.mesh"] for number in range(30)]
    assert len(set(found)) == 30
    assert not [each for each in found if each.partition(".")[0] in ("241", "242", "243")]
    registry = world.leader.registry
    bound = [ipv4_text(a) for a in world.leader.replica.state.legacy.ledger._key_of]
    assert set(found) == set(bound)
    assert len(registry.table("vip.Legacy")) == 30
