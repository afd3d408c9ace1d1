"""Everything of global is lost, and an old snapshot of its log is restored."""

from __future__ import annotations

import json
import subprocess
from functools import partial

import pytest

from tests.e2e.mesh import GLOBALS, PLANES, Mesh, elsewhere, eventually, in_east, run, watching

GENERATOR = {
    "type": "HostnameGenerator",
    "name": "short",
    "spec": {
        "selector": {"meshService": {"matchLabels": {}}},
        "template": "{{ .DisplayName }}.short",
    },
}


def snapshot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("zonemesh", "snapshot", *arguments)


@pytest.mark.timeout(150)
def test_an_old_snapshot_restores_global_and_moves_no_address(mesh: Mesh) -> None:
    mesh.start_all()
    url = f"redis://127.0.0.1:{mesh.redis_port}/0"
    path = str(mesh.directory / "global.zms")
    mesh.put("g1", "/hostnamegenerators/short", GENERATOR)
    old = mesh.registered("old", "gone")

    done = snapshot("save", "--redis", url, "--output", path)
    assert done.returncode == 0, done.stderr
    assert mesh.call("g1", "DELETE", "/hostnamegenerators/short")[0] in (200, 204)
    new = mesh.registered("new")
    mesh.remove("west", "gone")
    eventually(lambda: "west/gone" not in mesh.vips("g1"), 10, mesh, "g1")
    kept = {"old": old["old"], **new}
    with watching(mesh, in_east(kept)):
        refused = snapshot("restore", path, "--redis", url)
        assert refused.returncode == 1
        assert "globalcp runs at" in refused.stderr
        for name in GLOBALS:
            mesh[name].kill()
            mesh.forget(name)
        mesh.empty_redis()
        restored = snapshot("restore", path, "--redis", url)
        assert restored.returncode == 0, restored.stderr
        mesh.start(*GLOBALS)
        eventually(lambda: mesh.registers("west", "later"), 20, mesh, "west")
        kept["later"] = mesh.resolves("east", elsewhere("later"), timeout_s=40)

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, kept), 20, mesh, plane)
        assert "west/gone" not in mesh.vips(plane)
    assert mesh.call("g1", "GET", "/hostnamegenerators/short")[0] == 200
    told = json.loads(snapshot("inspect", path, "-o", "json").stdout)
    assert told["zones"] == ["east", "west"]


@pytest.mark.timeout(120)
def test_a_zones_old_snapshot_makes_it_take_over_what_it_has_published(mesh: Mesh) -> None:
    mesh.start_all()
    old = mesh.registered("old")
    path = str(mesh.directory / "west.zms")
    directory = str(mesh.data_dir("west"))

    done = snapshot("save", "--data-dir", directory, "--output", path)
    assert done.returncode == 0, done.stderr
    kept = {**old, **mesh.registered("new")}
    with watching(mesh, in_east(kept)):
        refused = snapshot("restore", path, "--data-dir", directory)
        assert refused.returncode == 2
        assert "in use by another process" in refused.stderr
        mesh["west"].stop()
        mesh.forget("west")
        restored = snapshot("restore", path, "--data-dir", directory)
        assert restored.returncode == 0, restored.stderr
        mesh.start("west")

    for plane in PLANES:
        eventually(partial(mesh.holds, plane, kept), 20, mesh, plane)
