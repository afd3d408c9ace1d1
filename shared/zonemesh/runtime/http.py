"""HTTP servers: listening with clear faults, bounded shutdown, and the diagnostics application."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from zonemesh.errors import ConfigError
from zonemesh.runtime import metrics

log = structlog.get_logger(__name__)

HEADER_BYTES_MAX = 16 * 1024
"""One header line. A user token is 2 KB at most; aiohttp answers 400 above this."""

KEEPALIVE_S = 120.0
"""How long an idle connection is kept: Kuma's idle timeout."""

SHUTDOWN_S = 5.0
"""How long a stop may take: half of it for requests in progress to end, half to cancel them."""

BACKLOG = 1024
"""Connections not yet accepted: 1,000 agents return at once after a restart."""

Check = Callable[[], str | None]
"""Answers None when fine, else why not, in one sentence. Called on each request; must not block."""


@asynccontextmanager
async def serving(
    app: web.Application, address: str, port: int, *, name: str, shutdown_s: float = SHUTDOWN_S
) -> AsyncGenerator[int]:
    """Serve `app` while the context is open; yields the port (the one chosen, where 0 was asked).

    Leaving closes the listener, lets requests in progress end for half of `shutdown_s`, then cuts
    them.
    Streams that never end must end themselves in `app.on_shutdown`.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=shutdown_s / 2,  # aiohttp allows it twice, one after the other
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port, backlog=BACKLOG, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError([_listen_fault(name, address, port, error)]) from error
        bound: int = runner.addresses[0][1]
        log.info("listening", server=name, address=address, port=bound)
        yield bound
    finally:
        # The application's own hooks are not bounded by aiohttp.
        try:
            async with asyncio.timeout(shutdown_s + 1.0):
                await runner.cleanup()
        except TimeoutError:
            log.warning("server_slow_to_stop", server=name, waited_s=shutdown_s + 1.0)


def _listen_fault(name: str, address: str, port: int, error: OSError) -> str:
    where = f"{name}: cannot listen on {address}:{port}"
    if isinstance(error, socket.gaierror):
        return f"{where}: the address is unknown"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where}: the port is in use; stop what listens there or choose another port"
        case errno.EACCES | errno.EPERM:
            return f"{where}: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return f"{where}: the address belongs to no interface of this host"
        case _:
            return f"{where}: {error.strerror or error}"


_REGISTRY = web.AppKey("registry", CollectorRegistry)
_READY = web.AppKey("ready", Mapping[str, Check])
_FRESH = web.AppKey("fresh", Mapping[str, Check])
_HEALTHY = web.AppKey("healthy", Mapping[str, Check])


def make_diagnostics(
    registry: CollectorRegistry,
    *,
    ready: Mapping[str, Check],
    fresh: Mapping[str, Check] | None = None,
    healthy: Mapping[str, Check] | None = None,
) -> web.Application:
    """`/metrics`, `/healthy` (restart me if not) and `/ready` (send me traffic only if so).

    Both answer 200 or 503 with `{"status": "ok"|"failing", "checks": {name: "ok"|why}}`. Of what
    is served though it may be out of date, `fresh` says so: then the status is "degraded", with
    200, or with 503 for whoever asks `/ready?strict=true`.
    """
    app = web.Application()
    app[_REGISTRY] = registry
    app[_READY] = ready
    app[_FRESH] = fresh or {}
    app[_HEALTHY] = healthy or {}
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/ready", _ready)
    app.router.add_get("/healthy", _healthy)
    return app


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=metrics.render(request.app[_REGISTRY]), headers={"Content-Type": metrics.CONTENT_TYPE}
    )


async def _ready(request: web.Request) -> web.Response:
    strict = request.query.get("strict") == "true"
    return _verdict(request.app[_READY], request.app[_FRESH], strict=strict)


async def _healthy(request: web.Request) -> web.Response:
    return _verdict(request.app[_HEALTHY])


def _verdict(
    checks: Mapping[str, Check],
    fresh: Mapping[str, Check] | None = None,
    *,
    strict: bool = False,
) -> web.Response:
    found = {name: check() for name, check in checks.items()}
    failing = any(why is not None for why in found.values())
    old = {name: check() for name, check in (fresh or {}).items()}
    degraded = any(why is not None for why in old.values())
    found |= old
    status = "failing" if failing else "degraded" if degraded else "ok"
    failing = failing or (strict and degraded)
    body = {
        "status": status,
        "checks": {name: "ok" if why is None else why for name, why in found.items()},
    }
    return web.json_response(
        body, status=503 if failing else 200, dumps=lambda value: f"{json.dumps(value, indent=1)}\n"
    )
