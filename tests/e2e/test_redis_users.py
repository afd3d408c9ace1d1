"""Real control planes, each with its own user of the sample; Redis lets nobody else in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import AGENTS, PLANES, ZONES, Mesh, elsewhere
from tests.redis_deployments import Node, server, users_file
from tests.redis_server import needs_redis


class UsersMesh(Mesh):
    """A mesh on a Redis of the test's."""

    def __init__(self, directory: Path, node: Node) -> None:
        self.node = node
        super().__init__(directory)

    def config(self, name: str) -> dict[str, Any]:
        user = name if name in ZONES else "global"
        return {**super().config(name), "redis": {"url": self.node.url(user)}}

    def start_redis(self) -> None:
        """It runs."""


@pytest.fixture
def users_mesh(tmp_path: Path) -> Iterator[UsersMesh]:
    needs_redis(7)
    with server(tmp_path / "node", ("aclfile", str(users_file(tmp_path)))) as node:
        found = UsersMesh(tmp_path, node)
        try:
            yield found
        finally:
            found.close()


@pytest.mark.timeout(90)
def test_a_mesh_works_with_a_user_for_each_control_plane_and_none_is_refused(
    users_mesh: UsersMesh,
) -> None:
    users_mesh.start()
    users_mesh.start(*AGENTS)
    address = users_mesh.registered("shop")["shop"]

    assert users_mesh.resolves("east", elsewhere("shop"), timeout_s=15) == address
    for name in PLANES:
        said = users_mesh[name].log.read_text()
        assert "denies" not in said, name
        assert "NOPERM" not in said, name
        weak = [json.loads(line)["code"] for line in said.splitlines() if "redis_weakness" in line]
        assert weak == ["config_refused"], name
