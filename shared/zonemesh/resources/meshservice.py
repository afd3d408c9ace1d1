"""MeshService: a service of one zone, its ports, and the Dataplanes that serve it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zonemesh.resources import ports
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import (
    PORT_MAX,
    Node,
    dns_label_name,
    match_labels,
)

STATES = ("Available", "Unavailable")
_SELECTORS = ("dataplaneTags", "dataplaneRef", "dataplaneLabels")


def _check(service: Node, name: str) -> dict[str, Any]:
    dns_label_name(service, name)
    stored = service.copy()
    stored["state"] = service.choice("state", STATES) or "Unavailable"
    _validate_selector(service)
    filled = _ports(service)
    for identity in service.nodes("identities"):
        identity.choice("type", ("SpiffeID", "ServiceTag"))
        identity.string("value", required=True)
    # Kuma allows a service without ports; the field then stays as it was sent.
    return stored | {"ports": filled} if filled else stored


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
    """The ports with their protocols filled in."""
    found: list[dict[str, Any]] = []
    for node in service.nodes("ports"):
        ports.port_number(node)
        node.string("name")
        # An inbound's number or its name; absent it stays, and matches no inbound.
        node.integer_or_string("targetPort")
        found.append(node.copy() | {"appProtocol": node.protocol("appProtocol") or "tcp"})
    return found


def _warnings(spec: Spec, _name: str) -> list[str]:
    listed = spec.get("ports") or []
    return [*_selector_warnings(spec), *ports.warnings(listed), *_target_warnings(listed)]


def _selector_warnings(spec: Spec) -> Iterator[str]:
    selector = spec.get("selector") or {}
    chosen = [name for name in _SELECTORS if selector.get(name) is not None]
    if chosen in ([], ["dataplaneTags"]) and not selector.get("dataplaneTags"):
        yield "spec.selector: none, so this service has no Dataplane behind it"
    elif chosen == ["dataplaneLabels"] and not selector["dataplaneLabels"].get("matchLabels"):
        everything = "every Dataplane of this mesh and zone is behind this service"
        yield f"spec.selector.dataplaneLabels: no matchLabels, so {everything}"


def _target_warnings(listed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for index, port in enumerate(listed):
        field, target = f"spec.ports[{index}].targetPort", port.get("targetPort")
        if target is None:
            yield f"{field}: none, so this port matches no inbound"
        elif type(target) is int and not ports.is_port(target):
            yield f"{field}: {target} is not a port (1-{PORT_MAX}) and matches no inbound"


KIND = Kind(
    name="MeshService",
    path="meshservices",
    short="msvc",
    singular="Mesh Service",
    plural="Mesh Services",
    scope=Scope.MESH,
    flat=False,
    check=_check,
    warnings=_warnings,
    by_global=False,
    by_zone=True,
    up=True,
    across=True,
    rfc1035_name=True,
    pool=True,
)
