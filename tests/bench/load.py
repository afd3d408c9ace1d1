"""Loading many services: one by one over a few connections, and through the bulk endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.bench.wire import Connection, put, question
from tests.bench.world import PLANES, BenchMesh
from zonemesh.cli.demo.mesh import dataplane, line, name_in

_LINES = 1_000
_LOOK_S = 0.05
_GIVE_UP_S = 600.0
_ASKED_AT_ONCE = 200
NAMES_EACH = 2
"""Of a service elsewhere: its zone's, and its legacy one."""


async def bulk(
    mesh: BenchMesh,
    count: int,
    *,
    prefix: str = "svc",
    zone: str = "east",
    names_each: int = NAMES_EACH,
) -> float:
    """Load services through west's `POST /_bulk`; seconds until all resolve in a zone."""
    before = await mesh.names(zone)
    start_s = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=_GIVE_UP_S)
    url = f"{mesh.urls['west']}/_bulk"
    refused = 0
    async with mesh.session.post(url, data=_lines(count, prefix), timeout=timeout) as response:
        async for answer in response.content:
            refused += b'"status":201' not in answer and b'"status":200' not in answer
    if refused:
        raise RuntimeError(f"{refused} of {count} documents were refused")
    await _until_names(mesh, zone, before + names_each * count)
    taken_s = time.perf_counter() - start_s
    await _all_answered(mesh, zone, [f"{prefix}-{number}" for number in range(count)])
    return taken_s


async def _lines(count: int, prefix: str) -> AsyncIterator[bytes]:
    for start in range(0, count, _LINES):
        yield b"".join(
            line(dataplane(f"{prefix}-{number}", _address(number), 8080))
            for number in range(start, min(start + _LINES, count))
        )


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


async def _until_names(mesh: BenchMesh, zone: str, count: int) -> None:
    deadline_s = time.perf_counter() + _GIVE_UP_S
    while await mesh.names(zone) < count:
        if time.perf_counter() > deadline_s:
            raise RuntimeError(f"{zone} does not reach {count} names")
        await asyncio.sleep(_LOOK_S)


async def _all_answered(mesh: BenchMesh, zone: str, services: list[str]) -> None:
    """Ask for every single name."""
    questions = await mesh.questions(zone)
    try:
        for start in range(0, len(services), _ASKED_AT_ONCE):
            part = services[start : start + _ASKED_AT_ONCE]
            asked = [question(name_in(zone, service)) for service in part]
            answers = await asyncio.gather(*map(questions.ask, asked))
            for service, answer in zip(part, answers, strict=True):
                if answer is None:
                    raise RuntimeError(f"{service} does not resolve in {zone}")
    finally:
        questions.close()


async def one_by_one(mesh: BenchMesh, count: int, connections: int) -> dict[str, Any]:
    """PUT services over keep-alive connections; seconds until all resolve in east."""
    requests = [put(dataplane(f"single-{n}", _address(n), 8080)) for n in range(count)]
    before = await mesh.names("east")
    opened = [await Connection.open(mesh.urls["west"]) for _ in range(connections)]

    async def work(number: int) -> None:
        for request in requests[number::connections]:
            status = await opened[number].send(request)
            if status != 201:
                raise RuntimeError(f"PUT: {status}")

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(work(number))
    written_s = time.perf_counter() - start_s
    await _until_names(mesh, "east", before + NAMES_EACH * count)
    taken_s = time.perf_counter() - start_s
    await _all_answered(mesh, "east", [f"single-{n}" for n in range(count)])
    for connection in opened:
        connection.close()
    return {
        "services": count,
        "connections": connections,
        "written_s": round(written_s, 2),
        "resolvable_s": round(taken_s, 2),
    }


async def growth(mesh: BenchMesh, count: int) -> dict[str, Any]:
    """Bulk load into an empty mesh: time, CPU, memory and stalls of every process."""
    everyone = (*PLANES, "west-agent", "east-agent")
    base = {name: mesh.rss_bytes(name) for name in everyone}
    cpu = {name: mesh.cpu_s(name) for name in everyone}
    taken_s = await bulk(mesh, count)
    result: dict[str, Any] = {"services": count, "resolvable_s": round(taken_s, 2)}
    for name in everyone:
        metrics = await mesh.metrics(name)
        result[name] = {
            "base_mb": round(base[name] / 1e6, 1),
            "rss_mb": round(mesh.rss_bytes(name) / 1e6, 1),
            "bytes_per_service": round((mesh.rss_bytes(name) - base[name]) / count),
            "bytes_per_name": round((mesh.rss_bytes(name) - base[name]) / (NAMES_EACH * count)),
            "cpu_s": round(mesh.cpu_s(name) - cpu[name], 2),
            "stall_max_ms": round(1000 * metrics.get("zonemesh_loop_stall_max_seconds", 0.0), 1),
        }
    return result
