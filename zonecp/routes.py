"""`GET /meshes/{mesh}/_vips`: the zone-merged VIP map over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web

from zonecp.agent_guard import INSTANCE
from zonecp.feed import Feed, query_revision
from zonecp.liveness import Liveness, Subscriber
from zonemesh.errors import NotFoundError, UnavailableError
from zonemesh.model import Key
from zonemesh.reach import Reaching
from zonemesh.registry import Registry
from zonemesh.resources.schema import Schema
from zonemesh.rest.errors import ParameterError
from zonemesh.rest.pages import Page, add_page
from zonemesh.rest.schemas import BOOLEAN, NUMBER, STRING, array_of, object_of
from zonemesh.runtime.values import parse_duration

HEARTBEAT_S = 1.0
WAIT_MAX_S = 60.0
UNACKNOWLEDGED_MS = 10_000
"""A feed whose heartbeats nobody acknowledges for so long has ended."""

STALLED_S = 15.0
"""A subscriber that takes nothing for so long is cut: what it would be sent is held for it. It
comes back, and resumes or gets the snapshot that all share."""

_WRITE_BYTES = 128 << 10
"""A snapshot is written in pieces of this size, each waiting for the client to keep up."""

_SSE_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

log = structlog.get_logger()

_QUERY: Mapping[str, Schema] = {
    "after": STRING,
    "wait": {"type": "string", "default": "0s"},
    "watch": {"enum": ["true", "false"], "default": "false"},
    "outbounds": {"enum": ["true", "false"], "default": "true"},
    "dataplane": STRING,
}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_TEXTS = array_of(STRING)
_RECORD = object_of(
    {"name": STRING, "ips": _TEXTS, "ttl": NUMBER, "service": STRING, "zone": STRING}
)
_ENDPOINT = object_of(
    {"address": STRING, "port": _PORT, "zone": STRING, "priority": NUMBER, "ready": BOOLEAN}
)
_OUTBOUND = object_of(
    {
        **dict.fromkeys(("id", "kind", "name", "protocol", "zone"), STRING),
        "vips": _TEXTS,
        "port": _PORT,
        "endpoints": array_of(_ENDPOINT),
    }
)
_MAP = object_of(
    {
        **dict.fromkeys(("revision", "mesh", "zone", "zoneUid", "hash"), STRING),
        "domains": _TEXTS,
        "ttl": NUMBER,
        "lag_s": {"type": "number"},
        "records": array_of(_RECORD),
        "outbounds": array_of(_OUTBOUND),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRoute:
    """`_vips` of one zone; `registry` is the zone's own, in which its Dataplanes are."""

    feed: Feed
    liveness: Liveness
    zone: str
    registry: Registry
    mesh_exists: Callable[[str], bool]
    heartbeat_s: float = HEARTBEAT_S
    stalled_s: float = STALLED_S

    def add_to(self, app: web.Application) -> None:
        page = Page(
            path="/meshes/{mesh}/_vips",
            handler=self._get,
            summary="The map of names that data planes of this zone are given, or its changes",
            schema=_MAP,
            query=_QUERY,
            streams=_SSE_HEADERS["Content-Type"],
            errors=(400, 404, 503),
        )
        add_page(app, page)
        app.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self.feed.close()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        feed, mesh = self.feed, request.match_info["mesh"]
        if not self.mesh_exists(mesh):
            raise NotFoundError(f"mesh {mesh} does not exist")
        watch, wait_s = _flag(request, "watch", default=False), _wait_s(request)
        outbounds = _flag(request, "outbounds", default=True)
        why = feed.ready()
        if why is not None:
            raise UnavailableError(why)
        known = query_revision(request.headers.get("Last-Event-ID") or request.query.get("after"))
        if known is not None:
            await feed.wait_for(known)
        name = request.query.get("dataplane")
        dataplane = Key(mesh, self.zone, "", name).packed if name else None
        reach = Reaching(self.zone, self.registry, dataplane)
        if watch:
            self.feed.check_room(mesh, known, trimmed=reach() is not None)
            with self._following(dataplane, request):
                events = self.feed.events(
                    mesh, known, outbounds=outbounds, heartbeat_s=self.heartbeat_s, reach=reach
                )
                return await self._watch(request, events)
        if known is not None and wait_s > 0:
            await feed.wait_beyond(mesh, known, wait_s)
        body = await feed.map_json(mesh, reach())
        return web.Response(body=body, content_type="application/json")

    async def _watch(
        self, request: web.Request, events: AsyncGenerator[Sequence[bytes], None]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_SSE_HEADERS)
        await response.prepare(request)
        _notice_loss(request)

        async def write(data: bytes) -> None:
            async with asyncio.timeout(self.stalled_s):
                await response.write(data)

        # The client going away is how a subscription ends.
        with contextlib.suppress(ConnectionResetError):
            try:
                async with contextlib.aclosing(events):
                    async for pieces in events:
                        await _write(write, pieces)
            except TimeoutError:
                self.feed.cut += 1
                log.warning(
                    "subscriber_cut",
                    peer=request.remote,
                    dataplane=request.query.get("dataplane"),
                    took_nothing_for_s=self.stalled_s,
                )
                if request.transport is not None:
                    request.transport.abort()  # what is buffered for it goes too
        return response

    def _following(
        self, dataplane: str | None, request: web.Request
    ) -> contextlib.AbstractContextManager[None]:
        if dataplane is None:
            return contextlib.nullcontext()
        return self.liveness.following(dataplane, _subscriber(request))


def _notice_loss(request: web.Request) -> None:
    """A host that vanished is an agent that has gone, also while heartbeats are being written."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


def _subscriber(request: web.Request) -> Subscriber:
    agent, _, version = request.headers.get("User-Agent", "").partition("/")
    instance = request.headers.get(INSTANCE)
    return Subscriber((instance or agent)[:100], version[:100], named=bool(instance))


async def _write(write: Callable[[bytes], Awaitable[None]], pieces: Sequence[bytes]) -> None:
    pending: list[bytes] = []
    size = 0
    for piece in pieces:
        pending.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES:
            await write(b"".join(pending))
            pending, size = [], 0
    if pending:
        await write(b"".join(pending))


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    text = request.query.get(name)
    if text not in (None, "true", "false"):
        raise ParameterError(f"Invalid {name}", name, f"{text!r} is neither true nor false")
    return default if text is None else text == "true"


def _wait_s(request: web.Request) -> float:
    text = request.query.get("wait", "0s")
    try:
        return min(parse_duration(text), WAIT_MAX_S)
    except ValueError as error:
        reason = f"{text!r} is not a duration like 30s"
        raise ParameterError("Invalid wait", "wait", reason) from error
