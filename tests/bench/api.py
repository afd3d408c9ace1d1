"""The REST API of one zone at 100,000 resources: reads, writes, pages, and a generator's names."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from tests.bench import load
from tests.bench.propagation import summary
from tests.bench.wire import Connection, put
from tests.bench.world import BenchMesh
from zonemesh.cli.demo.mesh import MESH, dataplane, line

_CONNECTIONS = 16
_WRITES_PER_S = 50
_GIVE_UP_S = 60.0
_POLL_S = 0.02


async def measure(mesh: BenchMesh, resources: int, *, requests: int) -> dict[str, Any]:
    """Half of the resources are Dataplanes, half the MeshServices that they make."""
    services = resources // 2
    names_each = 2  # a zone's own, and the legacy one: it is without a global
    await load.bulk(mesh, services, prefix="api", zone="west", names_each=names_each)
    item = f"/meshes/{MESH}/meshservices/api-"
    found: dict[str, Any] = {"resources": resources}
    found["get"] = await _requests(mesh, requests, lambda n: _get(f"{item}{n % services}"), 200)
    found["put"] = await _requests(mesh, requests, lambda n: put(_dataplane(f"put-{n}")), 201)
    found["bulk_per_s"] = await _bulk(mesh, requests)
    pages = f"/meshes/{MESH}/meshservices?size=1000&offset="
    one = await _one_by_one(
        mesh, [_get(f"{pages}{n * 1000}") for n in range(min(40, services // 1000))]
    )
    found["page_of_1000"] = one
    found["generator"] = await _generator(mesh)
    return found


def _dataplane(service: str) -> dict[str, Any]:
    return dataplane(service, "10.0.0.1", 8080)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: west\r\n\r\n".encode()


async def _requests(
    mesh: BenchMesh, count: int, make: Callable[[int], bytes], status: int
) -> dict[str, Any]:
    """Latency over one connection, then the rate over several at once."""
    alone = await _one_by_one(mesh, [make(number) for number in range(count // 10)], status)
    opened = [await Connection.open(mesh.urls["west"]) for _ in range(_CONNECTIONS)]
    prepared = [make(count + number) for number in range(count)]

    async def work(number: int) -> None:
        for request in prepared[number::_CONNECTIONS]:
            _require(await opened[number].send(request), status)

    start_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(_CONNECTIONS):
            group.create_task(work(number))
    taken_s = time.perf_counter() - start_s
    for connection in opened:
        connection.close()
    return {**alone, "per_s": round(count / taken_s)}


async def _one_by_one(mesh: BenchMesh, requests: list[bytes], status: int = 200) -> dict[str, Any]:
    connection = await Connection.open(mesh.urls["west"])
    taken_s = []
    for request in requests:
        start_s = time.perf_counter()
        _require(await connection.send(request), status)
        taken_s.append(time.perf_counter() - start_s)
    connection.close()
    return summary(taken_s)


def _require(found: int, status: int) -> None:
    if found != status:
        raise RuntimeError(f"status {found} instead of {status}")


async def _bulk(mesh: BenchMesh, count: int) -> int:
    body = b"".join(line(_dataplane(f"bulk-{number}")) for number in range(count))
    start_s = time.perf_counter()
    async with mesh.session.post(f"{mesh.urls['west']}/_bulk", data=body) as response:
        lines = (await response.read()).splitlines()
    if len(lines) != count or any(b'"status":201' not in each for each in lines):
        raise RuntimeError("the bulk was not taken")
    return round(count / (time.perf_counter() - start_s))


async def _generator(mesh: BenchMesh) -> dict[str, Any]:
    """One more generator for every service: until all names are there, and what writes feel."""
    before = await mesh.names("west")
    services = before // 2
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/origin": "zone"}}},
        "template": "{{ .DisplayName }}.further.mesh.local",
    }
    document = {"type": "HostnameGenerator", "name": "further", "spec": spec}
    body = json.dumps(document).encode()
    head = f"PUT /hostnamegenerators/further HTTP/1.1\r\nHost: west\r\nContent-Length: {len(body)}"
    stop = asyncio.Event()
    writing = asyncio.ensure_future(_write_on(mesh, stop))
    connection = await Connection.open(mesh.urls["west"])
    start_s = time.perf_counter()
    _require(await connection.send(f"{head}\r\n\r\n".encode() + body), 201)
    while await mesh.names("west") < before + services:
        if time.perf_counter() - start_s > _GIVE_UP_S:
            raise RuntimeError("the generator's names do not come")
        await asyncio.sleep(_POLL_S)
    taken_s = time.perf_counter() - start_s
    stop.set()
    connection.close()
    return {
        "services": services,
        "names_in_place_s": round(taken_s, 2),
        "writes": summary(await writing),
    }


async def _write_on(mesh: BenchMesh, stop: asyncio.Event) -> list[float]:
    """Unrelated writes at a rate; what each took, in seconds."""
    connection = await Connection.open(mesh.urls["west"])
    taken_s: list[float] = []
    begin_s = time.perf_counter()
    while not stop.is_set():
        due_s = begin_s + len(taken_s) / _WRITES_PER_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        start_s = time.perf_counter()
        _require(await connection.send(put(_dataplane(f"while-{len(taken_s)}"))), 201)
        taken_s.append(time.perf_counter() - start_s)
    connection.close()
    return taken_s
