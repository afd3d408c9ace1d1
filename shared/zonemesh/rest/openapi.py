"""`GET /openapi.json`: this API in OpenAPI 3.1, made of the catalogue and the table of pages.

Schemas of specs are those by which kinds check them. A kind refuses more than its schema says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from zonemesh.resources.kind import Kind, Scope
from zonemesh.resources.schema import Schema, schema_of
from zonemesh.rest import answer, bulk
from zonemesh.rest.api import API, Api
from zonemesh.rest.pages import PAGES, Page
from zonemesh.rest.paging import SIZE_DEFAULT, SIZE_MAX
from zonemesh.rest.schemas import (
    META,
    NUMBER,
    SCHEMAS,
    STRING,
    TEXTS,
    array_of,
    object_of,
    ref,
)

OPENAPI_VERSION = "3.1.0"

_NAME_PATTERN = "^[a-z0-9][-a-z0-9_.]*$"

_ERRORS: Mapping[int, str] = {
    400: "Refused: `invalid_parameters` names every fault",
    404: "Not found",
    405: "Not to be written here",
    409: "In conflict with what is there, or nothing left to give",
    413: "Too large",
    503: "Nobody can write right now",
}


async def get_openapi(request: web.Request) -> web.Response:
    """`/openapi.json`: as this control plane is configured, writes that it refuses left out."""
    pages = request.app[PAGES]
    return answer.json(document(request.app[API], pages))


def document(api: Api, pages: Sequence[Page]) -> dict[str, Any]:
    """The OpenAPI document of a control plane's API."""
    paths: dict[str, dict[str, Any]] = {}
    for path, kind in api.paths.items():
        deprecated = _deprecated(path != kind.path)
        for each in _list_paths(kind, path):
            paths[each] = {"get": _list(kind, kind.name, f"List {kind.plural}") | deprecated}
        item = _item(api, kind)
        paths[_item_path(kind, path)] = {method: item[method] | deprecated for method in item}
    for page in pages:
        operation = _operation(api, page) | _deprecated(page.deprecated)
        paths.setdefault(page.path, {})[page.method.lower()] = operation
    for path, operations in paths.items():
        operations["parameters"] = list(_path_parameters(api, path))
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "zonemesh", "version": api.version},
        "paths": paths,
        "components": {"schemas": {**SCHEMAS, **dict(_of_kinds(api.kinds.values()))}},
    }


def _of_kinds(kinds: Iterable[Kind]) -> Iterator[tuple[str, Schema]]:
    for kind in kinds:
        yield kind.name, _shown(kind)
        yield _spec_name(kind), schema_of(kind)


def _spec_name(kind: Kind) -> str:
    return f"{kind.name}Spec"


def _deprecated(deprecated: bool) -> dict[str, bool]:  # noqa: FBT001 -- as it is shown
    return {"deprecated": True} if deprecated else {}


def _list_paths(kind: Kind, path: str) -> Iterator[str]:
    yield f"/{path}"
    if kind.scope is Scope.MESH:
        yield f"/meshes/{{mesh}}/{path}"


def _item_path(kind: Kind, path: str) -> str:
    inside = "/meshes/{mesh}" if kind.scope is Scope.MESH else ""
    return f"{inside}/{path}/{{name}}"


def _item(api: Api, kind: Kind) -> dict[str, Any]:
    """GET of one resource, and PUT and DELETE where they are allowed."""
    shown = {"oneOf": [ref(kind.name), ref("Kubernetes")]}
    formats = {"enum": ["universal", "k8s", "kubernetes"]}
    operations = {
        "get": {
            "summary": f"Read a {kind.singular}",
            "parameters": [_query("format", formats)],
            "responses": _responses({200: shown}, 400, 404),
        }
    }
    if api.writable(kind):
        written = ref("Written")
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
    if page.method == "POST":
        return _lines(page)
    if isinstance(page.schema, str) and page.schema.endswith("[]"):
        item = page.schema.removesuffix("[]")
        return _list(api.kinds[page.kind or item], item, page.summary)
    schema = ref(page.schema) if isinstance(page.schema, str) else page.schema
    responses = _responses({200: schema}, *page.errors)
    if page.streams is not None:
        responses["200"]["content"][page.streams] = {"schema": STRING}
    parameters = [
        _query(name, schema) | ({"required": True} if name == page.needs else {})
        for name, schema in page.query.items()
    ]
    return {"summary": page.summary, "parameters": parameters, "responses": responses}


def _lines(page: Page) -> dict[str, Any]:
    lines = {bulk.NDJSON_TYPE: {"schema": STRING}}
    return {
        "summary": page.summary,
        "requestBody": {"required": True, "content": lines},
        "responses": {
            **_responses({}, *page.errors),
            "200": {"description": "A result for each line", "content": lines},
        },
    }


def _list(kind: Kind, item: str, summary: str) -> dict[str, Any]:
    """A page of a list: the parameters that select, and what they select."""
    body = object_of(
        {
            "total": NUMBER,
            "items": array_of(ref(item)),
            "next": {"type": ["string", "null"], "format": "uri"},
        }
    )
    size = {"type": "integer", "minimum": 1, "maximum": SIZE_MAX, "default": SIZE_DEFAULT}
    by_label = {
        "type": "object",
        "additionalProperties": STRING,
        "propertyNames": {"pattern": r"^labels\.[a-z]+$"},
    }
    parameters = [
        _query("size", size),
        _query("offset", {"type": "integer", "minimum": 0, "maximum": 10**9}),
        _query("name", STRING),
        _query("filter", by_label) | {"style": "deepObject", "explode": True},
    ]
    if kind.name == "Dataplane":
        gateways = {"enum": ["true", "false", "delegated", "builtin"]}
        parameters += [_query("tag", array_of(STRING)), _query("gateway", gateways)]
    responses = _responses({200: body}, 400, 404)
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _responses(good: Mapping[int, Schema], *errors: int) -> dict[str, Any]:
    found = {
        str(status): _response("Created" if status == 201 else "Done", schema)
        for status, schema in good.items()
    }
    return found | {str(status): _response(_ERRORS[status], ref("Error")) for status in errors}


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
        meta["mesh"] = STRING
    meta |= {**META, "labels": TEXTS}
    if kind.short:
        meta["kri"] = STRING
    if kind.pool:
        meta["snis"] = array_of(object_of({"port": NUMBER, "sni": STRING}))
    if kind.flat:
        return {"allOf": [object_of(meta), ref(_spec_name(kind))]}
    return object_of({**meta, "spec": ref(_spec_name(kind))}, {"status": {"type": "object"}})


def _sent(kind: Kind) -> Schema:
    """A resource as it is written. What the server computes may be there and is ignored."""
    meta: dict[str, Schema] = {"type": {"const": kind.name}, "name": STRING}
    if kind.scope is Scope.MESH:
        meta["mesh"] = STRING
    labels: dict[str, Schema] = {"labels": TEXTS | {"type": ["object", "null"]}}
    if kind.flat:
        return {"allOf": [object_of(meta, labels), ref(_spec_name(kind))]}
    if "required" in schema_of(kind):
        meta["spec"] = ref(_spec_name(kind))
    return object_of(meta, {**labels, "spec": ref(_spec_name(kind))})
