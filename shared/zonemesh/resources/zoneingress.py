"""ZoneIngress: the proxy through which other zones reach a zone's services."""

from __future__ import annotations

from typing import Any

from zonemesh.resources import zoneproxy
from zonemesh.resources.addresses import host_address
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.tags import tags_of
from zonemesh.resources.validation import Node

_COUNT_MAX = 2**32 - 1


def _check(ingress: Node, name: str) -> dict[str, Any]:
    networking = zoneproxy.listens(ingress, name)
    if networking is not None:
        _validate_advertised(networking)
    for service in ingress.nodes("availableServices"):
        _validate_service(service)
    return ingress.copy()


def _validate_advertised(networking: Node) -> None:
    """What other zones dial: address and port, or neither."""
    host_address(networking, "advertisedAddress")
    networking.port("advertisedPort", reason=zoneproxy.PORT_REASON, required=False)
    # A Go client writes what it has not set as "" and 0.
    address, port = networking.raw("advertisedAddress"), networking.raw("advertisedPort")
    if port and not address:
        networking.fault("advertisedAddress", "has to be defined with advertisedPort")
    if address and not port:
        networking.fault("advertisedPort", "has to be defined with advertisedAddress")


def _validate_service(service: Node) -> None:
    """What Kuma 2 itself keeps there of the services behind an ingress."""
    tags_of(service)
    if service.raw("tags") in (None, {}):
        service.fault("tags", "must not be empty")
    service.integer("instances", 0, _COUNT_MAX, reason=f"must be 0-{_COUNT_MAX}")
    service.string("mesh")
    service.boolean("externalService")


def _warnings(spec: Spec, _name: str) -> list[str]:
    if spec["networking"].get("advertisedAddress"):
        return []
    return ["networking.advertisedAddress: none, so other zones do not use this ingress"]


KIND = Kind(
    name="ZoneIngress",
    path="zoneingresses",
    short="zi",
    singular="Zone Ingress",
    plural="Zone Ingresses",
    scope=Scope.GLOBAL,
    flat=True,
    check=_check,
    warnings=_warnings,
    by_global=False,
    by_zone=True,
    up=True,
    across=True,
)
