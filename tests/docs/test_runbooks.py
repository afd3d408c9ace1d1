"""What the operations manual says is to be done, done in a mesh of real processes."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, section
from tests.e2e.mesh import (
    GLOBALS,
    HOST,
    PLANES,
    Mesh,
    elsewhere,
    eventually,
    run,
    watching,
)
from tests.redis_server import running

OPERATIONS = ROOT / "docs" / "operations.md"


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with closing(Mesh(tmp_path)) as found:
        yield found


@pytest.mark.redis
def test_with_nothing_left_but_the_zones_disks_every_address_comes_back(mesh: Mesh) -> None:
    """The worst case, which cannot be tried out in production."""
    mesh.start()
    for number in range(10):
        mesh.register("west", f"w{number}")
        mesh.register("east", f"e{number}")
    eventually(lambda: all(len(mesh.vips(plane)) == 20 for plane in PLANES))
    before = mesh.vips("g1")

    for plane in PLANES:
        mesh[plane].stop()
    for name in GLOBALS:
        mesh.forget(name)
    mesh.empty_redis()
    mesh.start("g1")
    mesh.start("west", "east", "g2")

    eventually(lambda: all(mesh.vips(plane) == before for plane in PLANES), 30)


@pytest.mark.timeout(150)
def test_a_mesh_moves_to_another_redis_without_a_loss(mesh: Mesh, tmp_path: Path) -> None:
    mesh.start_all()
    kept = mesh.registered("before")
    incarnation = mesh.state("g1")["cursor"].split(".")[0]
    (tmp_path / "new").mkdir()
    with running(tmp_path / "new") as new:
        ports = {"old-redis": mesh.redis_port, "new-redis": new.port}
        text = section(OPERATIONS, "### Moving to another Redis")
        replicate, attached, pause, level, promote = (
            partial(redis_cli, ports, *shlex.split(line))
            for line in re.findall(r"^redis-cli -h (.*)$", text, re.MULTILINE)
        )
        redis_cli(ports, "old-redis", "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        with watching(mesh, {("east", elsewhere("before")): kept["before"]}):
            assert replicate() == "+OK"
            eventually(lambda: "master_link_status:up" in attached(), 20)
            assert pause() == "+OK"
            eventually(lambda: in_step(level()), 20)
            assert promote() == "+OK"
            mesh.redis_port = new.port
            for name in PLANES:
                mesh[name].stop()
                mesh.configure(name, **mesh.config(name))
                mesh.start(name)
            mesh.kill_redis()
            kept |= mesh.registered("after")

        for name in PLANES:
            eventually(partial(mesh.holds, name, kept), 15, mesh, name)
        assert mesh.state("g1")["cursor"].split(".")[0] == incarnation
        for name in PLANES:
            assert set(mesh.metric(name, "zonemesh_resyncs_total").values()) <= {0.0}, name
        for process in mesh.processes.values():
            process.kill()


def redis_cli(ports: dict[str, int], host: str, *words: str) -> str:
    """An answer in the protocol's own words; servers are called as in the manual."""
    here = {"old-redis": HOST, "6379": str(ports["old-redis"])}
    line = " ".join(here.get(word, word) for word in words)
    with socket.create_connection((HOST, ports[host]), timeout=10) as connection:
        connection.sendall(line.encode() + b"\r\n")
        return connection.recv(65_536).decode().strip()


def in_step(told: str) -> bool:
    offsets = re.findall(r"^(?:slave0:.*,offset=|master_repl_offset:)(\d+)", told, re.MULTILINE)
    return len(offsets) == 2 and len(set(offsets)) == 1


@pytest.mark.timeout(120)
def test_a_zone_of_another_name_takes_a_zones_place_and_the_old_one_is_deleted(mesh: Mesh) -> None:
    mesh.start_all()
    address = mesh.registered("shop")["shop"]
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "shop"}}},
        "ports": [{"port": 8080}],
    }
    body = {"type": "MeshMultiZoneService", "mesh": "default", "name": "shop", "spec": spec}
    mesh.put("g1", "/meshes/default/meshmultizoneservices/shop", body)
    stay = {name: mesh.resolves("east", name) for name in ("shop.mesh", "shop.mzsvc.mesh.local")}
    mesh.add_zone("north")
    mesh.start("north")

    with watching(mesh, {("east", name): at for name, at in stay.items()}):
        mesh.register("north", "shop")
        moved = mesh.resolves("east", elsewhere("shop", "north"))
        mesh.remove("west", "shop")
        online, _ = mesh.call("g1", "DELETE", "/zones/west")
        assert mesh["west"].stop() == 0
        left = run("zonecp", "leave", "-c", str(mesh.directory / "west.yaml"))
        eventually(lambda: mesh.call("g1", "DELETE", "/zones/west")[0] == 200, 10, mesh, "g1")
        eventually(lambda: mesh.resolve("east", elsewhere("shop")) == [], 10, mesh, "east")

    assert (online, left.returncode) == (400, 0), left.stderr
    assert moved != address
    for name in (*GLOBALS, "east", "north"):
        eventually(lambda name=name: set(mesh.vips(name)) == {"north/shop"}, 10, mesh, name)  # type: ignore[misc]
    assert set(mesh.state("g1")["zones"]) == {"east", "north"}
