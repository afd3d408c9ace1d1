"""Meshes that scenarios begin with."""

from __future__ import annotations

from collections.abc import Callable

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.agents import Agent
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.model import Key
from zonemesh.runtime.sections import SnapshotConfig

MULTI_ZONE = Put(
    "MeshMultiZoneService",
    Key("default", "", "", "redis"),
    {},
    {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "redis"}}},
        "ports": [{"port": 80, "appProtocol": "tcp"}],
    },
)


def short(world: Callable[..., World], **options: object) -> World:
    """A world in which logs are trimmed after some seconds."""
    snapshots = SnapshotConfig(entries=12, bytes=1 << 20)
    return world(
        global_config=GlobalConfig(snapshots=snapshots),
        zone_options={"snapshots": snapshots},
        **options,
    )


def pooled(make_world: Callable[..., World], cidr: str) -> World:
    """A world whose services have these addresses alone."""
    ipam = IpamConfig(mesh_service=MeshServicePool(cidr=(cidr,)))
    return make_world(global_config=GlobalConfig(ipam=ipam))


async def filled(world: World) -> tuple[ZoneNode, ZoneNode, Agent]:
    """Both zones have services, of which everybody has heard; east has an agent."""
    await world.start()
    west, east = world["west"], world["east"]
    await west.register("redis", "kafka")
    await east.register("web")
    agent = east.agent()
    await world.until(world.converged)
    return west, east, agent
