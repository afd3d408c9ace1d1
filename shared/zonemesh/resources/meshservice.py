"""MeshService: a service of one zone, its ports, and the Dataplanes that serve it."""

from __future__ import annotations

from typing import Any

from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import (
    EMPTY,
    PORT_MAX,
    PORT_REASON,
    Node,
    Violations,
    dns_label_name,
    match_labels,
)

STATES = ("Available", "Unavailable")
_SELECTORS = ("dataplaneTags", "dataplaneRef", "dataplaneLabels")


def _validate(spec: Spec, name: str) -> dict[str, Any]:
    violations = Violations()
    service = Node(spec, "spec", violations)
    dns_label_name(violations, name)
    stored = service.copy()
    stored["state"] = service.choice("state", STATES) or "Unavailable"
    _validate_selector(service)
    ports = _ports(service)
    for identity in service.nodes("identities"):
        identity.choice("type", ("SpiffeID", "ServiceTag"))
        identity.string("value", required=True)
    violations.raise_if_any()
    # Kuma allows a service without ports; the field then stays as it was sent.
    return stored | {"ports": ports} if ports else stored


def _validate_selector(service: Node) -> None:
    selector = service.node("selector")
    if selector is None:
        return
    if sum(map(selector.has, _SELECTORS)) > 1:
        service.fault(
            "selector", "must specify only one of: dataplaneTags, dataplaneRef, or dataplaneLabels"
        )
    selector.string_map("dataplaneTags")  # Kuma 2
    if (reference := selector.node("dataplaneRef")) is not None:
        reference.string("name", required=True)
    match_labels(selector, "dataplaneLabels")


def _ports(service: Node) -> list[dict[str, Any]]:
    """The ports with their protocols filled in.

    Kuma takes any number and repeats. Here two ports that could not both be listened on, or that
    one section name would mean (a port's name, else its number), are refused.
    """
    ports: list[dict[str, Any]] = []
    numbers: set[int] = set()
    sections: set[str] = set()
    for node in service.nodes("ports"):
        number = node.port("port")
        if number is not None and number in numbers:
            node.fault("port", f"port {number} is defined more than once")
        section = node.string("name") or str(number or "")
        if section and section in sections:
            node.fault("name", f"name {section} is used more than once")
        if number is not None:
            numbers.add(number)
        sections.add(section)
        _validate_target(node)
        ports.append(node.copy() | {"appProtocol": node.protocol("appProtocol") or "tcp"})
    return ports


def _validate_target(port: Node) -> None:
    """A target is an inbound's number or its name; absent it stays, and matches no inbound."""
    match port.raw("targetPort"):
        case None:
            return
        case bool():
            port.fault("targetPort", "must be an integer or a string")
        case int(number):
            if not 0 < number <= PORT_MAX:
                port.fault("targetPort", PORT_REASON)
        case str(name):
            if not name:
                port.fault("targetPort", EMPTY)
        case _:
            port.fault("targetPort", "must be an integer or a string")


KIND = Kind(
    name="MeshService",
    path="meshservices",
    short="msvc",
    singular="Mesh Service",
    plural="Mesh Services",
    scope=Scope.MESH,
    flat=False,
    validate=_validate,
    by_global=False,
    by_zone=True,
    up=True,
    across=True,
    rfc1035_name=True,
    pool=True,
)
