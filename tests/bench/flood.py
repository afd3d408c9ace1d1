"""One zone floods: what another zone's registrations take with and without it.

Run as a script this is the flood itself: Dataplanes through a zone's bulk endpoint, as fast as it
takes them, over and over the same ones with other addresses. It needs no packages.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.world import BenchMesh

FLOOD = "flood"
_CLIENT = "flood-client"
_SERVICES = 2_000
_LINES = 500
_WARM_UP_S = 3.0


async def measure(mesh: BenchMesh, *, rate: float, samples: int) -> dict[str, Any]:
    """PUT in west → answer in east, alone and while a third zone floods."""
    # Not at the top: the script runs where these are not to be found.
    import asyncio

    from tests.bench import propagation
    from tests.bench.world import give_way

    mesh.add_zone(FLOOD)
    await mesh.until_ready(FLOOD)
    # It would run on a machine of its own. What it makes others do is what is measured.
    give_way(mesh.processes[FLOOD].process.pid)
    alone = await propagation.measure(mesh, "east", rate=rate, samples=samples, prefix="alone")
    client = mesh.processes.start_script(_CLIENT, __file__, mesh.urls[FLOOD])
    give_way(client.process.pid)
    await asyncio.sleep(_WARM_UP_S)
    before = await _entries(mesh)
    flooded = await propagation.measure(mesh, "east", rate=rate, samples=samples, prefix="flood")
    seconds = samples / rate
    written = (await _entries(mesh) - before) / seconds
    mesh.processes.kill(_CLIENT)
    shift = 100 * (flooded["p99_ms"] / alone["p99_ms"] - 1)
    return {
        "alone": alone,
        "flooded": flooded,
        "flood_bytes_per_s": round(written),
        "p99_shift_percent": round(shift, 1),
    }


async def _entries(mesh: BenchMesh) -> float:
    """Bytes that the flooding zone has written to its stream."""
    return (await mesh.metrics(FLOOD)).get("zonemesh_uplink_bytes_total", 0.0)


def flood(url: str) -> None:
    host = url.removeprefix("http://")
    for turn in itertools.count():
        connection = http.client.HTTPConnection(host, timeout=60)
        for first in range(0, _SERVICES, _LINES):
            lines = [_line(number, turn) for number in range(first, first + _LINES)]
            connection.request("POST", "/_bulk", body="\n".join(lines).encode())
            connection.getresponse().read()
        connection.close()


def _line(number: int, turn: int) -> str:
    name = f"flood-{number}"
    address = f"10.{turn >> 8 & 255}.{turn & 255}.{number & 255}"
    inbound = {"port": 8080, "tags": {"kuma.io/service": name, "kuma.io/protocol": "tcp"}}
    return json.dumps(
        {
            "type": "Dataplane",
            "mesh": "default",
            "name": f"{name}-1",
            "networking": {"address": address, "inbound": [inbound]},
        }
    )


if __name__ == "__main__":
    flood(sys.argv[1])
