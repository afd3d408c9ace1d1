"""Dataplanes that name services the legacy way, and an index of those names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonemesh.legacy import LegacyIndex, Naming
from zonemesh.model import Key, Record
from zonemesh.registry import Registry

SERVICE = "kuma.io/service"


def packed(spec: Mapping[str, Any], created_ms: int = 1) -> bytes:
    return Record(created_ms=created_ms, modified_ms=created_ms, spec=spec).pack()


def dataplane(*services: str, address: str = "10.0.0.1", **networking: Any) -> bytes:
    inbound = [
        {"port": 8080 + at, "tags": {SERVICE: service}} for at, service in enumerate(services)
    ]
    return packed({"networking": {"address": address, "inbound": inbound, **networking}})


def dp(name: str, zone: str = "west", mesh: str = "default") -> str:
    return Key(mesh, zone, "", name).packed


def service(name: str) -> str:
    return f"default//service/{name}"


def index_of(registry: Registry, naming: Naming | None = None) -> LegacyIndex:
    index = LegacyIndex(naming)
    index.attach(registry)
    return index


def mesh_of(*services: str) -> tuple[Registry, LegacyIndex]:
    """A mesh with a Dataplane, named alike, for each of some services."""
    registry = Registry()
    for name in services:
        registry.put("Dataplane", dp(name), dataplane(name))
    return registry, index_of(registry)


def policy(host: str, port: str, **match: str) -> dict[str, Any]:
    selector = {SERVICE: "*", **match}
    parameters = [{"name": "svc", "tagKey": SERVICE}]
    return {
        "selectors": [{"match": selector}],
        "conf": {"host": host, "port": port, "parameters": parameters},
    }


POLICIES = [
    packed(policy("{{.svc}}.mesh", "8080"), created_ms=1),
    packed(policy("{{.svc}}.corp", "80"), created_ms=2),
    packed(policy("all.corp", "80"), created_ms=3),
    packed(policy("{{.svc}}.corp", "80", v="1"), created_ms=1),
    packed({"selectors": "broken"}),
]
