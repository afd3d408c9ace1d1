"""GET `_layout`: what a Dataplane's proxy has listeners for, as names that tools can follow.

Inbounds are what its Dataplane says. Outbounds are ports of the services that its own feed has,
after trimming; a legacy name's have no identifier, and are not here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from zonemesh import labels
from zonemesh.members import inbounds
from zonemesh.model import Key, Record
from zonemesh.reach import Reach, reach_of
from zonemesh.resources import ports
from zonemesh.resources.kind import Kind, Scope
from zonemesh.resources.tags import PROTOCOL
from zonemesh.rest import answer, reading
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import Found
from zonemesh.rest.errors import MeshMissingError
from zonemesh.runtime.slicing import RECORDS_SLICE, slices

_TCP = "tcp"


async def get_layout(request: web.Request) -> web.Response:
    """`/meshes/{mesh}/dataplanes/{name}/_layout`, in Kuma's shape (its `api.yaml`).

    On global as on the Dataplane's zone, but for what global has not merged yet.
    """
    api = request.app[API]
    mesh = request.match_info["mesh"]
    if not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    kind = api.kind_at("dataplanes", Scope.MESH)
    found = await reading.find(api, kind, mesh, request.match_info["name"])
    outbounds = [each async for each in _outbounds(api, found)]
    return answer.json(
        {
            "kri": kind.kri(found.key),
            "labels": labels.of_record(kind, found.key, found.record, api.backend.zone),
            "inbounds": list(_inbounds(kind, found)),
            "outbounds": sorted(outbounds, key=lambda each: str(each["kri"])),
        }
    )


def _inbounds(kind: Kind, dataplane: Found) -> Iterator[dict[str, Any]]:
    for inbound in inbounds(dataplane.record):
        section = inbound.get("name") or str(inbound["port"])
        tagged = (inbound.get("tags") or {}).get(PROTOCOL)
        yield {
            "kri": kind.kri(dataplane.key, section),
            "port": inbound["port"],
            "protocol": (inbound.get("protocol") or tagged or _TCP).lower(),
            # Of the proxy itself, so that its metrics are few.
            "proxyResourceName": f"self_inbound_{kind.short}_{section}",
        }


async def _outbounds(api: Api, dataplane: Found) -> AsyncIterator[dict[str, Any]]:
    zone = dataplane.key.zone
    reach = reach_of(zone, dataplane.record)
    for kind in api.kinds.values():
        packed = list(api.backend.keys(kind, dataplane.key.mesh)) if kind.pool else []
        async for part in slices(packed, RECORDS_SLICE):
            for key in map(Key.parse, part):
                if not _is_given(api, kind, key, zone):
                    continue
                for outbound in _of_service(api, kind, key, zone, reach):
                    yield outbound


def _is_given(api: Api, kind: Kind, key: Key, zone: str) -> bool:
    """Whether data planes of a zone are given a service."""
    if key.zone != zone and not (kind.across if key.zone else kind.down):
        return False
    return api.backend.address(kind, key, zone) is not None


def _of_service(
    api: Api, kind: Kind, key: Key, zone: str, reach: Reach | None
) -> Iterator[dict[str, Any]]:
    record = api.backend.get(kind, key)
    if record is None or (key.zone != zone and record.labels.get(labels.KDS_SYNC) == "disabled"):
        return
    shown = partial(_labels, kind, key, record, zone)
    for each in ports.served(ports.listed(record.spec)):
        number = each.port["port"]
        if reach is not None and not reach.allows(kind.name, key.packed, shown, number):
            continue
        name = kind.kri(key, each.section)
        yield {
            "kri": name,
            "port": number,
            "protocol": each.port.get("appProtocol") or each.port.get("protocol") or _TCP,
            "proxyResourceName": name,
        }


def _labels(kind: Kind, key: Key, record: Record, zone: str, *_asked: str) -> Mapping[str, str]:
    """All labels of a service as its data planes' zone shows them."""
    return labels.of_record(kind, key, record, zone)
