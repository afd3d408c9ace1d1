"""The mesh that chaos is done to: every process reaches its Redis, and every agent its zone,
through a link of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.chaos.faultproxy import FaultProxy, Link
from tests.chaos.history import Down, History
from tests.chaos.redisnode import RedisNode
from tests.e2e.mesh import (
    AGENTS,
    GLOBALS,
    HOST,
    PLANES,
    ZONES,
    Mesh,
    Process,
    eventually,
    program,
    request,
)
from tests.ports import free

GRACE = "0s"
"""Of services without a Dataplane: what is removed is gone at once."""


class Stage(Mesh):
    servers = 2
    """Redis servers; the first is the master."""

    def __init__(self, directory: Path, *, global_config: Mapping[str, Any] | None = None) -> None:
        self.proxy = FaultProxy()
        self.links: dict[str, Link] = {}
        ports = free(self.servers + 4)
        self.spare_ports = ports[self.servers :]
        self.nodes = tuple(
            RedisNode(directory / f"redis-{number}", port)
            for number, port in enumerate(ports[: self.servers], 1)
        )
        self.node = self.nodes[0]
        """Which is the truth now, as far as the links lead there."""
        self.history = History()
        self._down_since_s: dict[str, float] = {}
        super().__init__(
            directory,
            global_config=global_config,
            zone_config={"meshService": {"deletionGracePeriod": GRACE}},
        )

    def link(self, name: str, port: int) -> int:
        """The port of a link to a server's."""
        self.links[name] = self.proxy.link(name, port)
        return self.links[name].port

    def config(self, name: str) -> dict[str, Any]:
        found = super().config(name)
        found["redis"]["url"] = f"redis://{HOST}:{self.link(name, self.node.port)}/0"
        return found

    def agent_url(self, zone: str) -> str:
        return f"http://{HOST}:{self.link(f'{zone}-agent', self.ports[zone])}"

    def start_redis(self) -> None:
        self.node.start()

    def kill_redis(self) -> None:
        self.node.kill()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for node in self.nodes:
            node.kill()
        self.proxy.close()

    # What is done to it, noted

    def note(self, text: str) -> None:
        self.history.notes.append((time.monotonic(), text))

    def down(self, name: str, how: str) -> None:
        """Note that a process answers nothing from now on."""
        self.note(f"{how} {name}")
        self._down_since_s.setdefault(name, time.monotonic())

    def up(self, name: str, how: str) -> None:
        self.note(f"{how} {name}")
        since_s = self._down_since_s.pop(name)
        self.history.downs.append(Down(name, since_s, time.monotonic()))

    def kill(self, *names: str) -> None:
        """SIGKILL."""
        for name in names:
            self.down(name, "kill -9")
            self[name].kill()

    def back(self, *names: str) -> None:
        """Start what was killed, and wait until it is ready."""
        for name in names:
            self[name].start()
        for name in names:
            eventually(lambda name=name: self._answers(name), 30, self, name)  # type: ignore[misc]
            self.up(name, "started")

    def _answers(self, name: str) -> bool:
        """An agent serves from its disk before it is ready."""
        if name in AGENTS:
            return self.ask_diagnostics(name, "/healthy")[0] == 200
        return self.is_ready(name)

    @contextmanager
    def paused(self, *names: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        for name in names:
            self.down(name, "SIGSTOP")
            self[name].pause()
        try:
            yield
        finally:
            for name in names:
                self[name].resume()
                self.up(name, "SIGCONT")

    @contextmanager
    def faulty(self, what: str, *names: str) -> Iterator[list[Link]]:
        """Links that are healed at the end."""
        self.note(f"{what}: {', '.join(names)}")
        links = [self.links[name] for name in names]
        try:
            yield links
        finally:
            for link in links:
                link.heal()
            self.note(f"healed: {', '.join(names)}")

    def lead_to(self, node: RedisNode, *names: str) -> None:
        """Let processes (all, if none is named) find this Redis where theirs was."""
        for name in names or PLANES:
            self.links[name].lead_to(node.port)
        if not names:
            self.node = node

    def second(self, zone: str) -> Process:
        """Another control plane under a zone's name, with data and ports of its own."""
        name = f"second-{zone}"
        rest, diagnostics = self.spare_ports[:2]
        config = {
            **super().config(zone),
            "dataDir": str(self.directory / f"{name}.data"),
            "apiServer": {"http": {"port": rest}},
            "diagnostics": {"port": diagnostics},
            "multizone": {"zone": {"name": zone}},
            "redis": {"url": f"redis://{HOST}:{self.node.port}/0"},
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [program("zonecp"), "run", "-c", str(path)]
        return Process(name, command, self.directory / f"{name}.log")

    def standby(self) -> str:
        leader = self.leading()
        return next(name for name in GLOBALS if name != leader)

    # Asking more

    def services(self, plane: str, prefix: str) -> dict[str, str] | None:
        """Addresses by `<zone>/<name>` of the services whose names contain a text; None where
        nobody answers.
        """
        path = f"/meshes/default/meshservices?size=1000&name={prefix}"
        found: dict[str, str] = {}
        for offset in range(0, 100_000, 1_000):
            status, body = request(self.ports[plane], "GET", f"{path}&offset={offset}")
            if status != 200:
                return None
            for item in body["items"]:
                labels, vips = item["labels"], item["status"]["vips"]
                if vips:
                    key = f"{labels['kuma.io/zone']}/{labels['kuma.io/display-name']}"
                    found[key] = vips[0]["ip"]
            if body.get("next") is None:
                break
        return found


def other(zone: str) -> str:
    return next(name for name in ZONES if name != zone)
