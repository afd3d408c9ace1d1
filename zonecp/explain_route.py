"""`GET /meshes/{mesh}/_explain?name=…&dataplane=…`: why a name resolves here, or does not.

Whatever is asked for is answered with 200: an unknown name, mesh or data plane is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from zonecp.explaining import Inquiry, Question, Verdict, View, ZoneState
from zonemesh.resources.schema import Schema
from zonemesh.rest import answer
from zonemesh.rest.errors import ParameterError
from zonemesh.rest.pages import Page, add_page
from zonemesh.rest.schemas import BOOLEAN, NUMBER, STRING, array_of, object_of

SLICE = 200
"""Services considered before other requests get a turn: some 5 ms."""
NAME_CHARACTERS_MAX = 1_000
"""Longer than any name, short enough to be compared with every service."""

_TEXTS = array_of(STRING)
_SERVICE: Mapping[str, Schema] = {
    **dict.fromkeys(("kind", "name", "zone", "service"), STRING),
    "vips": _TEXTS,
    "names": _TEXTS,
    "endpoints": object_of({"total": NUMBER, "ready": NUMBER}),
}
_CANDIDATE = object_of(
    {**_SERVICE, "generator": STRING, "template": STRING, "holds": BOOLEAN, "why": STRING}
)
_FAILURE = object_of(dict.fromkeys(("kind", "name", "zone", "generator", "message"), STRING))
_ZONE = object_of(
    {
        "state": {"enum": [str(state) for state in ZoneState]},
        "silent_s": {"type": ["number", "null"]},
    }
)
_DATAPLANE = object_of({"name": STRING, "known": BOOLEAN, "trimmed": BOOLEAN, "why": STRING})
_ANSWER = object_of(
    {
        **dict.fromkeys(("mesh", "zone", "name", "why"), STRING),
        "resolves": BOOLEAN,
        "verdict": {"enum": [str(verdict) for verdict in Verdict]},
        "vips": _TEXTS,
        "ttl": {"type": ["integer", "null"]},
        "candidates": array_of(_CANDIDATE),
        "failures": array_of(_FAILURE),
        "near": array_of(object_of(_SERVICE)),
        "zones": {"type": "object", "additionalProperties": _ZONE},
        "dataplane": {"oneOf": [_DATAPLANE, {"type": "null"}]},
        "warnings": _TEXTS,
        "lag_s": {"type": "number"},
    }
)


def add_explain(app: web.Application, view: View) -> None:
    """Add the route to a zone's application."""

    async def explain(request: web.Request) -> web.Response:
        inquiry = Inquiry(view, _question(request))
        for number, ref in enumerate(inquiry.services()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            inquiry.consider(ref)
        return answer.json(inquiry.answer())

    page = Page(
        path="/meshes/{mesh}/_explain",
        handler=explain,
        summary="Why a name resolves here, or does not",
        schema=_ANSWER,
        query={"name": STRING, "dataplane": STRING},
        needs="name",
        errors=(400,),
    )
    add_page(app, page)


def _question(request: web.Request) -> Question:
    name = request.query.get("name", "")
    if not name.strip():
        raise ParameterError("Invalid name", "name", "must not be empty")
    if len(name) > NAME_CHARACTERS_MAX:
        reason = f"must be no more than {NAME_CHARACTERS_MAX} characters"
        raise ParameterError("Invalid name", "name", reason)
    dataplane = request.query.get("dataplane") or None
    return Question(request.match_info["mesh"], name, dataplane)
