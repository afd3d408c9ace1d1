"""A subscriber that never reads is cut; it costs nobody else anything, and finds its way back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
from aiohttp import web

from tests.fake_zone import until
from zonecp.feed import Feed
from zonecp.liveness import Liveness
from zonecp.routes import FeedRoute
from zonemesh.errors import OverloadedError
from zonemesh.registry import Registry
from zonemesh.rest.errors import problems
from zonemesh.rest.pages import PAGES

PIECE = b"x" * (256 << 10)


class BusyFeed:
    """A feed with as much to say as anybody takes."""

    def __init__(self) -> None:
        self.cut = 0
        self.subscribers = 0
        self.sent = 0
        self.full = False

    def ready(self) -> None:
        return None

    def check_room(self, *_: Any, **__: Any) -> None:
        if self.full:
            raise OverloadedError("many wait", retry_after_s=7)

    def close(self) -> None:
        """Nothing: the streams are cut."""

    async def events(self, *_: Any, **__: Any) -> AsyncIterator[Sequence[bytes]]:
        self.subscribers += 1
        try:
            while True:
                self.sent += len(PIECE)
                yield [PIECE]
                await asyncio.sleep(0)
        finally:
            self.subscribers -= 1


@asynccontextmanager
async def serving(feed: BusyFeed, *, stalled_s: float) -> AsyncIterator[int]:
    app = web.Application(middlewares=[problems])
    app[PAGES] = []
    FeedRoute(
        feed=cast("Feed", feed),
        liveness=cast("Liveness", None),
        zone="west",
        registry=Registry(),
        mesh_exists=lambda _: True,
        stalled_s=stalled_s,
    ).add_to(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def subscribed(port: int) -> socket.socket:
    """A connection that has asked for the stream, and reads nothing of it."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"GET /meshes/default/_vips?watch=true HTTP/1.1\r\nHost: zone\r\n\r\n")
    return connection


async def test_a_subscriber_that_never_reads_is_cut_and_others_go_on() -> None:
    feed = BusyFeed()
    async with serving(feed, stalled_s=0.3) as port:
        url = f"http://127.0.0.1:{port}/meshes/default/_vips?watch=true"
        async with aiohttp.ClientSession() as session, session.get(url) as reading:
            await reading.content.readexactly(len(PIECE))
            stuck = [subscribed(port) for _ in range(20)]
            await until(lambda: feed.subscribers == 21)

            for _ in range(200):
                await reading.content.readexactly(len(PIECE))
            await until(lambda: feed.cut == 20)
            await reading.content.readexactly(len(PIECE))
            assert feed.subscribers == 1

            again = subscribed(port)
            again.setblocking(False)
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(again, 15)).startswith(b"HTTP/1.1 200")
            for each in (*stuck, again):
                each.close()


async def test_what_is_kept_for_one_that_never_reads_is_bounded() -> None:
    feed = BusyFeed()
    async with serving(feed, stalled_s=0.5) as port:
        stuck = subscribed(port)
        await until(lambda: feed.cut == 1)

        # The kernel's buffers, and one piece that waits here.
        assert feed.sent <= 16 << 20
        stuck.close()


async def test_who_is_one_too_many_is_told_when_to_come_again() -> None:
    feed = BusyFeed()
    feed.full = True
    async with serving(feed, stalled_s=1.0) as port, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/meshes/default/_vips?watch=true"
        async with session.get(url) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "7")
            assert (await refused.json())["detail"] == "many wait"
    assert feed.subscribers == 0
