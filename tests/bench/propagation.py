"""PUT in west → right DNS answer at an agent, open loop: late samples delay no others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tests.bench.wire import Connection, Questions, put, question
from tests.bench.world import PLANES, BenchMesh
from zonemesh.cli.demo.mesh import AGENTS, dataplane, name_in

_ASK_FIRST_S = {"west": 0.001, "east": 0.0025}
"""No change is through earlier; one that were would be reported as this, by zone."""
_ASK_EVERY_S = 0.0005
"""Asking more often takes the cores from what is measured: an answer costs what a change does."""
_GIVE_UP_S = 10.0
_CONNECTIONS = 16
_WARM_UP = 100


async def measure(
    mesh: BenchMesh, zone: str, *, rate: float, samples: int, prefix: str = "new"
) -> dict[str, Any]:
    """Register new services at a rate and time each until the zone's agent answers its name."""
    questions = await mesh.questions(zone)
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        idle.put_nowait(await Connection.open(mesh.urls["west"]))
    taken_s: list[float] = []
    everyone = (*PLANES, *AGENTS, "redis")
    cpu_s = {name: mesh.cpu_s(name) for name in everyone}
    try:
        async with asyncio.TaskGroup() as group:
            begin_s = time.perf_counter()
            for number in range(_WARM_UP + samples):
                due_s = begin_s + number / rate
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                service = f"{prefix}-{zone}-{number}"
                results = taken_s if number >= _WARM_UP else []
                group.create_task(_sample(idle, questions, zone, service, results))
    finally:
        questions.close()
        while not idle.empty():
            idle.get_nowait().close()
    changes = _WARM_UP + samples
    return {
        "rate": rate,
        **summary(taken_s),
        "cpu_us_per_change": {
            name: round(1e6 * (mesh.cpu_s(name) - cpu_s[name]) / changes) for name in everyone
        },
    }


async def _sample(
    idle: asyncio.Queue[Connection],
    questions: Questions,
    zone: str,
    service: str,
    results: list[float],
) -> None:
    request = put(dataplane(service, "10.0.0.1", 8080))
    asked = question(name_in(zone, service))
    connection = await idle.get()
    start_s = time.perf_counter()
    writing = asyncio.ensure_future(connection.send(request))
    await asyncio.sleep(_ASK_FIRST_S[zone])
    while await questions.ask(asked) is None:
        if time.perf_counter() - start_s > _GIVE_UP_S:
            raise RuntimeError(f"{service} does not resolve in {zone}")
        await asyncio.sleep(_ASK_EVERY_S)
    results.append(time.perf_counter() - start_s)
    status = await writing
    idle.put_nowait(connection)
    if status != 201:
        raise RuntimeError(f"PUT of {service}: {status}")


def summary(taken_s: Sequence[float]) -> dict[str, Any]:
    """Percentiles in milliseconds."""
    ordered = sorted(taken_s)

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {
        "samples": len(ordered),
        "p50_ms": at(0.5),
        "p90_ms": at(0.9),
        "p99_ms": at(0.99),
        "max_ms": round(1000 * ordered[-1], 2),
    }
