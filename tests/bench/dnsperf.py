"""dnsperf, on a core of its own, against a DNS server on another one."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zonemesh.cli.demo.ports import HOST

SERVER_CORE, CLIENT_CORE = 0, 1
_QPS = re.compile(r"Queries per second:\s+([\d.]+)")
_LOST = re.compile(r"Queries lost:\s+(\d+)")
_LATENCY = re.compile(r"^> NOERROR \S+ \S+ ([\d.]+)$", re.MULTILINE)
_SETTLE_S = 20.0


async def best(queries: Path, port: int, seconds: int) -> float:
    """The best of three: a noisy neighbour only ever makes a run slower."""
    return max([await _dnsperf(queries, port, seconds) for _ in range(3)])


async def _dnsperf(queries: Path, port: int, seconds: int) -> float:
    output = await run(queries, port, ["-l", str(seconds), "-c", "4", "-q", "100"])
    found = _QPS.search(output)
    if found is None:
        raise RuntimeError(f"dnsperf: {output[-500:]}")
    return float(found[1])


async def run(queries: Path, port: int, options: Sequence[str]) -> str:
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


async def latency(queries: Path, port: int, seconds: int, rate: float) -> dict[str, Any]:
    """Of single queries at a fixed rate."""
    options = ["-l", str(seconds), "-Q", str(int(rate)), "-c", "4", "-q", "100", "-v"]
    output = await run(queries, port, options)
    found = sorted(float(each) * 1000 for each in _LATENCY.findall(output))
    lost = _LOST.search(output)
    return {
        "rate": int(rate),
        "samples": len(found),
        "p50_ms": round(found[len(found) // 2], 3),
        "p99_ms": round(found[int(len(found) * 0.99)], 3),
        "max_ms": round(found[-1], 3),
        "lost": int(lost[1]) if lost else 0,
    }


async def until_answers(queries: Path, port: int) -> None:
    deadline_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline_s:
        output = await run(queries, port, ["-n", "1", "-l", "1", "-q", "10"])
        if "NOERROR" in output and "Queries completed:    0" not in output:
            return
    raise RuntimeError("a server does not answer")
