"""The agent's DNS on one core against well-known servers on the same core, by dnsperf."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tests.bench import dnspeers, dnsperf, load
from tests.bench.dnsperf import CLIENT_CORE, SERVER_CORE
from tests.bench.wire import Connection, put
from tests.bench.world import BenchMesh, give_way
from zonemesh.cli.demo.mesh import dataplane, name_in

_CHANGES_PER_S = 100
_STEADY_QPS = 60_000
"""Half of what one core has to answer."""
_CACHE_S = 3.0
"""Until the map is on disk: encoding it is not what serving it takes."""


async def measure(mesh: BenchMesh, names: int, *, seconds: int) -> dict[str, Any]:
    """Saturation, then latency at half of it while the map changes; then the peers' saturation.

    The agent has one core for itself; its zone, dnsperf and whoever makes the changes the other,
    where the zone gives way: a dnsperf that has to wait for its turn reports that as latency.
    """
    if shutil.which("dnsperf") is None:
        raise SystemExit("dnsperf is missing: make bench-tools")
    empty = mesh.rss_bytes("west-agent")
    await load.bulk(mesh, names, prefix="dns", zone="west")
    await asyncio.sleep(_CACHE_S)
    loaded, held = mesh.rss_bytes("west-agent"), await mesh.names("west")
    queries = mesh.directory / "queries"
    services = [name_in("west", f"dns-{number}") for number in range(names)]
    queries.write_text("".join(f"{name} A\n" for name in services))
    agent = mesh.processes["west-agent"].process.pid
    os.sched_setaffinity(agent, {SERVER_CORE})
    for other in (mesh.processes["west"].process.pid, os.getpid()):
        os.sched_setaffinity(other, {CLIENT_CORE})
    give_way(mesh.processes["west"].process.pid)
    port = mesh.ports.west_dns
    saturated = await dnsperf.best(queries, port, seconds)
    half = await _under_changes(mesh, queries, port, seconds, saturated / 2)
    steady = await _under_changes(mesh, queries, port, seconds, _STEADY_QPS)
    for process in (agent, os.getpid()):
        os.sched_setaffinity(process, set(range(os.cpu_count() or 1)))
    peers = await dnspeers.measure(mesh.directory, services, queries, seconds)
    return {
        "names": names,
        "qps": round(saturated),
        "rss_mb": {"empty": round(empty / 1e6, 1), "loaded": round(loaded / 1e6, 1)},
        "rss_bytes_per_name": round((loaded - empty) / held),
        "half_under_changes": half,
        "steady_under_changes": steady,
        "peers_qps": peers,
        "ratios": {name: round(saturated / qps, 2) for name, qps in peers.items()},
    }


async def _under_changes(
    mesh: BenchMesh, queries: Path, port: int, seconds: int, rate: float
) -> dict[str, Any]:
    """Latency of single queries at a fixed rate while services come into being."""
    stop = asyncio.Event()
    changing = asyncio.ensure_future(_change(mesh, stop))
    found = await dnsperf.latency(queries, port, seconds, rate)
    stop.set()
    return {"changes_per_s": round(await changing / seconds), **found}


async def _change(mesh: BenchMesh, stop: asyncio.Event) -> int:
    connection = await Connection.open(mesh.urls["west"])
    begin_s = time.perf_counter()
    number = 0
    while not stop.is_set():
        await connection.send(put(dataplane(f"change-{number}", "10.0.0.1", 8080)))
        number += 1
        due_s = begin_s + number / _CHANGES_PER_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    connection.close()
    return number
