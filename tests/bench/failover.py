"""From the end of a leader to the next registration that went through global."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from tests.bench.wire import Connection, put, question
from tests.bench.world import BenchMesh
from zonemesh.cli.demo.mesh import GLOBALS, dataplane, name_in

_ASK_EVERY_S = 0.001
_GIVE_UP_S = 30.0


async def measure(mesh: BenchMesh, how: signal.Signals, times: int) -> dict[str, Any]:
    """End the leader again and again; the seconds until a new service resolves in east."""
    taken_s = [await _once(mesh, how, number) for number in range(times)]
    return {
        "signal": how.name,
        "times": times,
        "min_s": round(min(taken_s), 3),
        "median_s": round(sorted(taken_s)[times // 2], 3),
        "max_s": round(max(taken_s), 3),
    }


async def _once(mesh: BenchMesh, how: signal.Signals, number: int) -> float:
    leader = await mesh.leader()
    if leader is None:
        raise RuntimeError("nobody leads")
    standby = next(name for name in GLOBALS if name != leader)
    await mesh.until_ready(standby)
    questions = await mesh.questions("east")
    connection = await Connection.open(mesh.urls["west"])
    service = f"after-{how.name.lower()}-{number}"
    child = mesh.processes[leader]
    child.killed = True
    start_s = time.perf_counter()
    child.process.send_signal(how)
    await connection.send(put(dataplane(service, "10.0.0.1", 8080)))
    asked = question(name_in("east", service))
    while await questions.ask(asked) is None:
        if time.perf_counter() - start_s > _GIVE_UP_S:
            raise RuntimeError(f"{service} does not resolve in east")
        await asyncio.sleep(_ASK_EVERY_S)
    taken_s = time.perf_counter() - start_s
    questions.close()
    connection.close()
    await asyncio.to_thread(child.process.wait)
    mesh.start_global(leader)
    await mesh.until_ready(leader)
    return taken_s
