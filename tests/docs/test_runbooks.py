"""The worst case of the operations manual, which cannot be tried out in production."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.mesh import GLOBALS, PLANES, Mesh, eventually


@pytest.mark.redis
def test_with_nothing_left_but_the_zones_disks_every_address_comes_back(
    tmp_path: Path,
) -> None:
    mesh = Mesh(tmp_path)
    try:
        mesh.start()
        for number in range(10):
            mesh.register("west", f"w{number}")
            mesh.register("east", f"e{number}")
        eventually(lambda: all(len(mesh.vips(plane)) == 20 for plane in PLANES))
        before = mesh.vips("g1")

        for plane in PLANES:
            mesh[plane].stop()
        mesh.kill_redis()
        shutil.rmtree(tmp_path / "redis")
        for name in GLOBALS:
            mesh.forget(name)
        mesh.start_redis()
        mesh.start("g1")
        mesh.start("west", "east", "g2")

        eventually(lambda: all(mesh.vips(plane) == before for plane in PLANES), 30)
    finally:
        mesh.close()
