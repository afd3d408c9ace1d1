"""GET: what belongs to a service: `_hostnames` that it is given, `_dataplanes` that it selects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web

from zonemesh.errors import InputError, NotFoundError
from zonemesh.hostnames import KINDS, MESH_SERVICE, Outcome, ServiceId
from zonemesh.model import Key
from zonemesh.resources.kind import Kind
from zonemesh.rest import answer, reading
from zonemesh.rest.api import API, Api
from zonemesh.rest.backend import Found
from zonemesh.rest.errors import MeshMissingError

_PATHS = ",".join(f"{name.lower()}s" for name in reversed(KINDS))


class NotInspectedError(InputError):
    """A kind whose objects get no hostnames."""

    code = "not_inspected"
    title: ClassVar[str] = f'only "{_PATHS}" are available for inspection'


class ServiceMissingError(NotFoundError):
    title: ClassVar[str] = "could not retrieve service"


async def get_hostnames(request: web.Request) -> web.Response:
    """`/meshes/{mesh}/{path}/{name}/_hostnames`: the names that generators make of a service.

    `zones` is where the service is, as in Kuma. What became of a name is said by `zonemesh`: on a
    zone `held`, and the `winner` (a KRI) if another service holds it; on global the `zones` in
    which it is held, and by zone the `winners` that hold it instead.
    """
    api = request.app[API]
    kind = api.paths.get(request.match_info["path"])
    if kind is None or kind.name not in KINDS:
        raise NotInspectedError(f"{request.match_info['path']} have no hostnames")
    found = await _service(request, api, kind)
    outcomes = api.backend.outcomes(kind, found)
    if api.backend.on_global:
        items = _in_zones(api, outcomes, found.key.zone)
    else:
        here = api.backend.zone
        items = _given(api, outcomes[here], found.key.zone or here)
    return answer.json({"items": [items[name] for name in sorted(items)], "total": len(items)})


async def get_dataplanes(request: web.Request) -> web.Response:
    """`/meshes/{mesh}/meshservices/{name}/_dataplanes`: a list, filtered and paged as any is."""
    api = request.app[API]
    kind = api.kinds["Dataplane"]
    service = await _service(request, api, api.kinds[MESH_SERVICE])
    selected = [Key.parse(packed) for packed, _ in api.backend.members(service)]
    return await reading.listed(
        request,
        kind,
        service.key.mesh,
        lambda found: reading.render(api.backend, kind, found),
        among=[key for key in selected if api.backend.get(kind, key) is not None],
    )


async def _service(request: web.Request, api: Api, kind: Kind) -> Found:
    mesh, name = request.match_info["mesh"], request.match_info["name"]
    if not api.backend.mesh_exists(mesh):
        raise MeshMissingError(f"mesh {mesh}")
    try:
        return await reading.find(api, kind, mesh, name)
    except NotFoundError as error:
        raise ServiceMissingError(str(error)) from error


def _given(api: Api, outcomes: Sequence[Outcome], home: str) -> dict[str, dict[str, Any]]:
    """What a service is called in the zone that is asked, by hostname."""
    return {
        outcome.hostname: {
            "hostname": outcome.hostname,
            "zones": [{"name": home}],
            "zonemesh": {
                "held": outcome.generated,
                "winner": None if outcome.winner is None else _kri(api, outcome.winner),
            },
        }
        for outcome in outcomes
        if outcome.hostname is not None
    }


def _in_zones(
    api: Api, outcomes: Mapping[str, Sequence[Outcome]], home: str
) -> dict[str, dict[str, Any]]:
    """What a service is called in which zones, by hostname."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    winners: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for zone, made in outcomes.items():
        for outcome in made:
            name = outcome.hostname
            if name is None:
                continue
            if outcome.winner is not None:
                winners[name][zone] = _kri(api, outcome.winner)
            elif zone not in held[name]:
                held[name].append(zone)
    return {
        name: {
            "hostname": name,
            "zones": [{"name": zone} for zone in ([home] if home else held[name])],
            "zonemesh": {
                "zones": held[name],
                **({"winners": winners[name]} if name in winners else {}),
            },
        }
        for name in {**held, **winners}
    }


def _kri(api: Api, service: ServiceId) -> str:
    return api.kinds[service.kind].kri(Key.parse(service.key))
