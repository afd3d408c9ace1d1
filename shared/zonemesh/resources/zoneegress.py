"""ZoneEgress: the proxy through which a zone's traffic leaves it."""

from __future__ import annotations

from typing import Any

from zonemesh.resources import zoneproxy
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import Node, Violations


def _validate(spec: Spec, name: str) -> dict[str, Any]:
    violations = Violations()
    egress = Node(spec, "", violations)
    zoneproxy.listens(egress, name, violations)
    violations.raise_if_any()
    return egress.copy()


KIND = Kind(
    name="ZoneEgress",
    path="zoneegresses",
    short="ze",
    singular="Zone Egress",
    plural="Zone Egresses",
    scope=Scope.GLOBAL,
    flat=True,
    validate=_validate,
    by_global=False,
    by_zone=True,
    up=True,
)
