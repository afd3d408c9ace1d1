"""ZoneEgress: the proxy through which a zone's traffic leaves it."""

from __future__ import annotations

from typing import Any

from zonemesh.resources import zoneproxy
from zonemesh.resources.kind import Kind, Scope
from zonemesh.resources.validation import Node


def _check(egress: Node, name: str) -> dict[str, Any]:
    zoneproxy.listens(egress, name)
    return egress.copy()


KIND = Kind(
    name="ZoneEgress",
    path="zoneegresses",
    short="ze",
    singular="Zone Egress",
    plural="Zone Egresses",
    scope=Scope.GLOBAL,
    flat=True,
    check=_check,
    by_global=False,
    by_zone=True,
    up=True,
)
