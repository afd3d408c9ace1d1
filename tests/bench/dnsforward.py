"""Outside names through the agent, against asking the same upstream directly."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import yaml

from tests.bench import dnspeers, dnsperf
from tests.bench.dnsperf import CLIENT_CORE, SERVER_CORE
from zonemesh.cli.demo.ports import HOST, free
from zonemesh.cli.demo.processes import Processes

_RATE = 2_000
_NAMES = 50_000


async def measure(*, seconds: int) -> dict[str, Any]:
    """Rates of the agent on its core: nothing kept, then everything kept; and its latency.

    The upstream is NSD, on the client's core.
    """
    binary = dnspeers.find("nsd")
    if binary is None:
        raise SystemExit("nsd is missing: make bench-tools")
    found: dict[str, Any] = {}
    with Processes() as processes:
        directory = processes.directory
        names = [f"n{number}.mesh.local" for number in range(_NAMES)]
        queries = directory / "queries"
        queries.write_text("".join(f"{name} A\n" for name in names))
        upstream, port, diagnostics = free(3)
        server = dnspeers.nsd(binary, directory, names, upstream)
        try:
            os.sched_setaffinity(server.pid, {CLIENT_CORE})
            await dnsperf.until_answers(queries, upstream)
            direct = await dnsperf.latency(queries, upstream, seconds, _RATE)
            for kind, entries in (("asked", 0), ("kept", 2 * _NAMES)):
                agent = f"agent-{kind}"
                config = {
                    "controlPlane": {"url": f"http://{HOST}:1"},  # nobody: it forwards everything
                    "dataplane": {"name": "bench", "readinessPort": diagnostics},
                    "dns": {"proxyPort": port, "upstreams": [f"{HOST}:{upstream}"],
                            "domains": ["mesh"], "cacheEntries": entries},
                    "dataDir": str(directory / agent),
                }  # fmt: skip
                path = directory / f"{agent}.yaml"
                path.write_text(yaml.safe_dump(config))
                child = processes.start(agent, "zonedp", "run", "--config", str(path))
                os.sched_setaffinity(child.process.pid, {SERVER_CORE})
                await dnsperf.until_answers(queries, port)
                found[f"{kind}_qps"] = round(await dnsperf.best(queries, port, seconds))
                if kind == "asked":
                    found["at_rate"] = await dnsperf.latency(queries, port, seconds, _RATE)
                await processes.stop([[agent]])
        finally:
            server.terminate()
            await asyncio.to_thread(server.wait)
    found["direct"] = direct
    found["p99_overhead_ms"] = round(found["at_rate"]["p99_ms"] - direct["p99_ms"], 3)
    return found
