"""A service with an instance in each zone, asked over HTTP at its VIP; east's instance is lost.

An Envoy listens on the VIPs of its host, and a host has 241.0.0.0/8 only by a route that root adds.
So web is reached as a MeshMultiZoneService, whose pool is in 127.0.0.0/8 here, and its agent is
told of nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.util import find_spec

from zonecp.dataplane.envoy.binary import MISSING_EXTRA, find_envoy, version_of
from zonecp.dataplane.envoy.config import SOCKET_BYTES_MAX
from zonemesh.cli.demo.mesh import INSTANCES, MESH, WEB, WEB_AGENT, Document
from zonemesh.cli.demo.ports import HOST
from zonemesh.cli.demo.story import (
    Condition,
    Row,
    StepFailedError,
    StepLeftOutError,
    Story,
    require,
    until,
)
from zonemesh.errors import UnavailableError

START_S = 60.0
"""For an agent and its Envoy on two slow cores."""

NAME = f"{WEB}.mzsvc.mesh.local"
PORT_NAME = "http"
"""By it the service's port finds those of the instances, which have different numbers here."""

PACKAGES = ("grpclib", "google.protobuf", "envoy.config")


async def start(story: Story) -> None:
    """Start web's instances, its agent and Envoy; does not wait for them."""
    story.why_no_web = await _why_not(story)
    if story.why_no_web is not None:
        return
    mesh = story.mesh
    for zone in INSTANCES:
        mesh.start_instance(zone)
    reachable = {"reachableBackends": {"refs": [_reference()]}}
    mesh.start_web_agent(_dataplane(mesh.web_port("east"), transparentProxying=reachable))
    west = _dataplane(mesh.web_port("west"))
    for plane, path, document in (
        ("west", f"dataplanes/{west['name']}", west),
        (story.leader, f"meshmultizoneservices/{WEB}", _both_zones(mesh.ports.web)),
    ):
        status = await mesh.write(plane, "PUT", path, document)
        require(
            that=status in (200, 201), failure=f"{plane} answers {status or 'nothing'} to {path}"
        )


async def reach(story: Story) -> str:
    if story.why_no_web is not None:
        raise StepLeftOutError(f"left out: {story.why_no_web}")
    mesh, port = story.mesh, story.mesh.ports.web
    # With its own instance or the other zone's yet to arrive, one zone alone would answer.
    await until(_whole(story), START_S, f"{WEB_AGENT} does not serve {NAME} for both zones")
    answer = await mesh.resolve(WEB, NAME)
    assert answer.address is not None
    vip = answer.address
    story.rows[WEB] = Row(WEB, answer.addresses, name=NAME)
    here = await mesh.fetch(vip, port, NAME)
    require(that=here == f"{WEB} in east", failure=f"{vip}:{port} answers {here or 'nothing'!r}")
    mesh.processes.kill(INSTANCES["east"])
    started_s = time.perf_counter()
    there = await mesh.fetch(vip, port, NAME)
    took_ms = (time.perf_counter() - started_s) * 1000
    require(
        that=there == f"{WEB} in west",
        failure=f"with east's instance killed, {vip}:{port} answers {there or 'nothing'!r}",
    )
    mesh.start_instance("east")
    story.web_url = f"http://{vip}:{port}/"
    story.figures["http"] = {"url": story.web_url, "failover_ms": round(took_ms, 1)}
    return (
        f'{vip}:{port} (needs no root) says "{here}";'
        f' with that one killed "{there}", after {took_ms:.0f} ms'
    )


async def _why_not(story: Story) -> str | None:
    """What this machine lacks, and where it comes from."""
    if sys.platform != "linux":
        return "needs Linux, where every address of 127.0.0.0/8 is the host's own"
    if not all(map(_installed, PACKAGES)):
        return MISSING_EXTRA
    socket = story.mesh.xds_socket
    if len(bytes(socket)) > SOCKET_BYTES_MAX:
        return f"{socket} is too long for a Unix socket: name a shorter directory in TMPDIR"
    try:
        await version_of(find_envoy(None, os.environ))
    except UnavailableError as error:
        return str(error)
    return None


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a parent
        return False


def _whole(story: Story) -> Condition:
    """Envoy listens at the address, and has an instance of each zone behind it."""
    mesh = story.mesh

    async def whole() -> bool:
        if not mesh.processes[WEB_AGENT].running:
            raise StepFailedError(f"{WEB_AGENT} has ended")
        found = await mesh.envoy_clusters()
        instances = [f"::{HOST}:{mesh.web_port(zone)}::" for zone in INSTANCES]
        if not all(each in found for each in instances):
            return False
        return (await mesh.resolve(WEB, NAME)).address is not None

    return whole


def _dataplane(port: int, **proxying: Document) -> Document:
    tags = {"kuma.io/service": WEB, "kuma.io/protocol": "http"}
    networking: Document = {
        "address": HOST,
        "inbound": [{"port": port, "name": PORT_NAME, "tags": tags}],
    }
    if proxying:
        networking["transparentProxying"] = proxying
    return {"type": "Dataplane", "mesh": MESH, "name": f"{WEB}-1", "networking": networking}


def _reference() -> Document:
    return {"kind": "MeshMultiZoneService", "labels": {"kuma.io/display-name": WEB}}


def _both_zones(port: int) -> Document:
    selector = {"meshService": {"matchLabels": {"kuma.io/display-name": WEB}}}
    ports = [{"port": port, "name": PORT_NAME, "appProtocol": "http"}]
    return {
        "type": "MeshMultiZoneService",
        "mesh": MESH,
        "name": WEB,
        "spec": {"selector": selector, "ports": ports},
    }
