"""`GET /openapi.json`: this API in OpenAPI 3.1, made of the catalogue and the table of pages.

Specs are described as objects: what they may hold is checked, fault by fault, by each kind itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import answer, bulk
from zonemesh.rest.api import API, Api
from zonemesh.rest.paging import SIZE_DEFAULT, SIZE_MAX

OPENAPI_VERSION = "3.1.0"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One route that is not a kind's own, and what is said of it."""

    path: str
    """With parameters from `mesh`, `path` and `name`."""
    handler: Handler
    summary: str
    schema: str = "Object"
    """What it answers with: the name of one of `_SCHEMAS`, or `<item>[]` for a list of such."""
    kind: str | None = None
    """The kind that a list's filters are about."""
    errors: tuple[int, ...] = ()
    method: str = "GET"
    deprecated: bool = False


PAGES: web.AppKey[Sequence[Page]] = web.AppKey("pages", Sequence)

_NAME_PATTERN = "^[a-z0-9][-a-z0-9_.]*$"
_STRING: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "object", "additionalProperties": _STRING}
_TIME: Schema = {"type": "string", "format": "date-time"}
_NUMBER: Schema = {"type": "integer", "minimum": 0}

_ERRORS: Mapping[int, str] = {
    400: "Refused: `invalid_parameters` names every fault",
    404: "Not found",
    405: "Not to be written here",
    409: "In conflict with what is there, or nothing left to give",
    413: "Too large",
    503: "Nobody can write right now",
}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_COUNT = _object({"total": _NUMBER, "online": _NUMBER, "offline": _NUMBER})
_TOTAL = _object({"total": _NUMBER})
_META: Mapping[str, Schema] = {"name": _STRING, "creationTime": _TIME, "modificationTime": _TIME}
_FAULT = _object({"field": _STRING, "reason": _STRING})
_CAUSE = _object({"field": _STRING, "message": _STRING})

_SCHEMAS: Mapping[str, Schema] = {
    "Object": {"type": "object"},
    "Error": _object(
        {
            "type": {"const": "/std-errors"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "title": _STRING,
            "detail": _STRING,
            "details": _STRING,
        },
        {"invalid_parameters": _array(_FAULT), "causes": _array(_CAUSE)},
    ),
    "Written": _object({}, {"warnings": _array(_STRING)}),
    "Kubernetes": _object(
        {"apiVersion": _STRING, "kind": _STRING, "metadata": {"type": "object"}},
        {"mesh": _STRING, "spec": {"type": "object"}},
    ),
    "Resource": _object({"type": _STRING, **_META}),
    "ZoneOverview": _object(
        {
            "type": {"const": "ZoneOverview"},
            **_META,
            "zone": _object({"enabled": {"type": "boolean"}}),
        },
        {"zoneInsight": _object({"subscriptions": _array({"type": "object"})})},
    ),
    "DataplaneOverview": _object(
        {
            "type": {"const": "DataplaneOverview"},
            "mesh": _STRING,
            **_META,
            "labels": _TEXTS,
            "dataplane": {"type": "object"},
        },
        {"dataplaneInsight": _object({"subscriptions": _array({"type": "object"})})},
    ),
    "Index": _object(
        dict.fromkeys(("product", "version", "hostname", "instanceId", "clusterId"), _STRING)
    ),
    "Catalogue": _object(
        {
            "resources": _array(
                _object(
                    {
                        "name": _STRING,
                        "path": _STRING,
                        "scope": {"enum": [str(scope) for scope in Scope]},
                        "readOnly": {"type": "boolean"},
                        "includeInFederation": {"type": "boolean"},
                        "singularDisplayName": _STRING,
                        "pluralDisplayName": _STRING,
                        "shortName": _STRING,
                    }
                )
            )
        }
    ),
    "Policies": _object({"policies": _array({"type": "object"})}),
    "Identity": _object({"name": _STRING, "groups": _array(_STRING)}),
    "GlobalInsight": _object(
        {
            "createdAt": _TIME,
            "dataplanes": {"type": "object", "additionalProperties": _COUNT},
            "meshes": _TOTAL,
            "policies": _TOTAL,
            "resources": {"type": "object", "additionalProperties": _TOTAL},
            "services": {"type": "object", "additionalProperties": _TOTAL},
            "zones": {
                "type": "object",
                "additionalProperties": _object({"online": _NUMBER, "total": _NUMBER}),
            },
        }
    ),
    "GlobalInsights": _object(
        {
            "type": {"const": "GlobalInsights"},
            "creationTime": _TIME,
            "resources": {"type": "object", "additionalProperties": _TOTAL},
        }
    ),
    "Hostnames": _object(
        {
            "items": _array(
                _object(
                    {
                        "hostname": _STRING,
                        "zones": _array(_object({"name": _STRING})),
                        "zonemesh": _object(
                            {},
                            {
                                "held": {"type": "boolean"},
                                "winner": {"type": ["string", "null"]},
                                "zones": _array(_STRING),
                            },
                        ),
                    }
                )
            ),
            "total": _NUMBER,
        }
    ),
}


async def get_openapi(request: web.Request) -> web.Response:
    """`/openapi.json`: as this control plane is configured, writes that it refuses left out."""
    return answer.json(document(request.app[API], request.app[PAGES]))


def document(api: Api, pages: Sequence[Page]) -> dict[str, Any]:
    """The OpenAPI document of a control plane's API."""
    paths: dict[str, dict[str, Any]] = {}
    for kind in api.kinds.values():
        for path in _list_paths(kind):
            paths[path] = {"get": _list(kind, kind.name, f"List {kind.plural}")}
        paths[_item_path(kind)] = _item(api, kind)
    for page in pages:
        paths.setdefault(page.path, {})[page.method.lower()] = _operation(api, page)
    for path, operations in paths.items():
        operations["parameters"] = list(_path_parameters(api, path))
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "zonemesh", "version": api.version},
        "paths": paths,
        "components": {"schemas": {**_SCHEMAS, **{k.name: _shown(k) for k in api.kinds.values()}}},
    }


def _list_paths(kind: Kind) -> Iterator[str]:
    yield f"/{kind.path}"
    if kind.scope is Scope.MESH:
        yield f"/meshes/{{mesh}}/{kind.path}"


def _item_path(kind: Kind) -> str:
    inside = "/meshes/{mesh}" if kind.scope is Scope.MESH else ""
    return f"{inside}/{kind.path}/{{name}}"


def _item(api: Api, kind: Kind) -> dict[str, Any]:
    """GET of one resource, and PUT and DELETE where they are allowed."""
    shown = {"oneOf": [_ref(kind.name), _ref("Kubernetes")]}
    formats = {"enum": ["universal", "k8s", "kubernetes"]}
    operations = {
        "get": {
            "summary": f"Read a {kind.singular}",
            "parameters": [_query("format", formats)],
            "responses": _responses({200: shown}, 400, 404),
        }
    }
    if api.writable(kind):
        written = _ref("Written")
        operations["put"] = {
            "summary": f"Create or replace a {kind.singular}",
            "requestBody": {
                "required": True,
                "content": {answer.JSON_TYPE: {"schema": _sent(kind)}},
            },
            "responses": _responses({200: written, 201: written}, 400, 404, 405, 409, 413, 503),
        }
        operations["delete"] = {
            "summary": f"Delete a {kind.singular}",
            "responses": _responses({200: written}, 400, 404, 405, 409, 503),
        }
    return operations


def _operation(api: Api, page: Page) -> dict[str, Any]:
    item, is_list = page.schema.removesuffix("[]"), page.schema.endswith("[]")
    if is_list:
        operation = _list(api.kinds[page.kind or item], item, page.summary)
    elif page.method == "POST":
        lines = {bulk.NDJSON_TYPE: {"schema": _STRING}}
        operation = {
            "summary": page.summary,
            "requestBody": {"required": True, "content": lines},
            "responses": {
                **_responses({}, *page.errors),
                "200": {"description": "A result for each line", "content": lines},
            },
        }
    else:
        responses = _responses({200: _ref(item)}, *page.errors)
        operation = {"summary": page.summary, "responses": responses}
    return operation | ({"deprecated": True} if page.deprecated else {})


def _list(kind: Kind, item: str, summary: str) -> dict[str, Any]:
    """A page of a list: the parameters that select, and what they select."""
    body = _object(
        {
            "total": _NUMBER,
            "items": _array(_ref(item)),
            "next": {"type": ["string", "null"], "format": "uri"},
        }
    )
    size = {"type": "integer", "minimum": 1, "maximum": SIZE_MAX, "default": SIZE_DEFAULT}
    by_label = {
        "type": "object",
        "additionalProperties": _STRING,
        "propertyNames": {"pattern": r"^labels\.[a-z]+$"},
    }
    parameters = [
        _query("size", size),
        _query("offset", {"type": "integer", "minimum": 0, "maximum": 10**9}),
        _query("name", _STRING),
        _query("filter", by_label) | {"style": "deepObject", "explode": True},
    ]
    if kind.name == "Dataplane":
        gateways = {"enum": ["true", "false", "delegated", "builtin"]}
        parameters += [_query("tag", _array(_STRING)), _query("gateway", gateways)]
    responses = _responses({200: body}, 400, 404)
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _responses(good: Mapping[int, Schema], *errors: int) -> dict[str, Any]:
    found = {
        str(status): _response("Created" if status == 201 else "Done", schema)
        for status, schema in good.items()
    }
    return found | {str(status): _response(_ERRORS[status], _ref("Error")) for status in errors}


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {answer.JSON_TYPE: {"schema": schema}}}


def _query(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _path_parameters(api: Api, path: str) -> Iterator[dict[str, Any]]:
    named = {"type": "string", "pattern": _NAME_PATTERN, "maxLength": 253}
    schemas = {"mesh": named, "path": {"enum": sorted(api.paths)}, "name": named}
    for name, schema in schemas.items():
        if f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _shown(kind: Kind) -> Schema:
    """A resource as it is read."""
    meta: dict[str, Schema] = {"type": {"const": kind.name}}
    if kind.scope is Scope.MESH:
        meta["mesh"] = _STRING
    meta |= {**_META, "labels": _TEXTS}
    if kind.short:
        meta["kri"] = _STRING
    if kind.pool:
        meta["snis"] = _array(_object({"port": _NUMBER, "sni": _STRING}))
    if kind.flat:
        return _object(meta)
    return _object({**meta, "spec": {"type": "object"}}, {"status": {"type": "object"}})


def _sent(kind: Kind) -> Schema:
    """A resource as it is written. What the server computes may be there and is ignored."""
    meta: dict[str, Schema] = {"type": {"const": kind.name}, "name": _STRING}
    if kind.scope is Scope.MESH:
        meta["mesh"] = _STRING
    spec: dict[str, Schema] = {} if kind.flat else {"spec": {"type": "object"}}
    return _object(meta, {"labels": _TEXTS, **spec})
