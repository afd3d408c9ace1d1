"""Specs of every kind as users write them, whole and in parts."""

from __future__ import annotations

from typing import Any

from zonemesh.errors import ValidationError
from zonemesh.resources import (
    dataplane,
    hostnamegenerator,
    mesh,
    meshexternalservice,
    meshmultizoneservice,
    meshservice,
    virtualoutbound,
    zone,
    zoneegress,
    zoneingress,
)
from zonemesh.resources.kind import Kind

MESH = mesh.KIND
ZONE = zone.KIND
SERVICE = meshservice.KIND
GENERATOR = hostnamegenerator.KIND
DATAPLANE = dataplane.KIND
EXTERNAL = meshexternalservice.KIND
MULTI_ZONE = meshmultizoneservice.KIND
VIRTUAL = virtualoutbound.KIND
INGRESS = zoneingress.KIND
EGRESS = zoneegress.KIND
CERT = {"secret": "ca"}
KEY = {"inlineString": "key"}


def faults(kind: Kind, spec: Any, name: str = "aurora") -> list[tuple[str, str]]:
    try:
        kind.validate(spec, name)
    except ValidationError as error:
        return [(field, reason) for field, reason in error.violations]
    return []


def external(**fields: Any) -> dict[str, Any]:
    return {
        "match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"},
        "endpoints": [{"address": "db.example.com", "port": 443}],
    } | fields


def endpoint(**fields: Any) -> dict[str, Any]:
    return external(endpoints=[{"address": "1.2.3.4", "port": 443} | fields])


def verification(**fields: Any) -> dict[str, Any]:
    return external(tls={"enabled": True, "verification": fields})


def multi_zone(**fields: Any) -> dict[str, Any]:
    return {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "redis"}}},
        "ports": [{"port": 6379, "name": "main", "appProtocol": "tcp"}],
    } | fields


def virtual(**conf: Any) -> dict[str, Any]:
    return {
        "selectors": [{"match": {"kuma.io/service": "*"}}],
        "conf": {
            "host": "{{.svc}}.mesh",
            "port": "{{.port}}",
            "parameters": [{"name": "svc", "tagKey": "kuma.io/service"}, {"name": "port"}],
        }
        | conf,
    }


def parameters(*added: Any) -> dict[str, Any]:
    return virtual(port="80", parameters=[{"name": "svc", "tagKey": "kuma.io/service"}, *added])


def selectors(*found: Any) -> dict[str, Any]:
    return virtual() | {"selectors": list(found)}


def listening(**networking: Any) -> dict[str, Any]:
    return {"networking": {"address": "10.0.0.1", "port": 10_001} | networking}


def advertised(**fields: Any) -> dict[str, Any]:
    """An ingress that other zones can use."""
    return listening(advertisedAddress="1.2.3.4", advertisedPort=10_001) | fields


def service(*listed: Any, **fields: Any) -> dict[str, Any]:
    selector = {"dataplaneTags": {"kuma.io/service": "redis"}}
    return {"selector": selector, "ports": list(listed)} | fields


def port(number: int, **fields: Any) -> dict[str, Any]:
    return {"port": number, "targetPort": 8080} | fields


def generator(template: str = "{{ .DisplayName }}.svc.mesh.local", **fields: Any) -> dict[str, Any]:
    selector = {"meshService": {"matchLabels": {"team": "checkout"}}}
    return {"selector": selector, "template": template} | fields
