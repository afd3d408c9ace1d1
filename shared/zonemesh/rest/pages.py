"""Routes that are not a kind's own: each is registered together with what is said of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from zonemesh.resources.schema import Schema

# Collections and names never start with `_`, which is kept for what is not a resource.
PATH_PATTERN = "{path:[a-z][a-z-]*}"
NAME_PATTERN = "{name:[^/_][^/]*}"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One such route."""

    path: str
    """With parameters from `mesh`, `path` and `name`."""
    handler: Handler
    summary: str
    schema: str | Schema = "Object"
    """What it answers with: a schema, the name of one of `schemas.SCHEMAS`, or `<item>[]` for a
    list of such."""
    kind: str | None = None
    """The kind that a list's filters are about."""
    query: Mapping[str, Schema] = field(default_factory=dict)
    """Parameters, beside a list's."""
    needs: str | None = None
    """The one of them that must be given."""
    streams: str | None = None
    """The content type of its other answer, which does not end."""
    errors: tuple[int, ...] = ()
    method: str = "GET"
    deprecated: bool = False


PAGES: web.AppKey[list[Page]] = web.AppKey("pages", list)


def add_page(app: web.Application, page: Page) -> None:
    """Register a page, and list it among the application's."""
    pattern = page.path.replace("{path}", PATH_PATTERN).replace("{name}", NAME_PATTERN)
    app.router.add_route(page.method, pattern, page.handler)
    if page.method == "GET":
        app.router.add_route("HEAD", pattern, page.handler)
    app[PAGES].append(page)
