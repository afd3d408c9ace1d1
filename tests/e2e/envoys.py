"""A mesh whose agents run real Envoys, without root: its addresses are in 127.0.0.0/8.

Both agents are on one host, so that only one of them can listen on an address: east's Envoy makes
the connections, and west's agent has none.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socketserver
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.mesh import HOST, Mesh, Process, dataplane, environment, eventually, program, request
from tests.ports import free
from zonecp.dataplane.envoy.binary import find_envoy
from zonemesh.errors import UnavailableError

POOLS = {
    "meshService": {"cidr": "127.241.0.0/16"},
    "meshExternalService": {"cidr": "127.242.0.0/16"},
    "meshMultiZoneService": {"cidr": "127.243.0.0/16"},
}
LEGACY = {"CIDR": "127.240.0.0/16", "serviceVipPort": 18080}
AGENT = "east-agent"


class EnvoyMesh(Mesh):
    """East's agent has an Envoy; `envoy` says what of its configuration is special."""

    def __init__(
        self,
        directory: Path,
        *,
        envoy: Mapping[str, Any] | None = None,
        dataplane: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
        dns: Mapping[str, Any] | None = None,
        loopback: bool = True,
    ) -> None:
        """Without `loopback`, VIPs are where they are by default."""
        [self.admin] = free(1)
        super().__init__(
            directory,
            global_config={"ipam": POOLS, "dnsServer": LEGACY} if loopback else {},
            zone_config={"dnsServer": LEGACY} if loopback else {},
            agent_config={
                "east": {
                    "envoy": {"enabled": True, "concurrency": 1, **(envoy or {})},
                    "dataplane": {"adminPort": self.admin, **(dataplane or {})},
                    "dataplaneRuntime": {**(runtime or {})},
                    "dns": {**(dns or {})},
                }
            },
        )

    def close(self) -> None:
        super().close()
        self.kill_envoy()

    # Envoy

    def envoy_pid(self) -> int | None:
        try:
            pid, _ = json.loads((self.data_dir(AGENT) / "envoy.pid").read_text())
        except (OSError, ValueError):
            return None
        return int(pid)

    def kill_envoy(self) -> None:
        if (pid := self.envoy_pid()) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What the agent says of Envoy."""
        _, document = self.ask_diagnostics(AGENT, "/status")
        found: dict[str, Any] = document["envoy"]
        return found

    def ask_admin(self, path: str) -> Any:
        return request(self.admin, "GET", path)[1]

    def config_dump(self, resource: str) -> list[Any]:
        found = self.ask_admin(f"/config_dump?resource={resource}")
        configs: list[Any] = (found or {}).get("configs", [])
        return configs

    def listeners(self) -> set[str]:
        """Names of those that Envoy serves, without what drains."""
        dumped = self.config_dump("dynamic_listeners")
        return {each["name"] for each in dumped if "active_state" in each}

    def clusters(self) -> set[str]:
        dumped = self.config_dump("dynamic_active_clusters")
        return {each["cluster"]["name"] for each in dumped}

    def run_envoy_with(self, command: str) -> Process:
        """An Envoy of nobody's, not started yet, with what `zonedp envoy` prints."""
        zonedp = [program("zonedp"), "envoy", command, "-c"]
        text = subprocess.check_output(
            [*zonedp, str(self.directory / f"{AGENT}.yaml")], env=environment()
        )
        path = self.directory / f"{command}.yaml"
        path.write_bytes(text)
        binary = str(find_envoy(None, os.environ))
        arguments = [binary, "-c", str(path), "--disable-hot-restart", "--concurrency", "1"]
        return Process("envoy", arguments, self.directory / "own-envoy.log")

    # Connecting

    def put_workload(
        self, zone: str, service: str, port: int, *, protocol: str = "http", address: str = HOST
    ) -> None:
        self.put_dataplane(zone, workload(service, port, protocol=protocol, address=address))

    def fetch(self, name: str, port: int) -> str | None:
        """What a client gets that asks a zone's agent for a name and then connects to it."""
        addresses = self.resolve("east", name)
        return get(addresses[0], port) if addresses else None

    def fetches(self, name: str, port: int, expected: str, timeout_s: float = 10) -> str:
        """Wait until that is as expected; the address."""
        eventually(lambda: self.fetch(name, port) == expected, timeout_s, self, AGENT)
        return self.resolve("east", name)[0]


def get(address: str, port: int) -> str | None:
    """The body of an answer with status 200; a short word on anything else."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
    except ConnectionRefusedError:
        return "refused"
    except (OSError, http.client.HTTPException):
        return "broken"
    finally:
        connection.close()
    return body if response.status == 200 else f"status {response.status}"


class Threaded:
    """A server on threads of its own, until it is closed."""

    def __init__(self, server: socketserver.ThreadingTCPServer | ThreadingHTTPServer) -> None:
        self._server = server
        server.daemon_threads = True
        self.port = int(server.server_address[1])
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class Backend(Threaded):
    """A workload: answers every GET with its name."""

    def __init__(self, name: str, port: int = 0, *, address: str = HOST) -> None:
        text = name.encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(ThreadingHTTPServer((address, port), Handler))


def workload(
    service: str,
    port: int,
    *,
    protocol: str = "http",
    name: str | None = None,
    address: str = HOST,
) -> dict[str, Any]:
    found = dataplane(service, address, name=name)
    tags = {"kuma.io/service": service, "kuma.io/protocol": protocol}
    found["networking"]["inbound"] = [{"port": port, "name": "main", "tags": tags}]
    return found


def multi_zone(name: str, protocol: str) -> dict[str, Any]:
    return {
        "type": "MeshMultiZoneService",
        "mesh": "default",
        "name": name,
        "spec": {
            "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": name}}},
            "ports": [{"port": 18081, "name": "main", "appProtocol": protocol}],
        },
    }


def has_envoy() -> bool:
    try:
        find_envoy(None, os.environ)
    except UnavailableError:
        return False
    return True
