"""GET `_overview`: zones and Dataplanes together with their insights, as kumactl's tables show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import answer, insights, reading
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import Found
from zonemesh.rest.errors import MeshMissingError

_META = ("type", "mesh", "name", "creationTime", "modificationTime", "labels")


async def get_zone(request: web.Request) -> web.Response:
    """`/zones/{name}/_overview`."""
    api = request.app[API]
    kind = api.kind_at("zones")
    name = request.match_info["name"]
    return answer.json(_zone(api, kind, await reading.find(api, kind, "", name)))


async def get_zones(request: web.Request) -> web.Response:
    """`/zones/_overview`: what `kumactl inspect zones` reads."""
    api = request.app[API]
    kind = api.kind_at("zones")
    return await reading.listed(request, kind, None, lambda found: _zone(api, kind, found))


async def get_dataplane(request: web.Request) -> web.Response:
    """`/meshes/{mesh}/dataplanes/{name}/_overview`."""
    api, kind, mesh = _dataplanes(request)
    name = request.match_info["name"]
    found = await reading.find(api, kind, mesh or "", name)
    return answer.json(_dataplane(api, kind, found) | {"name": name})


async def get_dataplanes(request: web.Request) -> web.Response:
    """`/dataplanes/_overview`, of a mesh or of all: what `kumactl inspect dataplanes` reads."""
    api, kind, mesh = _dataplanes(request)
    return await reading.listed(request, kind, mesh, lambda found: _dataplane(api, kind, found))


def _dataplanes(request: web.Request) -> tuple[Api, Kind, str | None]:
    api = request.app[API]
    mesh = request.match_info.get("mesh")
    if mesh is not None and not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    return api, api.kind_at("dataplanes", Scope.MESH), mesh


def _zone(api: Api, kind: Kind, found: Found) -> Mapping[str, Any]:
    """A zone with its insight. Kuma leaves `labels` out; an insight that is not there, too."""
    shown = reading.render(api.backend, kind, found)
    insight = api.backend.insight(found.key.name)
    return {
        **{field: shown[field] for field in _META if field in shown and field != "labels"},
        "type": "ZoneOverview",
        "zone": {"enabled": found.record.spec.get("enabled", True)},
        **({} if insight is None else {"zoneInsight": insight}),
    }


def _dataplane(api: Api, kind: Kind, found: Found) -> dict[str, Any]:
    """A Dataplane with its insight, which is left out if no agent was ever seen."""
    shown = reading.render(api.backend, kind, found)
    agent = api.backend.connected(found.key.packed)
    return {
        **{field: shown[field] for field in _META},
        "type": "DataplaneOverview",
        "dataplane": found.record.spec,
        **({} if agent is None else {"dataplaneInsight": insights.dataplane(agent)}),
    }
