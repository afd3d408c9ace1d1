"""What the agent says of itself over HTTP, to `zonedp status` and `zonedp lookup` among others."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Any

from aiohttp import web

from zonecp.dataplane.querylog import QueryLog, Wanted
from zonecp.dataplane.routes import LOOKUP, QUERY_LOG, QUERY_LOG_S, QUERY_LOG_S_MAX, STATUS
from zonemesh.errors import InputError

Section = Callable[[], Any]
"""What one component says in the status document; JSON, made when asked."""

Lookup = Callable[[str, str], Awaitable[dict[str, Any]]]


def add_routes(
    app: web.Application,
    sections: Mapping[str, Section],
    lookup: Lookup | None,
    query_log: QueryLog | None,
) -> None:
    """`GET /status`, `GET /lookup?name=&type=`, `POST /querylog?seconds=&sample=`, `DELETE` of it.

    Args:
        app: Of the diagnostics port.
        sections: By name; components may add theirs until it is asked for.
        lookup: None where DNS is off.
        query_log: None where DNS is off.
    """
    routes = _Routes(sections, lookup, query_log)
    app.router.add_get(STATUS, routes.status)
    app.router.add_get(LOOKUP, routes.lookup)
    app.router.add_get(QUERY_LOG, routes.show_query_log)
    app.router.add_post(QUERY_LOG, routes.start_query_log)
    app.router.add_delete(QUERY_LOG, routes.stop_query_log)


class _Routes:
    def __init__(
        self, sections: Mapping[str, Section], lookup: Lookup | None, query_log: QueryLog | None
    ) -> None:
        self._sections = sections
        self._lookup = lookup
        self._query_log = query_log

    async def status(self, _: web.Request) -> web.Response:
        return _json({name: section() for name, section in self._sections.items()})

    async def lookup(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if self._lookup is None:
            return _fault(409, "DNS is off in this agent (dns.enabled)")
        try:
            return _json(await self._lookup(name, request.query.get("type", "A")))
        except InputError as error:
            return _fault(400, str(error))

    async def show_query_log(self, _: web.Request) -> web.Response:
        return self._query_log_state()

    async def start_query_log(self, request: web.Request) -> web.Response:
        if self._query_log is None:
            return self._query_log_state()
        try:
            seconds = _number(request, "seconds", QUERY_LOG_S, QUERY_LOG_S_MAX)
            sample = _number(request, "sample", 1, 1e9)
        except InputError as error:
            return _fault(400, str(error))
        self._query_log.want(Wanted(time.monotonic() + seconds, int(sample)))
        return self._query_log_state()

    async def stop_query_log(self, _: web.Request) -> web.Response:
        if self._query_log is not None:
            self._query_log.want(Wanted())
        return self._query_log_state()

    def _query_log_state(self) -> web.Response:
        if self._query_log is None:
            return _fault(409, "DNS is off in this agent (dns.enabled)")
        return _json(query_log_state(self._query_log))


def query_log_state(query_log: QueryLog) -> dict[str, Any]:
    left_s = query_log.wanted.until_s - time.monotonic()
    if not query_log.on or left_s <= 0:
        return {"on": False}
    return {
        "on": True,
        "for_s": None if left_s == inf else round(left_s),
        "sample": query_log.wanted.sample,
    }


def _number(request: web.Request, key: str, default: float, maximum: float) -> float:
    text = request.query.get(key)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= maximum:
        raise InputError(f"{key}: {text!r} is no whole number from 1 to {maximum:g}")
    return number


def _json(value: Any) -> web.Response:
    return web.json_response(value, dumps=lambda each: f"{json.dumps(each, indent=1)}\n")


def _fault(status: int, detail: str) -> web.Response:
    return web.json_response({"status": status, "title": "Not possible", "detail": detail},
                             status=status)  # fmt: skip
