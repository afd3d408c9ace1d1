"""The API as an aiohttp application: which path means what."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind
from zonemesh.rest import bulk, index, inspecting, layout, overviews, proxy, reading, writing
from zonemesh.rest.api import API, BODY_BYTES_MAX, Api
from zonemesh.rest.backend import Backend
from zonemesh.rest.counting import Counting
from zonemesh.rest.errors import problems
from zonemesh.rest.openapi import get_openapi
from zonemesh.rest.pages import NAME_PATTERN, PAGES, PATH_PATTERN, Page, add_page

ALIASES: Mapping[str, str] = {
    "global-secrets": "globalsecrets",
    "zone-ingresses": "zoneingresses",
    "zone-egresses": "zoneegresses",
}
"""Kuma's older names of collections."""

_ONE = (400, 404)

_PAGES = (
    Page(path="/", handler=index.get_index, schema="Index", summary="Who answers here"),
    Page(
        path="/_resources",
        handler=index.get_resources,
        schema="Catalogue",
        summary="The kinds, and which of them may be written here",
    ),
    Page(
        path="/policies",
        handler=index.get_policies,
        schema="Policies",
        summary="The older catalogue of policies: none",
    ),
    Page(path="/config", handler=index.get_config, summary="The effective configuration"),
    Page(
        path="/who-am-i", handler=index.get_who_am_i, schema="Identity", summary="The client's user"
    ),
    Page(path="/_state", handler=index.get_state, summary="Cursors, hashes and lag of this copy"),
    Page(path="/openapi.json", handler=get_openapi, summary="This document"),
    Page(
        path="/global-insight",
        handler=index.get_global_insight,
        schema="GlobalInsight",
        summary="Everything in numbers",
    ),
    Page(
        path="/global-insights",
        handler=index.get_global_insights,
        schema="GlobalInsights",
        summary="How many of each kind there are",
    ),
    Page(
        path="/_kri/{name}",
        handler=reading.get_by_kri,
        schema="Resource",
        summary="The resource that an identifier names",
        errors=_ONE,
    ),
    Page(
        path="/_bulk",
        method="POST",
        handler=bulk.post_bulk,
        summary="Write many resources, one on each line",
        errors=(503,),
    ),
    Page(
        path="/meshes/{mesh}/{path}/{name}/_hostnames",
        handler=inspecting.get_hostnames,
        schema="Hostnames",
        summary="The names that a service is given",
        errors=_ONE,
    ),
    Page(
        path="/meshes/{mesh}/meshservices/{name}/_dataplanes",
        handler=inspecting.get_dataplanes,
        schema="Dataplane[]",
        summary="The Dataplanes that a service selects",
    ),
    Page(
        path="/meshes/{mesh}/dataplanes/{name}/_layout",
        handler=layout.get_layout,
        schema="Layout",
        summary="What a Dataplane's proxy listens for, inwards and outwards",
        errors=_ONE,
    ),
    *(
        Page(
            path=path,
            handler=overviews.get_zones,
            schema="ZoneOverview[]",
            kind="Zone",
            summary="Zones with their insights",
            deprecated="+" in path,
        )
        for path in ("/zones/_overview", "/zones+insights")
    ),
    *(
        Page(
            path=path,
            handler=overviews.get_zone,
            schema="ZoneOverview",
            summary="A zone with its insight",
            errors=_ONE,
            deprecated="+" in path,
        )
        for path in ("/zones/{name}/_overview", "/zones+insights/{name}")
    ),
    *(
        Page(
            path=path,
            handler=overviews.get_dataplanes,
            schema="DataplaneOverview[]",
            kind="Dataplane",
            summary="Dataplanes with their insights",
            deprecated="+" in path,
        )
        for path in (
            "/dataplanes/_overview",
            "/meshes/{mesh}/dataplanes/_overview",
            "/dataplanes+insights",
            "/meshes/{mesh}/dataplanes+insights",
        )
    ),
    *(
        Page(
            path=path,
            handler=overviews.get_dataplane,
            schema="DataplaneOverview",
            summary="A Dataplane with its insight",
            errors=_ONE,
            deprecated="+" in path,
        )
        for path in (
            "/meshes/{mesh}/dataplanes/{name}/_overview",
            "/meshes/{mesh}/dataplanes+insights/{name}",
        )
    ),
)
"""Those of both control planes."""


def make_app(
    backend: Backend,
    *,
    catalogue: Mapping[str, Kind],
    config_dump: Mapping[str, Any],
    version: str,
    instance: str | None = None,
    cluster: str = "",
    read_only: bool = False,
    origin_required: bool = False,
) -> web.Application:
    """Build the application; pages of its own may be added to it before it is served.

    Args:
        backend: The control plane's state and its way to write.
        catalogue: The kinds, by name.
        config_dump: The effective configuration, secrets masked, for `GET /config`.
        version: This build's.
        instance: Names this process; random if None.
        cluster: What `GET /` gives as `clusterId`: the incarnation of the global log, say.
        read_only: `apiServer.readOnly`.
        origin_required: On a federated zone, refuse documents without `kuma.io/origin: zone`.
    """
    paths = {kind.path: kind for kind in catalogue.values()}
    paths |= {alias: paths[path] for alias, path in ALIASES.items() if path in paths}
    app = web.Application(middlewares=[problems], client_max_size=BODY_BYTES_MAX)
    app[API] = Api(
        backend=backend,
        counting=Counting(backend, list(catalogue.values())),
        kinds=catalogue,
        paths=paths,
        config_dump=config_dump,
        version=version,
        instance=instance or secrets.token_hex(4),
        cluster=cluster,
        read_only=read_only,
        origin_required=origin_required,
    )
    app[PAGES] = []
    app.cleanup_ctx.append(proxy.session)
    _add_routes(app.router)
    for page in _PAGES:
        add_page(app, page)
    return app


def _add_routes(router: web.UrlDispatcher) -> None:
    """Few routes with a table behind them: the router tries those of one prefix one by one."""
    for place in ("/meshes/{mesh}", ""):
        item = router.add_resource(f"{place}/{PATH_PATTERN}/{NAME_PATTERN}")
        item.add_route("PUT", writing.put_item)
        item.add_route("GET", reading.get_item)
        item.add_route("DELETE", writing.delete_item)
    router.add_get(f"/meshes/{{mesh}}/{PATH_PATTERN}", reading.get_list)
    router.add_get(f"/{PATH_PATTERN}", reading.get_list)
