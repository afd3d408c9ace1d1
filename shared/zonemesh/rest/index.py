"""What the server says about itself: who it is, its catalogue, its configuration, its totals."""

from __future__ import annotations

import socket
import time
from typing import Any

from aiohttp import web

from zonemesh.model import Key
from zonemesh.resources.kind import Kind
from zonemesh.rest import answer, insights
from zonemesh.rest.api import API, Api
from zonemesh.rest.writing import is_online

KUMA_VERSION = "2.14.3"
"""The Kuma whose API this is; kumactl compares it with its own and warns where they differ."""

_HOSTNAME = socket.gethostname()


async def get_index(request: web.Request) -> web.Response:
    """`/`: kumactl adds a control plane only if the product is called Kuma."""
    api = request.app[API]
    return answer.json(
        {
            "hostname": _HOSTNAME,
            "product": "Kuma",
            "tagline": "Kuma",
            "version": KUMA_VERSION,
            "instanceId": api.instance,
            "clusterId": api.cluster,
            "gui": str(request.url.with_path("/gui")),
            "basedOnKuma": KUMA_VERSION,
            "zonemesh": api.version,
        }
    )


async def get_resources(request: web.Request) -> web.Response:
    """`/_resources`: the catalogue, sorted by name."""
    api = request.app[API]
    kinds = sorted(api.kinds.values(), key=lambda kind: kind.name)
    return answer.json({"resources": [_described(api, kind) for kind in kinds]})


async def get_policies(_: web.Request) -> web.Response:
    """`/policies`: there are none, which is what clients of the older catalogue expect to read."""
    return answer.json({"policies": []})


async def get_global_insight(request: web.Request) -> web.Response:
    """`/global-insight`: everything that is seen from here, counted."""
    api = request.app[API]
    zones = (Key.parse(packed).name for packed in api.backend.keys(api.kinds["Zone"], None))
    online = sum(is_online(api.backend.insight(zone)) for zone in zones)
    tallies = await api.counting.dataplanes()
    resources = await api.counting.resources(None)
    return answer.json(
        insights.everything(tallies.values(), resources, now_ms=_now_ms(), zones_online=online)
    )


async def get_global_insights(request: web.Request) -> web.Response:
    """`/global-insights`: how many of each kind there are."""
    resources = await request.app[API].counting.resources(None)
    return answer.json(insights.totals(resources, now_ms=_now_ms()))


async def get_config(request: web.Request) -> web.Response:
    return answer.json(request.app[API].config_dump)


async def get_who_am_i(_: web.Request) -> web.Response:
    """Everyone who reaches this port is its administrator: there are no users."""
    return answer.json({"name": "mesh-system:admin", "groups": ["mesh-system:admin"]})


async def get_state(request: web.Request) -> web.Response:
    """`/_state`: cursors, hashes and lag of this replica."""
    return answer.json(request.app[API].backend.describe())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _described(api: Api, kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "path": kind.path,
        "scope": kind.scope,
        "readOnly": not api.writable(kind),
        "includeInFederation": kind.down and not kind.read_only,
        "singularDisplayName": kind.singular,
        "pluralDisplayName": kind.plural,
        "shortName": kind.short,
    }
