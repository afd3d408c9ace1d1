"""A mesh to measure: the demo's processes, with what a benchmark needs to read from them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.bench.wire import Questions
from zonemesh.cli.demo.mesh import GLOBALS, STOP_ORDER, ZONES, Mesh
from zonemesh.cli.demo.ports import HOST, Ports, free
from zonemesh.cli.demo.processes import Processes, last_words

READY_S = 30.0
PLANES = (*GLOBALS, *ZONES)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def give_way(pid: int) -> None:
    """The lowest priority for a process. On Linux, niceness is each thread's."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


class BenchMesh(Mesh):
    """The demo's mesh, its agents without upstream resolvers: an unknown name is refused at once,
    and asking until it is known costs no time-outs.
    """

    def start_agent(self, zone: str, dns_port: int, dataplane: Mapping[str, Any] | None) -> None:
        name = f"{zone}-agent"
        nowhere = self.directory / "resolv.conf"
        nowhere.write_text("# no resolvers\n")
        config = {
            "controlPlane": {"url": self.urls[zone]},
            "dataplane": {
                "name": f"{zone}-client-1",
                "readinessPort": self._diagnostics[name],
            },
            "dns": {"proxyPort": dns_port, "resolvConf": str(nowhere)},
            "dataDir": str(self.directory / name),
        }
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        self.processes.start(name, "zonedp", "run", "--config", str(path))

    async def start(self) -> None:
        await self.processes.start_redis("redis", self.ports.redis)
        for name in GLOBALS:
            self.start_global(name)
        for name in ZONES:
            self.start_zone(name)
        self.start_agent("west", self.ports.west_dns, None)
        self.start_agent("east", self.ports.east_dns, None)
        for name in (*PLANES, "west-agent", "east-agent"):
            await self.until_ready(name)

    async def start_alone(self) -> None:
        """West without a global, and its agent: what a measurement of one agent needs."""
        port = int(self.urls["west"].rpartition(":")[2])
        config = {
            "multizone": {"zone": {"name": "west"}},
            "dataDir": str(self.directory / "west"),
            "apiServer": {"http": {"port": port}},
            "diagnostics": {"port": self._diagnostics["west"]},
        }
        path = self._write("west.yaml", config)
        self.processes.start("west", "zonecp", "run", "--config", str(path))
        self.start_agent("west", self.ports.west_dns, None)
        for name in ("west", "west-agent"):
            await self.until_ready(name)

    def add_zone(self, name: str) -> None:
        """A further zone, without an agent."""
        rest, diagnostics = free(2)
        self.urls[name] = f"http://{HOST}:{rest}"
        self._diagnostics[name] = diagnostics
        self.start_zone(name)

    async def until_ready(self, name: str) -> None:
        deadline_s = time.monotonic() + READY_S
        while (why := await self.not_ready(name)) is not None:
            if time.monotonic() > deadline_s:
                lines = "\n".join(last_words(self.directory / f"{name}.log"))
                raise SystemExit(f"{name} is not ready: {why}\n{lines}")
            await asyncio.sleep(0.05)

    async def names(self, zone: str) -> int:
        """How many names a zone's agent holds."""
        return int((await self.metrics(f"{zone}-agent")).get("zonedp_dns_names", 0))

    async def metrics(self, name: str) -> dict[str, float]:
        """A process's metrics that have no labels."""
        url = f"http://{HOST}:{self._diagnostics[name]}/metrics"
        async with self.session.get(url) as response:
            text = await response.text()
        found = {}
        for line in text.splitlines():
            if not line.startswith("#") and "{" not in line:
                key, _, value = line.partition(" ")
                found[key] = float(value)
        return found

    def rss_bytes(self, name: str) -> int:
        pid = self.processes[name].process.pid
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * _PAGE_BYTES

    def cpu_s(self, name: str) -> float:
        pid = self.processes[name].process.pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    async def questions(self, zone: str) -> Questions:
        port = self.ports.west_dns if zone == "west" else self.ports.east_dns
        return await Questions.connect(HOST, port)


@contextlib.asynccontextmanager
async def running(*, alone: bool = False) -> AsyncGenerator[BenchMesh]:
    """A mesh (or one zone alone) that is ready, on free ports; gone afterwards."""
    with Processes() as processes:
        mesh = BenchMesh(processes, Ports.auto())
        try:
            await (mesh.start_alone() if alone else mesh.start())
            yield mesh
        finally:
            await processes.stop(STOP_ORDER)
            await mesh.close()
