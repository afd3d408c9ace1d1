"""Writes that reach a replica which does not lead: handed to the leader, answered when seen here.

The client gets the leader's answer, but only once this replica has applied the write, so that what
it reads here next includes what it wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import aiohttp
import msgspec
import structlog
from aiohttp import web

from zonemesh.errors import InputError, UnavailableError
from zonemesh.model import Position
from zonemesh.rest.api import API, Api

log = structlog.get_logger(__name__)

POSITION = "X-Zonemesh-Position"
"""Of the log entry that holds a write, `<term>-<seq>`: what a replica must have applied."""

PROXIED_BY = "X-Zonemesh-Proxied-By"
"""The replica that handed the request on. It is handed on once: two replicas that each take the
other for the leader would otherwise pass it round."""

NOT_LEADER = "X-Zonemesh-Not-Leader"
"""On a 503: nothing was written, since the replica asked leads no more."""

LEADER_WAIT_S = 3.0
"""How long a write waits for somebody to lead: what a failover may take."""

POLL_S = 0.05
CONNECT_S = 1.0
ANSWER_S = 10.0
STREAM_SILENCE_S = 60.0
"""A leader's own waits are bounded well below the first; in a `_bulk` the client sets the pace."""

APPLIED_WAIT_S = 3.0
"""How long an answer is held back until the write can be read here; then it is given anyway, as
the write is durable."""

BUFFER_BYTES_MAX = 32 * 1024 * 1024
"""Answers of `_bulk` kept for clients that send all of their body before they read: 400,000 lines.
Beyond it the body is read no faster than the answers are."""

_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}
)

SESSION = web.AppKey("session", aiohttp.ClientSession)


async def session(app: web.Application) -> AsyncIterator[None]:
    """One pool of connections to the leader, for the application's life."""
    async with aiohttp.ClientSession(
        timeout=_timeout(ANSWER_S), auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
    ) as client:
        app[SESSION] = client
        yield


def _timeout(silence_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)


async def forward(request: web.Request, url: str) -> web.StreamResponse:
    """Hand a PUT or DELETE to the leader and answer once its effect is visible here.

    Args:
        request: Its body, of bounded size, may have been read.
        url: The leader's, "" if nobody leads at the moment.

    Raises:
        UnavailableError: Nobody led within `LEADER_WAIT_S`, or the leader went away after it had
            the request: its fate is unknown, and repeating it is the client's decision.
    """
    api = request.app[API]
    _refuse_second_hop(request)
    data = await request.read()
    deadline_s = _now_s() + LEADER_WAIT_S
    while True:
        url = await _leader(api, url, deadline_s)
        answer = await _ask(request, url, data)
        if answer is not None and NOT_LEADER not in answer.headers:
            await _seen(api, answer.headers.get(POSITION))
            return answer
        if _now_s() >= deadline_s:
            raise UnavailableError("nobody leads; try again")
        await asyncio.sleep(POLL_S)
        url = ""  # look again


async def forward_stream(request: web.Request, url: str) -> web.StreamResponse:
    """Hand a `_bulk` to the leader, both bodies streamed; the last line waits to be seen here.

    Raises:
        UnavailableError: Nobody leads, or the leader could not be reached.
    """
    api = request.app[API]
    _refuse_second_hop(request)
    url = await _leader(api, url, _now_s() + LEADER_WAIT_S)
    client = request.app[SESSION]
    try:
        async with client.post(
            f"{url}{request.path_qs}",
            data=_body(request),
            headers=_headers(request, api),
            timeout=_timeout(STREAM_SILENCE_S),
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            lift_buffer(request)
            await response.prepare(request)
            last = b""
            async for chunk in answer.content.iter_any():
                whole, newline, rest = (last + chunk).rpartition(b"\n")
                # The last line so far is kept back: it may be the last of all.
                before, cut, line = whole.rpartition(b"\n")
                await response.write(before + cut)
                last = line + newline + rest
            await _seen(api, _position_in(last))
            await response.write(last)
            await response.write_eof()
            return response
    except (aiohttp.ClientConnectorError, TimeoutError) as error:
        raise UnavailableError(f"leader {url}: {error}") from error
    except aiohttp.ClientError as error:
        # Lines may have been answered; ending without the rest tells the client which are unknown.
        raise ConnectionError(f"leader {url}: {error}") from error


def lift_buffer(request: web.Request) -> None:
    """Let a streamed answer run ahead of a client that does not read yet."""
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=BUFFER_BYTES_MAX)


def _refuse_second_hop(request: web.Request) -> None:
    if PROXIED_BY in request.headers:
        raise web.HTTPServiceUnavailable(headers={NOT_LEADER: "1"}, text="not the leader")


async def _leader(api: Api, url: str, deadline_s: float) -> str:
    """The leader's URL, waiting for one. A replica that comes to lead meanwhile asks itself."""
    while not url:
        found = api.backend.leader_url()
        if found is None:
            raise web.HTTPServiceUnavailable(text="leads since a moment ago; try again")
        if not found and _now_s() >= deadline_s:
            raise UnavailableError("nobody leads; try again")
        if not found:
            await asyncio.sleep(POLL_S)
        url = found
    return url.rstrip("/")


async def _ask(request: web.Request, url: str, data: bytes) -> web.Response | None:
    """The leader's answer; None if it cannot have had the request."""
    headers = _headers(request, request.app[API])
    try:
        async with request.app[SESSION].request(
            request.method, f"{url}{request.path_qs}", data=data, headers=headers
        ) as answer:
            body = await answer.read()
            return web.Response(status=answer.status, body=body, headers=_kept(answer.headers))
    except aiohttp.ClientConnectorError as error:
        log.info("leader_unreachable", url=url, error=str(error))
        return None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(f"leader {url}: {error!r}; the write may have happened") from error


async def _seen(api: Api, position: str | None) -> None:
    """Wait until a write is visible here; a failed one has no position."""
    if position is None:
        return
    try:
        at = Position.parse(position)
    except InputError:
        return
    if not await api.backend.wait_applied(at, timeout_s=APPLIED_WAIT_S):
        log.warning("answered_before_applied", position=position, waited_s=APPLIED_WAIT_S)


def _position_in(line: bytes) -> str | None:
    try:
        result = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return result.get("position") if isinstance(result, dict) else None


async def _body(request: web.Request) -> AsyncGenerator[bytes]:
    async for chunk in request.content.iter_any():
        yield chunk


def _headers(request: web.Request, api: Api) -> dict[str, str]:
    kept = _kept(request.headers)
    kept[PROXIED_BY] = api.instance
    return kept


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
