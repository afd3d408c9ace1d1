"""One agent per Dataplane: the first that is connected; what another writes is refused."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from zonemesh.errors import ConflictError
from zonemesh.model import Key

INSTANCE: Final = "X-Zonemesh-Instance"
"""The header by which a process of the agent says which one it is."""

_DATAPLANE: Final = re.compile(r"/meshes/([^/]+)/dataplanes/([^/]+)")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def agent_guard(zone: str, holder: Callable[[str], str | None]) -> Middleware:
    """A middleware; requests without the header, an operator's, pass.

    Args:
        zone: This zone's name.
        holder: The instance whose Dataplane (packed key) it is, if an agent is connected.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        instance = request.headers.get(INSTANCE)
        found = _DATAPLANE.fullmatch(request.path)
        if instance and found and request.method in ("PUT", "DELETE"):
            mesh, name = found.groups()
            other = holder(Key(mesh, zone, "", name).packed)
            if other is not None and other != instance[:100]:
                raise ConflictError(
                    f"another agent ({other}) runs as Dataplane {name}: stop one of the two, or"
                    " give this one a name of its own"
                )
        return await handler(request)

    return guard
