"""A mesh whose Redis is a master and two replicas that three sentinels watch, and what is done to
those. Processes ask the sentinels where the master is and reach it without a link in between.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault, Scene
from tests.chaos.redisnode import RedisNode, command
from tests.chaos.stage import Stage
from tests.e2e.mesh import HOST, eventually
from tests.ports import free
from tests.redis_deployments import Node

NAME = "master"
REPLICATES = ("masteruser", "replica"), ("masterauth", "of-replicas")
DOWN_MS = 2_000
"""A sentinel pings each second at most: a shorter time and it deposes whom it has just made."""
AGREE_S = 30.0
DEMOTE_S = 45.0
"""A former master that is back is left alone by sentinels for 8 s at least."""


class SentinelStage(Stage):
    servers = 3

    def __init__(self, directory: Path, *, global_config: Mapping[str, Any] | None = None) -> None:
        self.sentinels = [
            Node(directory / f"sentinel-{number}", port, sentinel=True)
            for number, port in enumerate(free(3), 1)
        ]
        super().__init__(directory, global_config=global_config)

    def config(self, name: str) -> dict[str, Any]:
        found = super().config(name)
        addresses = ",".join(one.address for one in self.sentinels)
        found["redis"]["url"] = f"redis+sentinel://{addresses}/{NAME}/0"
        return found

    def start_redis(self) -> None:
        for node in self.nodes:
            self.start_server(node)
        for node in self.nodes[1:]:
            node.command("REPLICAOF", HOST, str(self.node.port))
        self.in_step()  # a sentinel asks a master for its replicas each 10 s only
        for one in self.sentinels:
            one.directory.mkdir()
            lines = (
                f"bind {HOST}",
                f"port {one.port}",
                f"dir {one.directory.resolve()}",
                f"sentinel monitor {NAME} {HOST} {self.node.port} 2",
                f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
                f"sentinel failover-timeout {NAME} 3000",
            )
            (one.directory / "conf").write_text("\n".join(lines) + "\n")
            one.start()
        for one in self.sentinels:
            eventually(partial(self._knows_all, one), AGREE_S)

    def start_server(self, node: RedisNode) -> None:
        node.start(dict(REPLICATES))
        (_, user), (_, password) = REPLICATES
        node.command("ACL", "SETUSER", user, "on", f">{password}", "~*", "&*", "+@all")

    def kill_redis(self) -> None:
        for one in self.sentinels:
            one.kill()
        super().kill_redis()

    def close(self) -> None:
        for one in self.sentinels:
            one.kill()
        super().close()

    def in_step(self) -> None:
        """Wait until all servers but the master follow it."""
        others = sum(node.running for node in self.nodes) - 1
        eventually(
            lambda: self.node.command("INFO", "replication").count(b"state=online") == others,
            AGREE_S,
        )

    def _knows_all(self, one: Node) -> bool:
        facts = command(one.port, "SENTINEL", "MASTER", NAME).split(b"\r\n")[1:]
        told = dict(zip(facts[1::4], facts[3::4], strict=False))
        return (told.get(b"num-slaves"), told.get(b"num-other-sentinels")) == (b"2", b"2")

    def promoted(self) -> RedisNode:
        """Wait until all sentinels name one server that runs as master; it is the truth then."""
        old = self.node
        found = eventually(partial(self._agreed, old), AGREE_S)
        assert found is not None
        self.node = found
        self.note(f"{self.node.port} was promoted, it was {old.port}")
        return self.node

    def _agreed(self, old: RedisNode) -> RedisNode | None:
        named = {_port(command(one.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME))
                 for one in self.sentinels}  # fmt: skip
        for node in self.nodes:
            if node is not old and node.running and named == {node.port}:
                return node if _role(node) == b"master" else None
        return None

    def rejoin(self, node: RedisNode) -> None:
        """Have a server that was the master follow the one that is."""
        if not node.running:
            self.start_server(node)
            node.command("REPLICAOF", HOST, str(self.node.port))
        eventually(lambda: _role(node) == b"slave", DEMOTE_S)
        self.note(f"{node.port} follows {self.node.port}")
        self.in_step()
        for one in self.sentinels:
            eventually(partial(self._knows_all, one), AGREE_S)


def _role(node: RedisNode) -> bytes:
    try:
        _, _, rest = node.command("INFO", "replication").partition(b"role:")
    except OSError:
        return b""  # who is demoted cuts its connections
    return rest.partition(b"\r\n")[0]


def _port(reply: bytes) -> int:
    """Of `*2 $n host $m port`."""
    lines = reply.split(b"\r\n")
    return int(lines[4]) if len(lines) > 4 and lines[4].isdigit() else 0


SENTINEL_FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    SENTINEL_FAULTS[function.__name__] = function
    return function


def _stage(scene: Scene) -> SentinelStage:
    assert isinstance(scene.stage, SentinelStage)
    return scene.stage


def _kill_master(scene: Scene, *, lossy: bool) -> None:
    stage = _stage(scene)
    old = stage.node
    stage.note(f"kill -9 {old.port}, the master")
    old.kill()
    stage.promoted()
    scene.answers_again(lossy=lossy)
    stage.rejoin(old)


@fault
def master_killed(scene: Scene) -> None:
    """What it had not handed on yet goes with it: next to nothing, so nobody need notice."""
    _kill_master(scene, lossy=False)


@fault
def master_killed_whose_replicas_are_behind(scene: Scene) -> None:
    stage = _stage(scene)
    stage.note("no replica is served")
    stage.node.command("ACL", "SETUSER", "replica", "off")
    stage.node.command("CLIENT", "KILL", "TYPE", "replica")
    scene.hold()
    _kill_master(scene, lossy=True)


@fault
def master_paused(scene: Scene) -> None:
    """For so long that another is made; it is a master still when it wakes, until it is demoted."""
    stage = _stage(scene)
    old = stage.node
    stage.note(f"SIGSTOP {old.port}, the master")
    old.pause()
    try:
        stage.promoted()
    finally:
        old.resume()
    stage.note(f"SIGCONT {old.port}: two masters")
    stage.rejoin(old)
    scene.answers_again(lossy=False)


@fault
def sentinels_killed_in_turn(scene: Scene) -> None:
    stage = _stage(scene)
    for one in scene.random.sample(stage.sentinels, len(stage.sentinels)):
        stage.note(f"kill -9 sentinel {one.port}")
        one.kill()
        scene.hold(0.5)
        one.start()


@fault
def sentinels_paused_in_turn(scene: Scene) -> None:
    stage = _stage(scene)
    for one in scene.random.sample(stage.sentinels, len(stage.sentinels)):
        assert one.process is not None
        stage.note(f"SIGSTOP sentinel {one.port}")
        one.process.send_signal(signal.SIGSTOP)
        scene.hold(0.5)
        one.process.send_signal(signal.SIGCONT)


@fault
def sentinels_all_killed(scene: Scene) -> None:
    """The master is well: whoever knows it goes on."""
    stage = _stage(scene)
    for one in stage.sentinels:
        one.kill()
    stage.note("kill -9 all sentinels")
    scene.hold()
    for one in stage.sentinels:
        one.start()
