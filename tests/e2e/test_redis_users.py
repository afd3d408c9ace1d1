"""Real control planes, each with its own user of the sample; Redis lets nobody else in."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import (
    PLANES,
    ZONES,
    Mesh,
    elsewhere,
    eventually,
    run,
    watching,
)
from tests.redis_deployments import Node, server, users_file
from tests.redis_server import needs_redis
from zonemesh.log.redis import RedisStore


class UsersMesh(Mesh):
    """A mesh on a Redis of the test's; zone west has its own log there too, and password files."""

    def __init__(self, directory: Path, node: Node) -> None:
        self.node = node
        for user in ("west", "west-own"):
            (directory / f"{user}.password").write_text(f"change-me-{user}\n")
        self._directory = directory
        super().__init__(directory)

    def config(self, name: str) -> dict[str, Any]:
        found = super().config(name)
        if name == "west":
            return {**found, "redis": self.from_file("west"), "log": self.from_file("west-own")}
        return {**found, "redis": {"url": self.node.url(name if name in ZONES else "global")}}

    def from_file(self, user: str) -> dict[str, str]:
        return {
            "url": f"redis://{user}@{self.node.address}",
            "passwordPath": str(self._directory / f"{user}.password"),
        }

    def start_redis(self) -> None:
        """It runs."""

    def said(self, name: str, event: str) -> list[dict[str, Any]]:
        lines = self[name].log.read_text().splitlines()
        return [json.loads(line) for line in lines if f'"{event}"' in line]


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
    users_mesh.start_all()
    address = users_mesh.registered("shop")["shop"]

    assert users_mesh.resolves("east", elsewhere("shop"), timeout_s=15) == address
    for name in PLANES:
        said = users_mesh[name].log.read_text()
        assert "denies" not in said, name
        assert "NOPERM" not in said, name
        settings = ["log.url", "redis.url"] if name == "west" else ["redis.url"]
        weak = [(one["setting"], one["code"]) for one in users_mesh.said(name, "redis_weakness")]
        assert sorted(weak) == [(setting, "config_refused") for setting in settings], name
    found = {one["setting"]: one["user"] for one in users_mesh.said("west", "redis_found")}
    assert found == {"redis.url": "west", "log.url": "west-own"}


@pytest.mark.timeout(90)
def test_a_zones_passwords_are_changed_while_it_runs(users_mesh: UsersMesh, tmp_path: Path) -> None:
    users_mesh.start_all()
    before = users_mesh.registered("before")

    with watching(users_mesh, {("east", elsewhere("before")): before["before"]}):
        for user in ("west", "west-own"):
            command(users_mesh.node, "ACL", "SETUSER", user, ">new-password")
            (tmp_path / f"{user}.password").write_text("new-password\n")
            command(users_mesh.node, "ACL", "SETUSER", user, f"<change-me-{user}")
            # Connections that stand are not cut by that: a reboot of the server would.
            command(users_mesh.node, "CLIENT", "KILL", "USER", user)
        after = users_mesh.registered("after")

    assert users_mesh.resolves("east", elsewhere("after"), timeout_s=15) == after["after"]
    assert "WRONGPASS" not in users_mesh["west"].log.read_text()
    eventually(lambda: users_mesh.is_ready("west"), 10, users_mesh, "west")
    assert users_mesh["west"].stop() == 0
    left = run("zonecp", "leave", "-c", str(tmp_path / "west.yaml"))
    assert (left.returncode, left.stderr) == (0, "")


@pytest.mark.timeout(90)
def test_an_operators_commands_read_a_zones_own_log_with_its_users_password_file(
    users_mesh: UsersMesh, tmp_path: Path
) -> None:
    users_mesh.start("g1", "west")
    users_mesh.register("west", "shop")
    at = users_mesh.from_file("west-own")
    redis = ("--redis", at["url"], "--password-path", at["passwordPath"])
    url = f"http://127.0.0.1:{users_mesh.ports['west']}"
    saved = str(tmp_path / "west.zms")

    shown = run("zonemesh", "log", "zone:west:own", *redis, "--after", "0-0", "--changes")
    snapshot = run("zonemesh", "snapshot", "save", *redis, "--zone", "west", "--output", saved)
    told = run("zonemesh", "doctor", "--url", url, *redis, "--zone", "west", "-o", "json")
    foreign = run("zonemesh", "doctor", "--url", url, *redis, "--zone", "east", "-o", "json")

    assert "MeshService default/west//shop" in shown.stdout, shown.stderr
    assert "saved log zone:west:own" in snapshot.stderr
    assert [(each["check"], each["what"]) for each in faults(told)] == [
        (
            "redis",
            "appendfsync and min-replicas-to-write could not be checked: CONFIG GET is refused",
        ),
        ("replicas", f"1 zonecp of zone west live: {url}"),
    ]
    needs, _, denied = faults(foreign)
    assert "user west-own may not do what the own log of zone east needs" in needs["what"]
    assert "its ACL denies this user" in denied["what"]


def faults(told: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [each for each in json.loads(told.stdout)["findings"] if each["level"] != "ok"]


def command(node: Node, *words: str) -> None:
    async def send() -> None:
        admin = RedisStore(node.url("admin"))
        await admin.commands.call(*words)
        await admin.close()

    asyncio.run(send())
