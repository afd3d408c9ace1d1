"""A zone as its data planes see it: the feed, and where Dataplanes are registered."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.patience import SLOWER


def revision(seq: int, *, own: str = "own", above: int = 1) -> str:
    return f"{own}.1-{seq}~glob.1-{above}"


def record(name: str, last: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "ips": [f"241.0.0.{last}", f"fd00:fd00::f100:{last:x}"],
        "ttl": 60,
        "service": f"kri_msvc_default_west__{name}_",
        "zone": "west",
    }


def outbound(name: str, last: int = 1, *, section: str = "80", **fields: Any) -> dict[str, Any]:
    endpoint = {"address": "10.0.0.1", "port": 8080, "zone": "west", "priority": 0, "ready": True}
    return {
        "id": f"kri_msvc_default_west__{name}_{section}", "kind": "MeshService",
        "vips": [f"241.0.0.{last}", f"fd00:fd00::f100:{last:x}"], "port": 80, "name": name,
        "protocol": "tcp", "zone": "west", "endpoints": [endpoint], **fields,
    }  # fmt: skip


def snapshot(
    at: str,
    records: Iterable[dict[str, Any]],
    outbounds: Iterable[dict[str, Any]] = (),
    *,
    chunk: int = 256,
    **head: Any,
) -> str:
    """The event, its data lines broken as the feed's protocol says."""
    first = {
        "revision": at, "mesh": "default", "zone": "west", "zoneUid": "uid",
        "domains": ["svc.mesh.local"], "ttl": 60, "lag_s": 0.25, "hash": "h", **head,
    }  # fmt: skip
    lines = [
        json.dumps(first, separators=(",", ":"))[:-1] + ',"records":[',
        *_elements(records, chunk),
        '],"outbounds":[',
        *_elements(outbounds, chunk),
        "]}",
    ]
    data = "\n".join(f"data: {line}" for line in lines)
    return f"id: {at}\nevent: snapshot\n{data}\n\n"


def _elements(items: Iterable[dict[str, Any]], chunk: int) -> list[str]:
    texts = [json.dumps(one) for one in items]
    pieces = [",".join(texts[start : start + chunk]) for start in range(0, len(texts), chunk)]
    return [*[f"{piece}," for piece in pieces[:-1]], *pieces[-1:]]


def delta(
    since: str,
    to: str,
    put: Iterable[dict[str, Any]] = (),
    remove: Iterable[str] = (),
    *,
    put_outbounds: Iterable[dict[str, Any]] = (),
    remove_outbounds: Iterable[str] = (),
) -> str:
    body = {
        "from": since, "to": to, "put": [*put], "remove": [*remove],
        "putOutbounds": [*put_outbounds], "removeOutbounds": [*remove_outbounds],
    }  # fmt: skip
    return f"id: {to}\nevent: delta\ndata: {json.dumps(body)}\n\n"


def heartbeat(at: str, lag_s: float = 0.5, digest: str = "") -> str:
    body = json.dumps({"revision": at, "lag_s": lag_s, "hash": digest})
    return f"id: {at}\nevent: heartbeat\ndata: {body}\n\n"


@dataclass
class Stream:
    """One subscription: what it asked for, and what it is sent."""

    request: web.Request
    response: web.StreamResponse

    @property
    def last_event_id(self) -> str | None:
        return self.request.headers.get("Last-Event-ID")

    def __post_init__(self) -> None:
        self._gzip = zlib.compressobj(wbits=31)

    async def send(self, *texts: str) -> None:
        data = "".join(texts).encode()
        if "Content-Encoding" in self.response.headers:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        await self.response.write(data)

    async def beat_until(self, done: Callable[[], bool], heartbeat: str) -> None:
        """Heartbeats as a zone sends them, only faster."""
        async with asyncio.timeout(SLOWER * 10.0):
            while not done():
                await self.send(heartbeat)
                await asyncio.sleep(0.01)


@dataclass
class FakeZone:
    """Hands each subscription to the test, which says what is sent there."""

    url: str = ""
    streams: asyncio.Queue[Stream] = field(default_factory=asyncio.Queue)
    requests: asyncio.Queue[tuple[str, str, Any]] = field(default_factory=asyncio.Queue)
    """Of Dataplanes: method, name, body."""

    feed_refusals: list[web.Response] = field(default_factory=list)
    """Answers to the next subscriptions instead of a stream."""

    put_refusals: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    silent: bool = False
    """Takes Dataplanes, and answers no PUT."""

    authorizations: dict[str, str | None] = field(default_factory=dict)
    """The last by what was asked for: feed, dataplane, bootstrap."""

    bootstrap: dict[str, Any] = field(default_factory=dict)
    compress: bool = False
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def feed(self, request: web.Request) -> web.StreamResponse:
        self.authorizations["feed"] = request.headers.get("Authorization")
        if self.feed_refusals:
            return self.feed_refusals.pop(0)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if self.compress:
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        self._ended = asyncio.Event()
        await self.streams.put(Stream(request, response))
        await self._ended.wait()
        return response

    async def get_bootstrap(self, request: web.Request) -> web.Response:
        self.authorizations["bootstrap"] = request.headers.get("Authorization")
        return web.json_response(self.bootstrap)

    def end_streams(self) -> None:
        self._ended.set()

    async def dataplane(self, request: web.Request) -> web.Response:
        self.authorizations["dataplane"] = request.headers.get("Authorization")
        body = await request.json() if request.can_read_body else None
        await self.requests.put((request.method, request.match_info["name"], body))
        if request.method == "PUT" and self.silent:
            await asyncio.Event().wait()
        if request.method == "PUT" and self.put_refusals:
            status, problem = self.put_refusals.pop(0)
            return web.json_response(problem, status=status)
        return web.json_response({})


@asynccontextmanager
async def fake_zone() -> AsyncGenerator[FakeZone]:
    zone = FakeZone()
    app = web.Application()
    app.router.add_get("/meshes/{mesh}/_vips", zone.feed)
    app.router.add_get("/meshes/{mesh}/_bootstrap", zone.get_bootstrap)
    app.router.add_route("*", "/meshes/{mesh}/dataplanes/{name}", zone.dataplane)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    zone.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield zone
    finally:
        zone.end_streams()
        await runner.cleanup()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SLOWER * 10):
        while not true():  # noqa: ASYNC110 -- of anything that a test can look at
            await asyncio.sleep(0.005)
