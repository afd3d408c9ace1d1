"""`GET /meshes/{mesh}/_explain?name=…&dataplane=…`: why a name resolves here, or does not.

Whatever is asked for is answered with 200: an unknown name, mesh or data plane is the answer.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from zonecp.explaining import Inquiry, Question, View
from zonemesh.rest import answer
from zonemesh.rest.errors import ParameterError

SLICE = 200
"""Services considered before other requests get a turn: some 5 ms."""
NAME_CHARACTERS_MAX = 1_000
"""Longer than any name, short enough to be compared with every service."""


def add_explain(app: web.Application, view: View) -> None:
    """Add the route to a zone's application."""

    async def explain(request: web.Request) -> web.Response:
        inquiry = Inquiry(view, _question(request))
        for number, ref in enumerate(inquiry.services()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            inquiry.consider(ref)
        return answer.json(inquiry.answer())

    app.router.add_get("/meshes/{mesh}/_explain", explain)


def _question(request: web.Request) -> Question:
    name = request.query.get("name", "")
    if not name.strip():
        raise ParameterError("Invalid name", "name", "must not be empty")
    if len(name) > NAME_CHARACTERS_MAX:
        reason = f"must be no more than {NAME_CHARACTERS_MAX} characters"
        raise ParameterError("Invalid name", "name", reason)
    dataplane = request.query.get("dataplane") or None
    return Question(request.match_info["mesh"], name, dataplane)
