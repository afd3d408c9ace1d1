"""The agent as it is run: a process beside a test."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.message
import dns.rcode
import yaml
from click.testing import CliRunner

from tests.patience import SLOWER
from tests.ports import free_port
from zonecp.dataplane.cli import cli

LOOPBACK = "127.0.0.1"
NAME = "redis.svc.mesh.local"
DATAPLANE = "type: Dataplane\nmesh: default\nname: redis-01\nnetworking: {address: 10.0.0.1}\n"


class Agent:
    """A `zonedp run` and its ports."""

    def __init__(self, directory: Path, zone_url: str, *flags: str) -> None:
        dns_port, diagnostics_port = free_port(), free_port()
        self.dns_port = dns_port
        self.diagnostics = f"http://{LOOPBACK}:{diagnostics_port}"
        (directory / "dp.yaml").write_text(DATAPLANE)
        self.flags = [
            f"--cp-address={zone_url}", f"--dataplane-file={directory / 'dp.yaml'}",
            f"--data-dir={directory / 'data'}", f"--dns-port={dns_port}",
            f"--diagnostics-port={diagnostics_port}", *flags,
        ]  # fmt: skip
        self.process: asyncio.subprocess.Process

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from zonecp.dataplane.cli import main; main()", "run",
            *self.flags, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield
        finally:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.communicate()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()

    async def ask(self, name: str = NAME) -> list[str] | dns.rcode.Rcode:
        message = dns.message.make_query(name, "A")
        reply = await dns.asyncquery.udp(message, LOOPBACK, port=self.dns_port, timeout=5)
        if reply.rcode() != dns.rcode.NOERROR:
            return reply.rcode()
        return [rdata.to_text() for rrset in reply.answer for rdata in rrset]

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.diagnostics + path) as response,
        ):
            return response.status, await response.text()

    async def ready(self, status: int) -> dict[str, Any]:
        async with asyncio.timeout(SLOWER * 30):
            while True:
                try:
                    found, body = await self.get("/ready")
                except aiohttp.ClientError:
                    found, body = 0, ""
                if found == status:
                    checks: dict[str, Any] = yaml.safe_load(body)["checks"]
                    return checks
                await asyncio.sleep(0.02)


def run_cli(*arguments: str, **environ: str) -> tuple[int, str]:
    """A command of zonedp in this process, to its end."""
    absent = {name: None for name in os.environ if name.startswith(("ZONEMESH_", "KUMA_"))}
    result = CliRunner().invoke(cli, arguments, env={**absent, **environ})
    return result.exit_code, result.output
