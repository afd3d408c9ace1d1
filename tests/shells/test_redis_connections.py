"""Connections that the other end has reset, under the event loop that the planes run on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import uvloop

from tests.chaos.faultproxy import HOST, FaultProxy, Link
from tests.redis_server import RedisServer
from zonemesh.errors import UnavailableError
from zonemesh.log.connections import Connections
from zonemesh.log.pools import pool_of


def test_a_connection_that_is_reset_while_idle_costs_only_that_exchange(
    redis_server: RedisServer,
) -> None:
    proxy = FaultProxy()
    try:
        link = proxy.link("client", redis_server.port)
        assert uvloop.run(_exchange_over_resets(link)) > 0
    finally:
        proxy.close()


async def _exchange_over_resets(link: Link) -> int:
    """Exchanges while the link is being reset, each at another moment: either answered, or said to
    be without an answer; how many were answered.
    """
    connections = Connections(pool_of(f"redis://{HOST}:{link.port}/0"), timeout_s=2.0, limit=4)
    answered = 0
    try:
        for number in range(150):
            with suppress(UnavailableError):
                await asyncio.gather(*(connections.call("PING") for _ in range(3)))
            resetting = asyncio.create_task(asyncio.to_thread(link.reset))
            for _ in range(number % 40):
                await asyncio.sleep(0)
            with suppress(UnavailableError):
                answered += await connections.call("PING") == b"PONG"
            await resetting
    finally:
        await connections.close()
    return answered
