"""A zone that is lost, and one that leaves: real processes, asked as users and operators do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, elsewhere, eventually, run

LABEL = "zonemesh.io/lost-zone-policy"
OFFLINE_S = 2.0


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    zones = {"offlineAfter": "2s", "staleAfter": "1s"}
    with closing(Mesh(tmp_path, global_config={"zones": zones})) as found:
        yield found


def west(mesh: Mesh) -> dict[str, Any]:
    """What global says of zone west."""
    found: dict[str, Any] = mesh.get("g1", "/zones/west/_overview")["zoneInsight"]["zonemesh"]
    return found


def leave(mesh: Mesh) -> subprocess.CompletedProcess[str]:
    return run("zonecp", "leave", "-c", str(mesh.directory / "west.yaml"))


def declare(mesh: Mesh, policy: str) -> None:
    leader = mesh.leading()
    document = {"type": "Mesh", "name": "default", "labels": {LABEL: policy}}
    mesh.put(leader, "/meshes/default", document)


def unready(mesh: Mesh, service: str) -> bool:
    """Whether east has a service of west with endpoints of which none is ready."""
    found = mesh.get("east", "/meshes/default/_vips")["outbounds"]
    endpoints = [
        each["ready"]
        for outbound in found
        if (outbound["name"], outbound["zone"]) == (service, "west")
        for each in outbound["endpoints"]
    ]
    return bool(endpoints) and not any(endpoints)


@pytest.mark.timeout(120)
def test_a_lost_zone_s_services_follow_their_policy_and_are_back_as_they_were(mesh: Mesh) -> None:
    mesh.start()
    mesh.start("east-agent")
    addresses = mesh.registered("gone", "dark")
    service = mesh.get("west", "/meshes/default/meshservices/dark")
    service["labels"][LABEL] = "unavailable"
    mesh.put("west", "/meshes/default/meshservices/dark", service)
    declare(mesh, "withdraw-1s")
    mesh["west"].kill()

    eventually(lambda: west(mesh)["state"] == "offline", OFFLINE_S + 4, mesh, "g1", "g2")
    eventually(lambda: mesh.resolve("east", elsewhere("gone")) == [], 5.0, mesh, "east")
    assert mesh.resolve("east", elsewhere("dark")) == [addresses["dark"]]
    eventually(lambda: unready(mesh, "dark"), 2.0, mesh, "east")

    def table() -> str:
        return run(
            "zonemesh", "get", "zones", "-o", "wide", "--url", url(mesh), COLUMNS="200"
        ).stdout

    eventually(lambda: "1 unavailable, 1 withdrawn" in table(), 5.0, mesh, "g1")
    assert "Offline" in table()
    shown = mesh.get("g1", "/meshes/default/meshservices")["items"]
    assert {item["spec"]["state"] for item in shown} == {"Unavailable"}
    why = run("zonemesh", "explain", elsewhere("gone"), "--url", url(mesh, "east"))
    assert "zone west is lost" in why.stdout

    mesh["west"].start()
    for name, address in addresses.items():
        assert mesh.resolves("east", elsewhere(name)) == address
    eventually(lambda: not unready(mesh, "dark"), 5.0, mesh, "east")


def url(mesh: Mesh, name: str = "g1") -> str:
    return f"http://127.0.0.1:{mesh.ports[name]}"


@pytest.mark.timeout(120)
def test_a_zone_that_was_stopped_leaves_by_a_command(mesh: Mesh) -> None:
    mesh.start()
    mesh.start("east-agent")
    addresses = mesh.registered("redis")
    running = leave(mesh)
    assert running.returncode == 2
    assert "zone west is running" in running.stderr
    declare(mesh, "withdraw-0s")
    assert mesh["west"].stop() == 0

    left = leave(mesh)

    assert (left.returncode, left.stderr) == (0, "")
    assert "zone west has left" in left.stdout
    eventually(lambda: west(mesh)["state"] == "left", 2.0, mesh, "g1", "g2")
    eventually(lambda: mesh.resolve("east", elsewhere("redis")) == [], 2.0, mesh, "east")
    assert mesh.metric("g1", "zonemesh_zone_left")['zone="west"'] == 1
    withdrawn = 'effect="withdrawn",zone="west"'
    eventually(
        lambda: mesh.metric("g1", "zonemesh_zone_lost_services").get(withdrawn) == 1, 2.0, mesh
    )
    mesh["west"].start()
    assert mesh.resolves("east", elsewhere("redis")) == addresses["redis"]
    eventually(lambda: west(mesh)["state"] == "online", 5.0, mesh, "g1", "g2")
