"""The API as an aiohttp application: which path means what."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind
from zonemesh.rest import bulk, index, proxy, reading, writing
from zonemesh.rest.api import API, BODY_BYTES_MAX, Api
from zonemesh.rest.backend import Backend
from zonemesh.rest.errors import problems

ALIASES: Mapping[str, str] = {
    "global-secrets": "globalsecrets",
    "zone-ingresses": "zoneingresses",
    "zone-egresses": "zoneegresses",
}
"""Kuma's older names of collections."""

# Collections and names never start with `_`, which is kept for what is not a resource.
_PATH = "{path:[a-z][a-z-]*}"
_NAME = "{name:[^/_][^/]*}"


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
    """Build the application; routes of its own may be added to it before it is served.

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
        kinds=catalogue,
        paths=paths,
        config_dump=config_dump,
        version=version,
        instance=instance or secrets.token_hex(4),
        cluster=cluster,
        read_only=read_only,
        origin_required=origin_required,
    )
    app.cleanup_ctx.append(proxy.session)
    _add_routes(app.router)
    return app


def _add_routes(router: web.UrlDispatcher) -> None:
    """Few routes with a table behind them: the router tries those of one prefix one by one."""
    for path in (f"/meshes/{{mesh}}/{_PATH}/{_NAME}", f"/{_PATH}/{_NAME}"):
        item = router.add_resource(path)
        item.add_route("PUT", writing.put_item)
        item.add_route("GET", reading.get_item)
        item.add_route("DELETE", writing.delete_item)
    router.add_get(f"/meshes/{{mesh}}/{_PATH}", reading.get_list)
    router.add_get(f"/{_PATH}", reading.get_list)
    for overview in ("/zones/_overview", "/zones+insights"):
        router.add_get(overview, reading.get_zone_overviews)
    for overview in (f"/zones/{_NAME}/_overview", f"/zones+insights/{_NAME}"):
        router.add_get(overview, reading.get_zone_overview)
    router.add_get("/_kri/{name}", reading.get_by_kri)
    router.add_post("/_bulk", bulk.post_bulk)
    router.add_get("/", index.get_index)
    router.add_get("/_resources", index.get_resources)
    router.add_get("/config", index.get_config)
    router.add_get("/who-am-i", index.get_who_am_i)
    router.add_get("/_state", index.get_state)
