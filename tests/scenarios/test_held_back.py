"""`kuma.io/kds-sync: disabled` keeps an object where it was made."""

from __future__ import annotations

from dataclasses import replace

from tests.scenarios.agents import MESH
from tests.scenarios.losses import lose_log
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.model import Key

HERE_ONLY = {"kuma.io/kds-sync": "disabled"}


async def test_a_zones_service_stays_in_its_zone_until_the_label_goes(world: World) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    put = west.put("redis")
    await west.write(replace(put, labels=HERE_ONLY))
    await west.register("other")
    await world.until(lambda: "other.svc.west.mesh.local" in east.map)

    assert "redis.svc.mesh.local" in west.map
    assert "redis.svc.west.mesh.local" not in east.map
    assert world.leader.registry.get("MeshService", put.key.packed) is None

    await west.write(put)
    await world.until(world.converged)
    address = east.map["redis.svc.west.mesh.local"]
    assert address == west.map["redis.svc.mesh.local"]

    world.removals.add("redis")
    await west.write(replace(put, labels=HERE_ONLY))
    await world.until(lambda: "redis.svc.west.mesh.local" not in east.map)
    assert west.map["redis.svc.mesh.local"] == address


async def test_a_zone_that_publishes_itself_anew_keeps_back_what_it_kept_back(
    world: World,
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    put = replace(west.put("redis"), labels=HERE_ONLY)
    await west.write(put)
    await west.register("other")
    await world.until(lambda: "other.svc.west.mesh.local" in east.map)

    lose_log(world.store, "zone:west:up")
    await west.register("later")
    await world.until(lambda: "later.svc.west.mesh.local" in east.map)

    assert world.leader.registry.get("MeshService", put.key.packed) is None
    assert "redis.svc.mesh.local" in west.map


async def test_what_global_keeps_back_reaches_no_zone(world: World) -> None:
    await world.start()
    key = Key(MESH, "", "", "aurora")
    spec = {"match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"}, "endpoints": []}
    write = world.leader.replica.backend.write

    await write([Put("MeshExternalService", key, HERE_ONLY, spec)])
    await write([Put("MeshExternalService", key._replace(name="other"), {}, spec)])
    for zone in ("west", "east"):
        node = world[zone]
        await world.until(lambda node=node: "other.extsvc.mesh.local" in node.map)  # type: ignore[misc]
        assert "aurora.extsvc.mesh.local" not in node.map
        assert node.zone.copy.get("MeshExternalService", key.packed) is None

    await write([Put("MeshExternalService", key, {}, spec)])
    await world.until(lambda: "aurora.extsvc.mesh.local" in world["east"].map)
    world.removals.add("aurora")
    await write([Put("MeshExternalService", key, HERE_ONLY, spec)])
    await world.until(lambda: "aurora.extsvc.mesh.local" not in world["east"].map)
