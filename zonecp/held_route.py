"""`GET /_held` and `DELETE /_held`: what the shrink guard keeps, and that it need not."""

from __future__ import annotations

from aiohttp import web

from zonecp.shrinkguard import ShrinkGuard
from zonemesh.rest import answer
from zonemesh.rest.pages import Page, add_page
from zonemesh.rest.schemas import NUMBER, object_of

_ANSWER = object_of(
    {
        "why": {"type": ["string", "null"]},
        "services": {"type": "object", "additionalProperties": NUMBER},
    }
)


def add_held(app: web.Application, guard: ShrinkGuard) -> None:
    """Add the routes to a zone's application."""

    async def get(request: web.Request) -> web.Response:
        del request
        return answer.json({"why": guard.describe(), "services": dict(guard.holding)})

    async def delete(request: web.Request) -> web.Response:
        del request
        guard.confirm()
        return answer.empty()

    add_page(
        app,
        Page(
            path="/_held",
            handler=get,
            summary="Services that the map keeps though global's log lacks them, by zone",
            schema=_ANSWER,
        ),
    )
    add_page(
        app,
        Page(
            path="/_held",
            handler=delete,
            summary="Confirm that they are gone",
            method="DELETE",
        ),
    )
