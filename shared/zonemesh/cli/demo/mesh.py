"""The demo's mesh: two globals, zones west and east, an agent in each, and how they are asked."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from zonemesh.cli.demo import workload
from zonemesh.cli.demo.dns import Answer, Resolver
from zonemesh.cli.demo.ports import HOST, NOBODY, Ports
from zonemesh.cli.demo.processes import Processes

MESH = "default"
GLOBALS = ("global-1", "global-2")
ZONES = ("west", "east")
AGENTS = ("west-agent", "east-agent")
SERVICE = "redis"
"""The real one, in west."""

WEB = "web"
"""The one that has an instance in each zone, and one name for both."""

WEB_AGENT = "web-agent"
"""Beside east's instance of it, with an Envoy."""

INSTANCES = {"west": "web-west", "east": "web-east"}
WEB_POOL = "127.243.0.0/16"
"""VIPs of services of several zones: an Envoy may listen there without root, as every address of
127.0.0.0/8 is a Linux host's own. By default they are in 243.0.0.0/8."""

GRACE = "2s"
"""How long a service outlives its last Dataplane here; an hour by default."""

REQUEST_S = 5.0
STOP_ORDER = ((*AGENTS, WEB_AGENT, *ZONES, *GLOBALS), ("redis", "service", *INSTANCES.values()))

Document = dict[str, Any]


class Mesh:
    """Starts the processes, and speaks to them as an operator would: REST and DNS."""

    def __init__(self, processes: Processes, ports: Ports) -> None:
        self.processes = processes
        self.ports = ports
        self.urls = {
            "global-1": f"http://{HOST}:{ports.global_1}",
            "global-2": f"http://{HOST}:{ports.global_2}",
            "west": f"http://{HOST}:{ports.west}",
            "east": f"http://{HOST}:{ports.east}",
        }
        self._diagnostics = {
            "global-1": ports.global_1_diagnostics,
            "global-2": ports.global_2_diagnostics,
            "west": ports.west_diagnostics,
            "east": ports.east_diagnostics,
            "west-agent": ports.west_agent_diagnostics,
            "east-agent": ports.east_agent_diagnostics,
            WEB_AGENT: ports.web_agent_diagnostics,
        }
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S))
        self._resolvers: dict[str, Resolver] = {}

    async def close(self) -> None:
        for resolver in self._resolvers.values():
            resolver.close()
        await self.session.close()

    # Starting

    def start_global(self, name: str) -> None:
        self._start_plane(name, "globalcp", {"ipam": {"meshMultiZoneService": {"cidr": WEB_POOL}}})

    def start_zone(self, name: str) -> None:
        zone = {
            "multizone": {"zone": {"name": name}},
            "meshService": {"deletionGracePeriod": GRACE},
        }
        self._start_plane(name, "zonecp", zone)

    def _start_plane(self, name: str, script: str, more: Mapping[str, Any]) -> None:
        port = int(self.urls[name].rpartition(":")[2])
        config = {
            "redis": {"url": f"redis://{HOST}:{self.ports.redis}/0"},
            "dataDir": str(self.directory / name),
            "apiServer": {"http": {"address": HOST, "port": port}},
            "diagnostics": {"address": HOST, "port": self._diagnostics[name]},
            **more,
        }
        path = self._write(f"{name}.yaml", config)
        self.processes.start(name, script, "run", "--config-file", str(path))

    def start_agent(self, zone: str, dns_port: int, registers: Mapping[str, Any] | None) -> None:
        """An agent that registers a Dataplane, or only serves names where there is none."""
        self._start_agent(f"{zone}-agent", zone, dns_port, registers, {})

    def start_web_agent(self, registers: Mapping[str, Any]) -> None:
        """East's agent with an Envoy."""
        more = {
            "envoy": {
                "enabled": True,
                "concurrency": 1,
                "ipFamilyMode": "ipv4",
                "socket": str(self.xds_socket),
            },
            "dataplane": {"adminPort": self.ports.web_envoy_admin},
        }
        self._start_agent(WEB_AGENT, "east", self.ports.web_dns, registers, more)

    def _start_agent(
        self,
        name: str,
        zone: str,
        dns_port: int,
        registers: Mapping[str, Any] | None,
        more: Mapping[str, Any],
    ) -> None:
        config: Document = {
            **more,
            "controlPlane": {"url": self.urls[zone]},
            "dataplane": {
                "mesh": MESH,
                "readinessPort": self._diagnostics[name],
                **more.get("dataplane", {}),
            },
            # Nobody listens there: what is not in the mesh is refused, and nothing leaves this
            # machine. Without it the demo would trouble the system's resolvers.
            "dns": {"proxyPort": dns_port, "upstreams": [f"{HOST}:{NOBODY}"]},
            "dataDir": str(self.directory / name),
        }
        if registers is None:
            config["dataplane"]["name"] = f"{zone}-client-1"
        else:
            path = self._write(f"{registers['name']}.yaml", registers)
            config["dataplaneRuntime"] = {"resourcePath": str(path)}
            config["dataplane"]["drainTime"] = "0s"
        path = self._write(f"{name}.yaml", config)
        self.processes.start(name, "zonedp", "run", "--config-file", str(path))

    def start_instance(self, zone: str) -> None:
        """The workload behind web in a zone."""
        script, port = workload.__file__, self.web_port(zone)
        text = f"{WEB} in {zone}"
        self.processes.start_script(INSTANCES[zone], script, HOST, str(port), text)

    def web_port(self, zone: str) -> int:
        return self.ports.web_west if zone == "west" else self.ports.web_east

    @property
    def directory(self) -> Path:
        return self.processes.directory

    @property
    def xds_socket(self) -> Path:
        """Not deeper: a Unix socket's path is short, and a temporary directory's may be long."""
        return self.directory / "xds"

    def _write(self, name: str, document: Mapping[str, Any]) -> Path:
        path = self.directory / name
        path.write_text(yaml.safe_dump(dict(document), sort_keys=False))
        return path

    # Asking

    def diagnostics_url(self, name: str) -> str:
        return f"http://{HOST}:{self._diagnostics[name]}"

    async def not_ready(self, name: str) -> str | None:
        """What a process says that it is waiting for; None once it is ready."""
        try:
            async with self.session.get(f"{self.diagnostics_url(name)}/ready") as response:
                checks = (await response.json())["checks"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError):
            return "it does not answer yet"
        return "; ".join(why for why in checks.values() if why != "ok") or None

    async def get(self, plane: str, path: str) -> Document | None:
        """A document; None if it is not there, or nobody answers."""
        try:
            async with self.session.get(f"{self.urls[plane]}{path}") as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def state(self, plane: str) -> Document | None:
        return await self.get(plane, "/_state")

    async def leader(self) -> str | None:
        """Which global leads."""
        for name in GLOBALS:
            state = await self.state(name)
            if state is not None and state["leader"]:
                return name
        return None

    async def vips(self, plane: str) -> dict[str, tuple[str, ...]]:
        """Services' addresses as a control plane holds them, by zone and display name.

        The first thousand: what is loaded beyond is compared by sample.
        """
        listed = await self.get(plane, f"/meshes/{MESH}/meshservices?size=1000") or {"items": []}
        return {
            f"{labels.get('kuma.io/zone', '')}/{labels['kuma.io/display-name']}": tuple(
                vip["ip"] for vip in item["status"]["vips"]
            )
            for item in listed["items"]
            if (labels := item["labels"])
        }

    async def fetch(self, address: str, port: int, host: str) -> str | None:
        """What a GET of / is answered; None if it is not answered."""
        try:
            async with self.session.get(
                f"http://{address}:{port}/", headers={"Host": host}
            ) as response:
                text = (await response.text()).strip()
                return text if response.status == 200 else f"status {response.status}: {text}"
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def envoy_clusters(self) -> str:
        """What web's Envoy says of its clusters; nothing if it does not answer."""
        url = f"http://{HOST}:{self.ports.web_envoy_admin}/clusters"
        try:
            async with self.session.get(url) as response:
                return await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return ""

    async def endpoint(self, zone: str, address: str) -> tuple[str, int] | None:
        """Where a zone's data planes are sent for a virtual address."""
        seen = await self.get(zone, f"/meshes/{MESH}/_vips") or {"outbounds": []}
        for outbound in seen["outbounds"]:
            if address in outbound["vips"] and outbound["endpoints"]:
                first = outbound["endpoints"][0]
                return first["address"], first["port"]
        return None

    def dns_port(self, agent: str) -> int:
        ports = self.ports
        return {"west": ports.west_dns, "east": ports.east_dns, WEB: ports.web_dns}[agent]

    async def resolve(self, zone: str, name: str, kind: str = "A") -> Answer:
        """Ask a zone's agent, or web's."""
        resolver = self._resolvers.get(zone)
        if resolver is None:
            resolver = self._resolvers[zone] = await Resolver.connect(HOST, self.dns_port(zone))
        return await resolver.ask(name, kind)

    # Writing

    async def register(self, service: str, port: int = 8080) -> int:
        """PUT a Dataplane of a service to west; the status."""
        document = dataplane(service, "10.0.0.1", port)
        return await self.write("west", "PUT", f"dataplanes/{service}-1", document)

    async def remove(self, service: str) -> int:
        return await self.write("west", "DELETE", f"dataplanes/{service}-1", None)

    async def write(self, plane: str, method: str, path: str, body: Document | None) -> int:
        """The status with which a control plane answers a write; 0 if it does not answer."""
        url = f"{self.urls[plane]}/meshes/{MESH}/{path}"
        try:
            async with self.session.request(method, url, json=body) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0


def dataplane(service: str, address: str, port: int) -> Document:
    return {
        "type": "Dataplane",
        "mesh": MESH,
        "name": f"{service}-1",
        "networking": {
            "address": address,
            "inbound": [
                {"port": port, "tags": {"kuma.io/service": service, "kuma.io/protocol": "tcp"}}
            ],
        },
    }


def line(document: Document) -> bytes:
    """As a line of `POST /_bulk`."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def name_in(zone: str, service: str) -> str:
    """What a service of west is called in a zone."""
    return f"{service}.svc.mesh.local" if zone == "west" else f"{service}.svc.west.mesh.local"


def ping(address: str, port: int) -> bytes:
    """Speak to the real service (it is a redis-server) where its endpoint says it is."""
    with socket.create_connection((address, port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(64)
