"""A zone that stood alone joins a mesh, and the mesh's pools are changed, with real processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network

import pytest
from click.testing import CliRunner, Result

from tests.e2e.mesh import GLOBALS, HOST, PLANES, Mesh, at_home, eventually, watching
from zonemesh.cli.main import cli

OTHER = "10.64.0.0/10"


def join(mesh: Mesh, *arguments: str, planes: Sequence[str] = ("west", "g1")) -> Result:
    """`zonemesh doctor --join` of these control planes."""
    urls = [each for name in planes for each in ("--url", f"http://{HOST}:{mesh.ports[name]}")]
    return CliRunner().invoke(cli, ["doctor", "--join", *urls, *arguments], catch_exceptions=False)


@pytest.mark.timeout(120)
def test_a_zone_joins_with_its_addresses_and_its_agent_answers_all_the_while(mesh: Mesh) -> None:
    redis = mesh.config("west")["redis"]
    mesh.configure("west", redis=None)
    mesh.start_all()
    for service in ("one", "two"):
        mesh.register("west", service)
    names = [at_home("one"), at_home("two"), "one.mesh", "two.mesh"]
    before = {name: mesh.resolves("west", name) for name in names}
    assert mesh.vips("g1") == {}

    told = join(mesh)
    document = json.loads(join(mesh, "-o", "json", planes=("g1", "west")).stdout)
    with watching(mesh, {("west", name): address for name, address in before.items()}):
        assert mesh["west"].stop() == 0
        mesh.configure("west", redis=redis)
        mesh.start("west")
        held = {name.partition(".")[0]: before[name] for name in names[:2]}
        for plane in PLANES:
            eventually(partial(mesh.holds, plane, held), 15, mesh, plane)

    assert told.exit_code == 0, told.output
    assert "0 lost" in told.stdout
    assert "Services that get another address: 0." in told.stdout
    assert (document["lost"], document["vips"], document["names"]) == ([], [], [])
    for name in ("one.mesh", "two.mesh"):
        assert mesh.resolves("east", name) == before[name]
    assert sum(mesh.metric("west", "zonemesh_vips_renumbered_total").values()) == 0


@pytest.mark.timeout(120)
def test_what_only_global_may_have_is_named_before_a_zone_joins(mesh: Mesh) -> None:
    mesh.configure("west", redis=None)
    mesh.start()
    path = "/meshes/default/meshmultizoneservices/all"
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "one"}}},
        "ports": [{"port": 80}],
    }
    body = {"type": "MeshMultiZoneService", "mesh": "default", "name": "all", "spec": spec}
    mesh.put("west", path, body)

    told = join(mesh)
    alone, globals_only = join(mesh, planes=["west"]), join(mesh, planes=GLOBALS)

    assert told.exit_code == 1
    assert "MeshMultiZoneService default/all" in told.stdout
    for wrong in (alone, globals_only):
        assert wrong.exit_code == 2
        assert "needs --url twice: of the zone that stands alone, and of a global" in wrong.stderr


@pytest.mark.timeout(120)
def test_a_pool_is_changed_by_restarting_one_global_after_the_other(mesh: Mesh) -> None:
    mesh.start_all()
    addresses = mesh.registered("one", "two")

    for name in GLOBALS:
        assert mesh[name].stop() == 0
        mesh.configure(name, ipam={"meshService": {"cidr": [OTHER]}})
        mesh.start(name)
    eventually(lambda: mesh.state("g1")["settings"]["pools"]["MeshService"] == [OTHER], 15, mesh)
    eventually(lambda: sum(mesh.metric("west", "zonemesh_vips_draining").values()) == 2, 15, mesh)
    eventually(lambda: sum(mesh.metric("west", "zonemesh_vips_free").values()) > 0, 15, mesh)

    late = mesh.registered("late")
    assert IPv4Address(late["late"]) in IPv4Network(OTHER)
    for plane in PLANES:
        eventually(partial(mesh.holds, plane, addresses | late), 8, mesh, plane)
    assert mesh.state("g1")["settings"]["draining"] == {"MeshService": 2}
    assert mesh.state("g1")["settings"]["differs"] == {}
