"""`GET /meshes/{mesh}/_vips`: the zone-merged VIP map over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from zonecp.feed import Feed, query_revision
from zonemesh.errors import NotFoundError, UnavailableError
from zonemesh.rest.errors import ParameterError
from zonemesh.runtime.values import parse_duration

HEARTBEAT_S = 1.0
WAIT_MAX_S = 60.0
_WRITE_BYTES = 128 << 10
"""A snapshot is written in pieces of this size, each waiting for the client to keep up."""

_SSE_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


def add_feed(
    app: web.Application,
    feed: Feed,
    *,
    mesh_exists: Callable[[str], bool],
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Add the feed's route to a control plane's application."""

    async def vips(request: web.Request) -> web.StreamResponse:
        mesh = request.match_info["mesh"]
        if not mesh_exists(mesh):
            raise NotFoundError(f"mesh {mesh} does not exist")
        watch, wait_s = _flag(request, "watch", default=False), _wait_s(request)
        _flag(request, "outbounds", default=True)
        why = feed.ready()
        if why is not None:
            raise UnavailableError(why)
        known = query_revision(request.headers.get("Last-Event-ID") or request.query.get("after"))
        if known is not None:
            await feed.wait_for(known)
        if watch:
            return await _watch(request, feed, mesh, heartbeat_s)
        if known is not None and wait_s > 0:
            await feed.wait_beyond(mesh, known, wait_s)
        return web.Response(body=await feed.map_json(mesh), content_type="application/json")

    async def close(_: web.Application) -> None:
        feed.close()

    app.router.add_get("/meshes/{mesh}/_vips", vips)
    app.on_shutdown.append(close)


async def _watch(
    request: web.Request, feed: Feed, mesh: str, heartbeat_s: float
) -> web.StreamResponse:
    known = query_revision(request.headers.get("Last-Event-ID") or request.query.get("after"))
    outbounds = _flag(request, "outbounds", default=True)
    response = web.StreamResponse(headers=_SSE_HEADERS)
    await response.prepare(request)
    # The client going away is how a subscription ends.
    with contextlib.suppress(ConnectionResetError):
        events = feed.events(mesh, known, outbounds=outbounds, heartbeat_s=heartbeat_s)
        async for pieces in events:
            await _write(response.write, pieces)
    return response


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
