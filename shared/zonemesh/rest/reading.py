"""GET: single resources, lists with paging and filters, overviews of zones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from zonemesh import labels
from zonemesh.errors import InputError, NotFoundError
from zonemesh.model import Key
from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import answer, document, naming, paging
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import Backend, Found
from zonemesh.rest.errors import MeshMissingError, ParameterError

SLICE = 2_000
"""Keys or records looked at before other requests get a turn: some 5 ms."""

T = TypeVar("T")
Render = Callable[[Found], Mapping[str, Any]]


async def get_item(request: web.Request) -> web.Response:
    """`/{path}/{name}` and `/meshes/{mesh}/{path}/{name}`."""
    api, kind, mesh = where(request)
    kubernetes = wants_kubernetes(request)
    shown = item(api.backend, kind, mesh, request.match_info["name"])
    return answer.json(document.render_kubernetes(kind, shown) if kubernetes else shown)


async def get_list(request: web.Request) -> web.Response:
    """`/{path}`, across meshes for kinds of a mesh, and `/meshes/{mesh}/{path}`."""
    api = request.app[API]
    mesh = request.match_info.get("mesh")
    kind = api.kind_at(request.match_info["path"], None if mesh is None else Scope.MESH)
    if mesh is not None and not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    return await _listed(request, kind, mesh, lambda found: render(api.backend, kind, found))


async def get_by_kri(request: web.Request) -> web.Response:
    """`/_kri/{name}`: the identifier names the same resource on every control plane."""
    api = request.app[API]
    short, key = document.parse_kri(request.match_info["name"])
    kind = next((kind for kind in api.kinds.values() if kind.short == short), None)
    if kind is None:
        raise InputError(f"{short} is no kind's short name")
    record = api.backend.get(kind, key)
    if record is None:
        raise NotFoundError(request.match_info["name"])
    return answer.json(render(api.backend, kind, Found(key, record)))


async def get_zone_overview(request: web.Request) -> web.Response:
    """`/zones/{name}/_overview`."""
    api = request.app[API]
    kind = api.kind_at("zones")
    found = find(api.backend, kind, "", request.match_info["name"])
    return answer.json(_overview(api.backend, kind, found))


async def get_zone_overviews(request: web.Request) -> web.Response:
    """`/zones/_overview`: what `kumactl inspect zones` reads."""
    api = request.app[API]
    kind = api.kind_at("zones")
    return await _listed(request, kind, None, lambda found: _overview(api.backend, kind, found))


def where(request: web.Request) -> tuple[Api, Kind, str]:
    """The kind and mesh that an item's URL means; the mesh is "" for kinds outside meshes.

    Raises:
        MeshMissingError: There is no such mesh.
    """
    api = request.app[API]
    info = request.match_info
    mesh = info.get("mesh", "")
    kind = api.kind_at(info["path"], Scope.MESH if mesh else Scope.GLOBAL)
    if mesh and not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    return api, kind, mesh


def wants_kubernetes(request: web.Request) -> bool:
    """What `?format=` asks for: `universal` (as without it), or `k8s`, `kubernetes`."""
    wanted = request.query.get("format", "universal")
    if wanted not in ("universal", "k8s", "kubernetes"):
        raise ParameterError("Invalid format", "format", f"unknown format {wanted!r}")
    return wanted != "universal"


def find(backend: Backend, kind: Kind, mesh: str, name: str) -> Found:
    """What is called so here.

    Raises:
        NotFoundError: Nothing.
    """
    key = naming.resolve(backend, kind, mesh, name)
    record = None if key is None else backend.get(kind, key)
    if key is None or record is None:
        raise NotFoundError(f"{kind.name} {name}")
    return Found(key, record)


def item(backend: Backend, kind: Kind, mesh: str, name: str) -> dict[str, Any]:
    """One resource, under the very name that it was asked for by."""
    return dict(render(backend, kind, find(backend, kind, mesh, name))) | {"name": name}


def render(backend: Backend, kind: Kind, found: Found) -> Mapping[str, Any]:
    return document.render(
        kind,
        found,
        name=naming.shown(kind, found.key, backend.zone),
        labels=labels.of_record(kind, found.key, found.record, backend.zone),
        status=backend.status(kind, found),
    )


def _overview(backend: Backend, kind: Kind, found: Found) -> Mapping[str, Any]:
    """A zone with its insight. Kuma leaves `labels` out; an insight that is not there, too."""
    shown = render(backend, kind, found)
    meta = ("name", "creationTime", "modificationTime")
    insight = backend.insight(found.key.name)
    return {
        "type": "ZoneOverview",
        **{field: shown[field] for field in meta},
        "zone": {"enabled": found.record.spec.get("enabled", True)},
        **({} if insight is None else {"zoneInsight": insight}),
    }


async def _listed(request: web.Request, kind: Kind, mesh: str | None, show: Render) -> web.Response:
    backend = request.app[API].backend
    query = paging.parse(request.query, kind)
    keys = await _ordered(list(backend.keys(kind, mesh)))
    if query.name or query.by_content:
        keys = await _selected(backend, kind, query, keys)
    page = map(_key, keys[query.offset : query.offset + query.size])
    records = ((key, backend.get(kind, key)) for key in page)
    # A resource may have gone since its key was read.
    items = [show(Found(key, record)) for key, record in records if record is not None]
    return answer.json(
        {
            "total": len(keys),
            "items": items,
            "next": paging.next_page(request.url, query, len(keys)),
        }
    )


async def _ordered(packed: list[str]) -> list[str]:
    """Keys by mesh and name, then where they come from, each as `_sortable` writes it.

    Kuma sorts by the name shown, which for copies ends in a hash. Hashing 100,000 names for the
    order of one page would take a second, and the result differs only where one display name is
    the beginning of another's.
    """
    ordered: list[str] = []
    async for part in _slices(packed):
        ordered += sorted(map(_sortable, part))
    if len(ordered) > SLICE:
        ordered.sort()  # runs in order: a merge
    return ordered


def _sortable(packed: str) -> str:
    """A packed key with its parts in sorting order.

    Strings and not tuples: 100,000 of them sort in a third of the time, and wake no collector.
    """
    mesh, zone, namespace, name = packed.split("/")
    return f"{mesh}\0{name}\0{zone}\0{namespace}"


def _key(sortable: str) -> Key:
    mesh, name, zone, namespace = sortable.split("\0")
    return Key(mesh, zone, namespace, name)


async def _selected(
    backend: Backend, kind: Kind, query: paging.Query, ordered: Sequence[str]
) -> list[str]:
    """Those whose name and content are asked for."""
    chosen: list[str] = []
    async for part in _slices(ordered):
        chosen += [key for key in part if _is_selected(backend, kind, query, _key(key))]
    return chosen


def _is_selected(backend: Backend, kind: Kind, query: paging.Query, key: Key) -> bool:
    # The name alone first: it spares most of the hashes.
    if query.name not in key.name and query.name not in naming.shown(kind, key, backend.zone):
        return False
    if not query.by_content:
        return True
    record = backend.get(kind, key)
    return record is not None and paging.selects(
        query, labels.of_record(kind, key, record, backend.zone), record.spec
    )


async def _slices(items: Sequence[T]) -> AsyncGenerator[Sequence[T]]:
    """Parts of a long sequence, with a turn for other requests between them."""
    for start in range(0, len(items), SLICE):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + SLICE]
