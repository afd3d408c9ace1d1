"""PUT and DELETE: what is allowed here, and a document turned into a write.

`prepare` is what PUT and `_bulk` have in common; it decides and does not write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from zonemesh import labels, names
from zonemesh.deciding import Delete, Put
from zonemesh.errors import MeshError, ValidationError, Violation
from zonemesh.model import Key
from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import answer, document, naming, proxy, reading
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import NotLeaderError
from zonemesh.rest.errors import TITLE, MeshMissingError, ReadOnlyError


async def put_item(request: web.Request) -> web.StreamResponse:
    """Create (201) or replace (200) a resource."""
    api = request.app[API]
    if (url := api.backend.leader_url()) is not None:
        return await proxy.forward(request, url)
    _, kind, mesh = reading.where(request)
    require_writable(api, kind)
    data = await request.read()
    if "yaml" in request.headers.get("Content-Type", ""):
        body = await asyncio.to_thread(document.from_yaml, data)
    else:
        body = document.from_json(data)
    target = Target(kind, mesh, request.match_info["name"])
    prepared = prepare(api, target, body)
    operation = "create" if prepared.is_new else "update"
    request[TITLE] = f"Failed to {operation} a resource"
    return await _write(request, prepared.put, prepared.warnings)


async def delete_item(request: web.Request) -> web.StreamResponse:
    """Remove a resource: 200, 404 if it is not there, 400 if others depend on it; 503 while it is
    not known whether it is there.
    """
    api = request.app[API]
    if (url := api.backend.leader_url()) is not None:
        return await proxy.forward(request, url)
    _, kind, mesh = reading.where(request)
    require_writable(api, kind)
    name = request.match_info["name"]
    key = naming.resolve(api.backend, kind, mesh, name)
    if key is None:
        raise reading.absent(api.backend, f"{kind.name} {name}")
    _require_own(api, kind, key)
    _require_free(api, kind, key)
    return await _write(request, Delete(kind.name, key))


async def _write(
    request: web.Request, item: Put | Delete, warnings: Sequence[str] = ()
) -> web.StreamResponse:
    backend = request.app[API].backend
    try:
        (outcome,) = await backend.write((item,))
    except NotLeaderError:
        # Deposed since it was asked: nothing was written, so the new leader may be.
        return await proxy.forward(request, backend.leader_url() or "")
    if isinstance(outcome, MeshError):
        raise outcome
    created = outcome.created and isinstance(item, Put)
    response = answer.warned(warnings, status=201 if created else 200)
    response.headers[proxy.POSITION] = str(outcome.position)
    return response


def require_writable(api: Api, kind: Kind) -> None:
    """Raise ReadOnlyError where this control plane's role or configuration forbids writes."""
    if api.writable(kind):
        return
    if api.read_only:
        raise ReadOnlyError("this API is read-only (apiServer.readOnly)")
    if kind.read_only:
        raise ReadOnlyError(f"{kind.name} is written by control planes only")
    elsewhere = "a zone" if api.backend.on_global else "the global"
    raise ReadOnlyError(f"{kind.name} can be changed on {elsewhere} control plane only")


class Target(NamedTuple):
    """What a document is said to be, by its URL or by its own metadata."""

    kind: Kind
    mesh: str
    """"" for kinds outside meshes."""
    name: str
    """What the client calls it."""


class Prepared(NamedTuple):
    """A document that may be written."""

    put: Put
    is_new: bool
    """Nothing of that name is there yet."""
    warnings: Sequence[str]
    """What was accepted and most likely is not meant; at most `WARNINGS_MAX`."""


WARNINGS_MAX = 20
"""Said of one document, and then how many more: kumactl prints each on a line of its own."""


def prepare(
    api: Api, target: Target, body: Mapping[str, Any], meshes: Collection[str] = ()
) -> Prepared:
    """Check a document and turn it into a write.

    Args:
        api: Where it is to be written.
        target: What it is; `require_writable` has been asked.
        body: The document, parsed and otherwise unchecked.
        meshes: Those that exist although the backend does not know them yet (same `_bulk`).

    Raises:
        ValidationError: Everything that is wrong with the document.
        MeshMissingError: There is no such mesh.
    """
    backend = api.backend
    kind, mesh, name = target
    if kind.scope is Scope.MESH and not (mesh in meshes or backend.mesh_exists(mesh)):
        raise MeshMissingError(f"mesh {mesh}")
    existing = naming.resolve(backend, kind, mesh, name)
    faults = document.meta_faults(kind, mesh, name, body)
    sent = body.get("labels")
    key, key_faults = _key_of(api, target, sent, existing)
    faults += key_faults
    faults += labels.faults(
        sent,
        kind,
        key,
        here=backend.zone,
        origin_required=api.origin_required and backend.federated,
    )
    spec: dict[str, Any] = {}
    try:
        spec = kind.validate(document.spec_of(kind, body), key.name)
    except ValidationError as error:
        faults += error.violations
    if faults:
        raise ValidationError(faults)
    kept = labels.stored(sent) if sent else {}
    kept.pop(labels.NAMESPACE, None)  # it is in the key
    put = Put(kind.name, key, kept, spec)
    return Prepared(put, existing is None, _shortened(kind.warnings(spec, key.name)))


def _shortened(warnings: Sequence[str]) -> Sequence[str]:
    more = len(warnings) - WARNINGS_MAX
    return warnings if more <= 0 else [*warnings[:WARNINGS_MAX], f"and {more} more"]


def _key_of(
    api: Api, target: Target, sent: Any, existing: Key | None
) -> tuple[Key, list[Violation]]:
    """The key that a document with labels `sent` is stored under, and its name's faults."""
    _, mesh, name = target
    zone = api.backend.zone
    found: list[Violation] = []
    if existing is not None and existing.zone != zone:
        owner = f"zone {existing.zone}" if existing.zone else "the global control plane"
        found.append(Violation("name", f"is the name of a copy; the original is in {owner}"))
    namespace = sent.get(labels.NAMESPACE) if isinstance(sent, dict) else None
    if not isinstance(namespace, str):
        namespace = existing.namespace if existing is not None else ""
    display = name.removesuffix(f".{namespace}") if namespace else name
    key = Key(mesh, zone, namespace, display)
    if existing is not None and existing.zone == zone and existing != key:
        reason = f"cannot change: it is {existing.namespace!r}"
        found.append(Violation(f'labels["{labels.NAMESPACE}"]', reason))
    if api.backend.federated and len(f"{zone}.{name}") >= names.NAME_MAX:
        found.append(Violation("name", f"{zone}.{name} must be shorter than {names.NAME_MAX}"))
    return key, found


def _require_own(api: Api, kind: Kind, key: Key) -> None:
    if key.zone != api.backend.zone:
        raise ReadOnlyError(
            f"{kind.name} {key.name} is a copy; delete it on "
            + (f"zone {key.zone}" if key.zone else "the global control plane")
        )


def _require_free(api: Api, kind: Kind, key: Key) -> None:
    """What others depend on is not deleted under them."""
    backend = api.backend
    if kind.name == "Mesh" and any(True for _ in backend.keys(api.kinds["Dataplane"], key.name)):
        reason = "unable to delete mesh, there are still some dataplanes attached"
        raise ValidationError([Violation("mesh", reason)])
    if kind.name == "Zone" and is_online(backend.insight(key.name)):
        reason = "unable to delete Zone, Zone CP is still connected, please shut it down first"
        raise ValidationError([Violation("zone", reason)])


def is_online(insight: Mapping[str, Any] | None) -> bool:
    """Whether some subscription of a ZoneInsight is open."""
    return insight is not None and any(
        subscription.get("connectTime") and not subscription.get("disconnectTime")
        for subscription in insight.get("subscriptions", ())
    )
