"""From a change in west to a connection through east's Envoy."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.envoys import AGENT, Backend, EnvoyMesh, get, workload
from tests.e2e.mesh import HOST, elsewhere, eventually

BATCH = 500
START_S = 60.0
_ASK_EVERY_S = 0.0005


def measure(services: int, *, samples: int, arrangement: str = "bound") -> dict[str, Any]:
    """Load services, then add one after the other.

    Returns:
        Milliseconds from sending the PUT until east's agent answers the name, and until a GET
        through Envoy is answered; and of the agent's part, on average.
    """
    with tempfile.TemporaryDirectory() as directory:
        backend = Backend("west")
        envoy: dict[str, Any] = {"arrangement": arrangement}
        mesh = EnvoyMesh(Path(directory), envoy=envoy)
        try:
            mesh.start()
            mesh.start(AGENT)
            loaded_s = load(mesh, services)
            return {
                "services": services,
                "loaded_s": round(loaded_s, 2),
                **_add(mesh, backend, samples),
                "envoy_rss_mb": _rss_mb(mesh.envoy_pid()),
            }
        finally:
            mesh.close()
            backend.close()


def load(mesh: EnvoyMesh, services: int) -> float:
    """Seconds until all of them are answered in east."""
    started_s = time.perf_counter()
    documents = (workload(f"loaded{number}", 8080) for number in range(services))
    while batch := [document for document, _ in zip(documents, range(BATCH), strict=False)]:
        _bulk(mesh, batch)
    last = elsewhere(f"loaded{services - 1}")
    eventually(lambda: mesh.resolve("east", last), START_S, mesh, AGENT)
    eventually(lambda: _held(mesh) == 0, START_S, mesh, AGENT)
    return time.perf_counter() - started_s


def _bulk(mesh: EnvoyMesh, documents: list[dict[str, Any]]) -> None:
    body = "\n".join(map(json.dumps, documents)).encode()
    connection = http.client.HTTPConnection(HOST, mesh.ports["west"], timeout=60)
    connection.request("POST", "/_bulk", body, {"Content-Type": "application/x-ndjson"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.status != 200 or '"error"' in text:
        raise RuntimeError(f"{response.status}: {text[:300]}")


def _held(mesh: EnvoyMesh) -> float:
    return mesh.metric(AGENT, "zonedp_envoy_names_held").get("", -1)


def _add(mesh: EnvoyMesh, backend: Backend, samples: int) -> dict[str, Any]:
    named, connected = [], []
    push_before, answer_before = _times(mesh)
    for number in range(samples):
        name = f"new{number}"
        started_s = time.perf_counter()
        mesh.put_workload("west", name, backend.port)
        address = _until(lambda: mesh.resolve("east", elsewhere(name)))[0]  # noqa: B023
        named.append(time.perf_counter() - started_s)
        if get(address, backend.port) != "west":
            raise RuntimeError(f"{name} was answered before it could be connected to")
        connected.append(time.perf_counter() - started_s)
        time.sleep(0.05)
    push, answer = _times(mesh)
    return {
        "named": summary(named),
        "connected": summary(connected),
        "agent_ms": _mean_ms(push_before, push),
        "envoy_answer_ms": _mean_ms(answer_before, answer),
    }


def _until(ask: Callable[[], list[str]]) -> list[str]:
    while not (found := ask()):
        time.sleep(_ASK_EVERY_S)
    return found


def _times(mesh: EnvoyMesh) -> list[tuple[float, float]]:
    return [
        (mesh.metric(AGENT, f"{each}_sum")[""], mesh.metric(AGENT, f"{each}_count")[""])
        for each in ("zonedp_envoy_push_seconds", "zonedp_envoy_answer_seconds")
    ]


def _mean_ms(before: tuple[float, float], after: tuple[float, float]) -> float:
    return round((after[0] - before[0]) / max(after[1] - before[1], 1) * 1000, 2)


def summary(taken_s: list[float]) -> dict[str, float]:
    ordered = sorted(taken_s)
    return {
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
    }


def _rss_mb(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return round(int(fields[1]) * 4096 / 1e6, 1)
