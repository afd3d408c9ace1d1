"""JSON Schemas of what the API answers with, beside resources; OpenAPI refers to them by name."""

from __future__ import annotations

from collections.abc import Mapping

from zonemesh.resources.kind import Scope
from zonemesh.resources.schema import Schema

STRING: Schema = {"type": "string"}
TEXTS: Schema = {"type": "object", "additionalProperties": STRING}
TIME: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}


def object_of(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def array_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_COUNT = object_of({"total": NUMBER, "online": NUMBER, "offline": NUMBER})
_TOTAL = object_of({"total": NUMBER})
META: Mapping[str, Schema] = {"name": STRING, "creationTime": TIME, "modificationTime": TIME}
_FAULT = object_of({"field": STRING, "reason": STRING})
_CAUSE = object_of({"field": STRING, "message": STRING})
_LISTENER = object_of(
    {"kri": STRING, "port": NUMBER, "protocol": STRING, "proxyResourceName": STRING}
)

SCHEMAS: Mapping[str, Schema] = {
    "Object": {"type": "object"},
    "Error": object_of(
        {
            "type": {"const": "/std-errors"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "title": STRING,
            "detail": STRING,
            "details": STRING,
        },
        {"invalid_parameters": array_of(_FAULT), "causes": array_of(_CAUSE)},
    ),
    "Written": object_of({}, {"warnings": array_of(STRING)}),
    "Kubernetes": object_of(
        {"apiVersion": STRING, "kind": STRING, "metadata": {"type": "object"}},
        {"mesh": STRING, "spec": {"type": "object"}},
    ),
    "Resource": object_of({"type": STRING, **META}),
    "ZoneOverview": object_of(
        {
            "type": {"const": "ZoneOverview"},
            **META,
            "zone": object_of({"enabled": BOOLEAN}),
        },
        {"zoneInsight": object_of({"subscriptions": array_of({"type": "object"})})},
    ),
    "DataplaneOverview": object_of(
        {
            "type": {"const": "DataplaneOverview"},
            "mesh": STRING,
            **META,
            "labels": TEXTS,
            "dataplane": {"type": "object"},
        },
        {"dataplaneInsight": object_of({"subscriptions": array_of({"type": "object"})})},
    ),
    "Index": object_of(
        dict.fromkeys(("product", "version", "hostname", "instanceId", "clusterId"), STRING)
    ),
    "Catalogue": object_of(
        {
            "resources": array_of(
                object_of(
                    {
                        "name": STRING,
                        "path": STRING,
                        "scope": {"enum": [str(scope) for scope in Scope]},
                        "readOnly": BOOLEAN,
                        "includeInFederation": BOOLEAN,
                        "singularDisplayName": STRING,
                        "pluralDisplayName": STRING,
                        "shortName": STRING,
                    }
                )
            )
        }
    ),
    "Policies": object_of({"policies": array_of({"type": "object"})}),
    "Identity": object_of({"name": STRING, "groups": array_of(STRING)}),
    "GlobalInsight": object_of(
        {
            "createdAt": TIME,
            "dataplanes": {"type": "object", "additionalProperties": _COUNT},
            "meshes": _TOTAL,
            "policies": _TOTAL,
            "resources": {"type": "object", "additionalProperties": _TOTAL},
            "services": {"type": "object", "additionalProperties": _TOTAL},
            "zones": {
                "type": "object",
                "additionalProperties": object_of({"online": NUMBER, "total": NUMBER}),
            },
        }
    ),
    "GlobalInsights": object_of(
        {
            "type": {"const": "GlobalInsights"},
            "creationTime": TIME,
            "resources": {"type": "object", "additionalProperties": _TOTAL},
        }
    ),
    "Layout": object_of(
        {
            "kri": STRING,
            "labels": TEXTS,
            "inbounds": array_of(_LISTENER),
            "outbounds": array_of(_LISTENER),
        }
    ),
    "Hostnames": object_of(
        {
            "items": array_of(
                object_of(
                    {
                        "hostname": STRING,
                        "zones": array_of(object_of({"name": STRING})),
                        "zonemesh": object_of(
                            {},
                            {
                                "held": BOOLEAN,
                                "winner": {"type": ["string", "null"]},
                                "zones": array_of(STRING),
                            },
                        ),
                    }
                )
            ),
            "total": NUMBER,
        }
    ),
}
