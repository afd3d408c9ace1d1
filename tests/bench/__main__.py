"""`make bench`: run the stages, print a table, write JSON.

python -m tests.bench [--only propagation,bulk] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import (
    api,
    connect,
    dnsforward,
    dnsload,
    failover,
    firstuse,
    flood,
    herd,
    load,
    propagation,
)
from tests.bench.world import running

Result = dict[str, Any]
_TARGETS = {
    "propagation east p50_ms": 5.0,
    "propagation east p99_ms": 25.0,
    "propagation west p50_ms": 3.0,
    "one_by_one resolvable_s": 5.0,
    "bulk 100000 resolvable_s": 45.0,
    "flood p99_shift_percent": 20.0,
    "failover SIGKILL max_s": 3.0,
    "failover SIGTERM max_s": 0.1,
    "dns 10000 half_under_changes p99_ms": 1.0,
    "dns 100000 half_under_changes p99_ms": 1.0,
    "dns 10000 rss_mb empty": 60.0,
    "dns 100000 rss_bytes_per_name": 600.0,
    "forward p99_overhead_ms": 1.0,
    "connect 100 connected p50_ms": 50.0,
    "connect 1000 connected p50_ms": 300.0,
    "connect 1000 agent_ms": 30.0,
    "first_use 100 answered p50_ms": 10.0,
    "api get p50_ms": 1.0,
    "api page_of_1000 p50_ms": 15.0,
    "api generator names_in_place_s": 3.0,
    "api generator writes p99_ms": 100.0,
}


async def _propagation(quick: bool) -> Result:
    east, west, loaded = (500, 200, 1_000) if quick else (10_000, 2_000, 10_000)
    async with running() as mesh:
        await load.bulk(mesh, loaded, prefix="loaded")
        return {
            "loaded": loaded,
            "west": await propagation.measure(mesh, "west", rate=100, samples=west),
            "east": await propagation.measure(mesh, "east", rate=100, samples=east),
        }


async def _one_by_one(quick: bool) -> Result:
    async with running() as mesh:
        return await load.one_by_one(mesh, 500 if quick else 5_000, 8)


async def _bulk(quick: bool) -> Result:
    result = {}
    for count in (1_000, 5_000) if quick else (1_000, 10_000, 100_000):
        async with running() as mesh:
            result[str(count)] = await load.growth(mesh, count)
    return result


async def _failover(quick: bool) -> Result:
    times = 2 if quick else 5
    async with running() as mesh:
        return {
            how.name: await failover.measure(mesh, how, times)
            for how in (signal.SIGKILL, signal.SIGTERM)
        }


async def _flood(quick: bool) -> Result:
    loaded, samples = (500, 200) if quick else (10_000, 5_000)
    async with running() as mesh:
        await load.bulk(mesh, loaded, prefix="loaded")
        return await flood.measure(mesh, rate=50, samples=samples)


async def _herd(quick: bool) -> Result:
    loaded, agents = (500, 50) if quick else (10_000, 1_000)
    async with running(alone=True) as mesh:
        await load.bulk(mesh, loaded, prefix="loaded", zone="west")
        return await herd.measure(mesh, agents, rate=5, seconds=3 if quick else 20)


async def _dns(quick: bool) -> Result:
    result = {}
    for names in (1_000,) if quick else (10_000, 100_000):
        async with running(alone=True) as mesh:
            result[str(names)] = await dnsload.measure(mesh, names, seconds=2 if quick else 6)
    return result


async def _forward(quick: bool) -> Result:
    return await dnsforward.measure(seconds=2 if quick else 6)


async def _api(quick: bool) -> Result:
    async with running(alone=True) as mesh:
        resources, requests = (4_000, 500) if quick else (100_000, 10_000)
        return await api.measure(mesh, resources, requests=requests)


async def _connect(quick: bool) -> Result:
    sizes = (10,) if quick else (100, 1_000)
    return {
        str(count): await asyncio.to_thread(connect.measure, count, samples=5 if quick else 30)
        for count in sizes
    }


async def _first_use(quick: bool) -> Result:
    count, samples = (10, 5) if quick else (100, 100)
    return {str(count): await asyncio.to_thread(firstuse.measure, count, samples=samples)}


_STAGES: dict[str, Callable[[bool], Coroutine[Any, Any, Result]]] = {
    "propagation": _propagation,
    "one_by_one": _one_by_one,
    "bulk": _bulk,
    "flood": _flood,
    "herd": _herd,
    "failover": _failover,
    "dns": _dns,
    "forward": _forward,
    "api": _api,
    "connect": _connect,
    "first_use": _first_use,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default=",".join(_STAGES), help="stages, by comma")
    parser.add_argument("--quick", action="store_true", help="small numbers: does it run at all?")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    stages = options.only.split(",")
    unknown = set(stages) - set(_STAGES)
    if unknown:
        parser.error(f"unknown stages {', '.join(sorted(unknown))}; there are {', '.join(_STAGES)}")
    console = Console(stderr=True)
    results: Result = {"machine": machine(), "time": datetime.now(UTC).isoformat()}
    for stage in stages:
        console.print(f"[bold]{stage}[/] ...")
        results[stage] = uvloop.run(_STAGES[stage](options.quick))
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    Console(width=110).print(table(results))
    print(f"written to {options.json}", file=sys.stderr)


def machine() -> Result:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def table(results: Result) -> Table:
    """Every figure on one line: stage, what, value, target."""
    found = Table(title=f"{results['machine']['cores']} × {results['machine']['cpu']}")
    for column in ("figure", "value", "target"):
        found.add_column(column)
    for stage, result in results.items():
        if stage in ("machine", "time"):
            continue
        for name, value in _leaves(result, stage):
            target = _TARGETS.get(name)
            found.add_row(name, str(value), "" if target is None else f"<= {target}")
    return found


def _leaves(value: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [leaf for key, each in value.items() for leaf in _leaves(each, f"{name} {key}")]


if __name__ == "__main__":
    main()
