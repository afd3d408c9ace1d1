"""GET: single resources, and lists with paging and filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiohttp import web

from zonemesh import labels
from zonemesh.errors import InputError, MeshError, NotFoundError, UnavailableError
from zonemesh.model import Key
from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import answer, document, naming, ordering, paging
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import Backend, Found
from zonemesh.rest.errors import MeshMissingError, ParameterError
from zonemesh.rest.sources import Source, source
from zonemesh.runtime.slicing import slices

SHOWN_SLICE = 100
"""Items of a page made before other requests get a turn: some 5 ms, of records decoded once."""

Render = Callable[[Found], Mapping[str, Any]]


async def get_item(request: web.Request) -> web.Response:
    """`/{path}/{name}` and `/meshes/{mesh}/{path}/{name}`."""
    api, kind, mesh = where(request)
    kubernetes = wants_kubernetes(request)
    shown = await item(api, kind, mesh, request.match_info["name"])
    return answer.json(document.render_kubernetes(kind, shown) if kubernetes else shown)


async def get_list(request: web.Request) -> web.Response:
    """`/{path}`, across meshes for kinds of a mesh, and `/meshes/{mesh}/{path}`."""
    api = request.app[API]
    mesh = request.match_info.get("mesh")
    kind = api.kind_at(request.match_info["path"], None if mesh is None else Scope.MESH)
    if mesh is not None and not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    return await listed(request, kind, mesh, lambda found: render(api.backend, kind, found))


async def get_by_kri(request: web.Request) -> web.Response:
    """`/_kri/{name}`: the identifier names the same resource on every control plane."""
    api = request.app[API]
    short, key = document.parse_kri(request.match_info["name"])
    kind = next((kind for kind in api.kinds.values() if kind.short == short), None)
    if kind is None:
        raise InputError(f"{short} is no kind's short name")
    record = api.backend.get(kind, key)
    if record is None:
        raise absent(api.backend, request.match_info["name"])
    return answer.json(render(api.backend, kind, Found(key, record)))


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


def absent(backend: Backend, what: str) -> MeshError:
    """What to raise of something that is not known here."""
    why = backend.unread()
    return NotFoundError(what) if why is None else UnavailableError(f"{what}: {why}")


async def find(api: Api, kind: Kind, mesh: str, name: str) -> Found:
    """What is called so here.

    Raises:
        NotFoundError: Nothing.
        UnavailableError: Nothing is known here yet.
    """
    objects = source(api, kind)
    key = objects.resolve(mesh, name)
    for found in () if key is None else await objects.read([key]):
        return found
    raise absent(api.backend, f"{kind.name} {name}")


async def item(api: Api, kind: Kind, mesh: str, name: str) -> dict[str, Any]:
    """One resource, under the very name that it was asked for by."""
    return {**render(api.backend, kind, await find(api, kind, mesh, name)), "name": name}


def render(backend: Backend, kind: Kind, found: Found) -> Mapping[str, Any]:
    return document.render(
        kind,
        found,
        name=naming.shown(kind, found.key, backend.zone),
        labels=labels.of_record(kind, found.key, found.record, backend.zone),
        status=backend.status(kind, found),
    )


async def listed(
    request: web.Request,
    kind: Kind,
    mesh: str | None,
    show: Render,
    *,
    among: Collection[Key] | None = None,
) -> web.Response:
    """A page of what is asked for of a kind, each object as `show` makes it.

    Args:
        request: With the parameters of a list.
        kind: What the parameters select from.
        mesh: None for every mesh.
        show: What an item is.
        among: The keys to select from; None for all there are.
    """
    api = request.app[API]
    query = paging.parse(request.query, kind)
    objects = source(api, kind)
    if among is None:
        keys = await objects.keys(mesh)
    else:
        keys = await ordering.ordered(key.packed for key in among)
    if query.name or query.by_content:
        keys = await _selected(api.backend, kind, query, objects, keys)
    items: list[Mapping[str, Any]] = []
    async for part in slices(keys[query.offset : query.offset + query.size], SHOWN_SLICE):
        # A resource may have gone since its key was read.
        found = await objects.read([Key.parse(each) for each in part])
        items += [show(each) for each in found]
    return answer.json(paging.page(request.url, query, items, total=len(keys)))


async def _selected(
    backend: Backend, kind: Kind, query: paging.Query, objects: Source, keys: Sequence[str]
) -> list[str]:
    """Those whose name and content are asked for."""
    chosen: list[str] = []
    async for part in slices(keys):
        # The name alone first: it spares most of the hashes.
        named = [
            each for each in part if _is_named(kind, query.name, Key.parse(each), backend.zone)
        ]
        if not query.by_content:
            chosen += named
            continue
        chosen += [
            found.key.packed
            for found in await objects.read([Key.parse(each) for each in named])
            if paging.selects(
                query,
                labels.of_record(kind, found.key, found.record, backend.zone),
                found.record.spec,
            )
        ]
    return chosen


def _is_named(kind: Kind, part: str, key: Key, here: str) -> bool:
    return part in key.name or part in naming.shown(kind, key, here)
