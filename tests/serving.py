"""The agent's DNS server, in the process of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.ports import free_port
from tests.upstreams import LOOPBACK, NAME, forwarder_to
from zonecp.dataplane.dns import Server
from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.upstreams import Address

V4 = bytes((241, 0, 0, 1))


def served_names() -> Table:
    table = Table(["mesh.local"])
    table.put(wire_name(NAME), wire_entry([V4, bytes(15) + b"\1"], 60))
    table.put(wire_name("four.mesh.local"), wire_entry([V4], 60))
    many = [bytes((241, 0, 1, i)) for i in range(200)]
    table.put(wire_name("many.mesh.local"), wire_entry(many, 60))
    table.loaded = table.complete = True
    return table


@asynccontextmanager
async def serving(
    *servers: Address, addresses: tuple[str, ...] = (LOOPBACK,), **options: Any
) -> AsyncIterator[Server]:
    forwarder = forwarder_to(*servers, **options)
    server = Server(served_names(), forwarder, addresses=addresses, port=free_port())
    server.bind()
    task = asyncio.create_task(server.run())
    try:
        await asyncio.sleep(0)
        yield server
    finally:
        task.cancel()
        await asyncio.wait({task})
        forwarder.close()
        await asyncio.sleep(0)
        if not task.cancelled():
            task.result()
