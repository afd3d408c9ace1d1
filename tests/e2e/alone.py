"""A zone without a global and agents with Dataplanes, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.mesh import HOST, START_S, Process, eventually, program, request
from tests.ports import free

DOCUMENT = "/meshes/default/dataplanes/redis-1"


class Alone:
    """Zone west, and agents by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = iter(free(14))
        self.port = next(self._numbers)
        self._diagnostics = {"west": next(self._numbers)}
        self.processes: dict[str, Process] = {}
        config = {
            "multizone": {"zone": {"name": "west"}},
            "dataDir": str(directory / "west.data"),
            "apiServer": {"http": {"port": self.port}},
            "diagnostics": {"port": self._diagnostics["west"]},
        }
        self._add("west", "zonecp", config)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def add_agent(self, name: str, document: dict[str, Any], **config: Any) -> Process:
        """An agent that is not started yet, of a Dataplane; keys as in its configuration."""
        path = self.directory / f"{name}.dataplane.yaml"
        path.write_text(yaml.safe_dump(document))
        self._diagnostics[name] = next(self._numbers)
        base: dict[str, Any] = {
            "controlPlane": {"url": self.url, "silence": "2s"},
            "dataplane": {"readinessPort": self._diagnostics[name], "drainTime": "0s"},
            "dataplaneRuntime": {"resourcePath": str(path)},
            "dns": {"proxyPort": next(self._numbers), "upstreams": [f"{HOST}:9"]},
            "dataDir": str(self.directory / f"{name}.data"),
        }
        for key, value in config.items():
            base[key] = {**base.get(key, {}), **value}
        return self._add(name, "zonedp", base)

    def _add(self, name: str, script: str, config: dict[str, Any]) -> Process:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [program(script), "run", "-c", str(path)]
        self.processes[name] = Process(name, command, self.directory / f"{name}.log")
        return self.processes[name]

    def start(self, *names: str) -> None:
        for name in names:
            self.processes[name].start()
        for name in names:
            eventually(partial(self.is_ready, name), START_S)

    def is_ready(self, name: str) -> bool:
        return request(self._diagnostics[name], "GET", "/ready")[0] == 200

    def metrics(self, name: str) -> str:
        return str(request(self._diagnostics[name], "GET", "/metrics")[1])

    def log(self, name: str) -> str:
        with suppress(OSError):
            return self.processes[name].log.read_text(errors="replace")
        return ""

    def get(self, path: str) -> Any:
        """A document of the zone; None if there is none."""
        status, body = request(self.port, "GET", path)
        return body if status == 200 else None

    def dataplane(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.get(DOCUMENT)
        return found

    def inbound_states(self) -> list[str | None]:
        """Of the Dataplane; empty if it is not registered."""
        found = self.dataplane() or {"networking": {"inbound": []}}
        return [inbound.get("state") for inbound in found["networking"]["inbound"]]

    def service_state(self) -> str | None:
        found = self.get("/meshes/default/meshservices/redis")
        return None if found is None else found["spec"].get("state")

    def endpoints_ready(self) -> list[bool]:
        """Of the service's outbound in the map."""
        found = self.get("/meshes/default/_vips") or {"outbounds": []}
        return [
            endpoint["ready"]
            for outbound in found["outbounds"]
            for endpoint in outbound["endpoints"]
            if outbound["kind"] == "MeshService"
        ]

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()


@contextmanager
def alone(directory: Path) -> Iterator[Alone]:
    with closing(Alone(directory)) as found:
        found.start("west")
        yield found


def redis(port: int = 6379, **inbound: Any) -> dict[str, Any]:
    """A Dataplane of service redis."""
    return {
        "type": "Dataplane",
        "mesh": "default",
        "name": "redis-1",
        "networking": {
            "address": HOST,
            "inbound": [{"port": port, "tags": {"kuma.io/service": "redis"}, **inbound}],
        },
    }
