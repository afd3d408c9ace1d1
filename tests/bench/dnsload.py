"""The agent's DNS on one core against well-known servers on the same core, by dnsperf."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench import load
from tests.bench.wire import Connection, put
from tests.bench.world import BenchMesh
from zonemesh.cli.demo.mesh import dataplane, name_in
from zonemesh.cli.demo.ports import HOST, free

SERVER_CORE, CLIENT_CORE = 0, 1
_QPS = re.compile(r"Queries per second:\s+([\d.]+)")
_LOST = re.compile(r"Queries lost:\s+(\d+)")
_LATENCY = re.compile(r"^> NOERROR \S+ \S+ ([\d.]+)$", re.MULTILINE)
_CHANGES_PER_S = 100
_STEADY_QPS = 60_000
"""Half of what one core has to answer."""
_SETTLE_S = 20.0


async def measure(mesh: BenchMesh, names: int, *, seconds: int) -> dict[str, Any]:
    """Saturation, then latency at half of it while the map changes; then the peers' saturation.

    The agent has one core for itself; its zone, dnsperf and whoever makes the changes the other,
    where the zone gives way: a dnsperf that has to wait for its turn reports that as latency.
    """
    if shutil.which("dnsperf") is None:
        raise SystemExit("dnsperf is missing: make bench-tools")
    await load.bulk(mesh, names, prefix="dns", zone="west")
    queries = mesh.directory / "queries"
    services = [name_in("west", f"dns-{number}") for number in range(names)]
    queries.write_text("".join(f"{name} A\n" for name in services))
    agent = mesh.processes["west-agent"].process.pid
    os.sched_setaffinity(agent, {SERVER_CORE})
    for other in (mesh.processes["west"].process.pid, os.getpid()):
        os.sched_setaffinity(other, {CLIENT_CORE})
    _give_way(mesh.processes["west"].process.pid)
    port = mesh.ports.west_dns
    saturated = await _best(queries, port, seconds)
    half = await _under_changes(mesh, queries, port, seconds, saturated / 2)
    steady = await _under_changes(mesh, queries, port, seconds, _STEADY_QPS)
    for process in (agent, os.getpid()):
        os.sched_setaffinity(process, set(range(os.cpu_count() or 1)))
    peers = await _peers(mesh.directory, services, queries, seconds)
    return {
        "names": names,
        "qps": round(saturated),
        "half_under_changes": half,
        "steady_under_changes": steady,
        "peers_qps": peers,
        "ratios": {name: round(saturated / qps, 2) for name, qps in peers.items()},
    }


def _give_way(pid: int) -> None:
    # A process's niceness is each thread's on Linux.
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)


async def _best(queries: Path, port: int, seconds: int) -> float:
    """The best of three: a noisy neighbour only ever makes a run slower."""
    return max([await _dnsperf(queries, port, seconds) for _ in range(3)])


async def _dnsperf(queries: Path, port: int, seconds: int) -> float:
    output = await _run(queries, port, ["-l", str(seconds), "-c", "4", "-q", "100"])
    found = _QPS.search(output)
    if found is None:
        raise RuntimeError(f"dnsperf: {output[-500:]}")
    return float(found[1])


async def _run(queries: Path, port: int, options: Sequence[str]) -> str:
    command = ["taskset", "-c", str(CLIENT_CORE), "dnsperf", "-s", HOST, "-p", str(port)]
    command += ["-d", str(queries), *options]
    # To a file: `-v` says a line per query, and whoever read them from a pipe would take from both
    # cores while the latency is measured.
    with tempfile.TemporaryFile(dir=queries.parent) as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=asyncio.subprocess.STDOUT
        )
        await process.wait()
        output.seek(0)
        return output.read().decode(errors="replace")


async def _under_changes(
    mesh: BenchMesh, queries: Path, port: int, seconds: int, rate: float
) -> dict[str, Any]:
    """Latency of single queries at a fixed rate while services come into being."""
    stop = asyncio.Event()
    changing = asyncio.ensure_future(_change(mesh, stop))
    options = ["-l", str(seconds), "-Q", str(int(rate)), "-c", "4", "-q", "100", "-v"]
    output = await _run(queries, port, options)
    stop.set()
    changes = await changing
    found = sorted(float(each) * 1000 for each in _LATENCY.findall(output))
    lost = _LOST.search(output)
    return {
        "rate": int(rate),
        "changes_per_s": round(changes / seconds),
        "samples": len(found),
        "p50_ms": round(found[len(found) // 2], 3),
        "p99_ms": round(found[int(len(found) * 0.99)], 3),
        "max_ms": round(found[-1], 3),
        "lost": int(lost[1]) if lost else 0,
    }


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


# Peers


async def _peers(
    directory: Path, names: Sequence[str], queries: Path, seconds: int
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, start in (("nsd", _nsd), ("dnsmasq", _dnsmasq)):
        if shutil.which(name) is None:
            continue
        port = free(1)[0]
        process = start(directory, names, port)
        try:
            os.sched_setaffinity(process.pid, {SERVER_CORE})
            await _until_answers(queries, port)
            found[name] = round(await _best(queries, port, seconds))
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
    return found


async def _until_answers(queries: Path, port: int) -> None:
    deadline_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline_s:
        output = await _run(queries, port, ["-n", "1", "-l", "1", "-q", "10"])
        if "NOERROR" in output and "Queries completed:    0" not in output:
            return
    raise RuntimeError("a peer does not answer")


def _nsd(directory: Path, names: Sequence[str], port: int) -> subprocess.Popen[bytes]:
    zone = directory / "mesh.local.zone"
    records = "".join(f"{name}. 60 IN A 241.0.0.1\n" for name in names)
    zone.write_text(
        f"$ORIGIN mesh.local.\n@ 60 IN SOA ns. root. 1 60 60 60 60\n@ NS ns.\n{records}"
    )
    config = directory / "nsd.conf"
    config.write_text(
        f'server:\n ip-address: {HOST}@{port}\n server-count: 1\n username: ""\n'
        f' database: ""\n zonesdir: "{directory}"\n pidfile: "{directory}/nsd.pid"\n'
        f' xfrdfile: "{directory}/xfrd"\n zonelistfile: "{directory}/zones"\n'
        " rrl-ratelimit: 0\nremote-control:\n control-enable: no\n"
        f'zone:\n name: "mesh.local"\n zonefile: "{zone}"\n'
    )
    return subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), "nsd", "-d", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _dnsmasq(directory: Path, names: Sequence[str], port: int) -> subprocess.Popen[bytes]:
    hosts = directory / "hosts"
    hosts.write_text("".join(f"241.0.0.1 {name}\n" for name in names))
    return subprocess.Popen(
        [
            "taskset", "-c", str(SERVER_CORE), "dnsmasq", "--keep-in-foreground", "--no-resolv",
            "--no-hosts", f"--addn-hosts={hosts}", f"--port={port}", f"--listen-address={HOST}",
            "--bind-interfaces", "--conf-file=/dev/null", "--local-ttl=60", "--user=root",
            f"--pid-file={directory}/dnsmasq.pid",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
