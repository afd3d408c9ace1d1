"""`GET /meshes/{mesh}/_bootstrap`: what an agent takes over from its zone as it starts."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from zonecp.dataplane.coredns.parts import read_template
from zonemesh.errors import NotFoundError
from zonemesh.ipam import IPV6_CIDR
from zonemesh.rest import answer
from zonemesh.rest.pages import Page, add_page
from zonemesh.rest.schemas import STRING, array_of, object_of
from zonemesh.settings import Settings

_TEXT_OR_NULL = {"type": ["string", "null"]}
_ANSWER = object_of({"corefileTemplate": _TEXT_OR_NULL, "vipCidrs": array_of(STRING)})


def read_corefile_template(path: Path | None) -> str | None:
    """The template that agents are given.

    Raises:
        ConfigError: It cannot be read or is none, with the line.
    """
    if path is None:
        return None
    return read_template(path, "bootstrapServer.corefileTemplatePath").text


def add_bootstrap(
    app: web.Application,
    *,
    corefile_template: str | None,
    settings: Callable[[], Settings],
    mesh_exists: Callable[[str], bool],
) -> None:
    """Add the route to a zone's application."""

    async def bootstrap(request: web.Request) -> web.Response:
        mesh = request.match_info["mesh"]
        if not mesh_exists(mesh):
            raise NotFoundError(f"mesh {mesh} does not exist")
        return answer.json(
            {"corefileTemplate": corefile_template, "vipCidrs": _vip_cidrs(settings())}
        )

    page = Page(
        path="/meshes/{mesh}/_bootstrap",
        handler=bootstrap,
        summary="What an agent takes over from its zone as it starts",
        schema=_ANSWER,
        query={"dataplane": STRING},
    )
    add_page(app, page)


def _vip_cidrs(settings: Settings) -> list[str]:
    """Every range that an address may be from, those included that drain."""
    former = (settings.former_pool(name).cidrs for name in {*settings.pools, *settings.former})
    pools = [*settings.pools.values(), settings.legacy_cidrs, *former]
    given = [ipaddress.IPv4Network(cidr) for cidrs in pools for cidr in cidrs]
    return [*map(str, ipaddress.collapse_addresses(given)), IPV6_CIDR]
