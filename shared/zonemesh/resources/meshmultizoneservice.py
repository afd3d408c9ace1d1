"""MeshMultiZoneService: the MeshServices of all zones that have some labels, as one service."""

from __future__ import annotations

from typing import Any

from zonemesh.resources import ports
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import EMPTY, Node, dns_label_name

_LABELS = ("selector", "meshService", "matchLabels")
_NOTHING = "cannot be empty"


def _check(service: Node, name: str) -> dict[str, Any]:
    dns_label_name(service, name)
    _validate_selector(service)
    filled = [_port(node) for node in service.nodes("ports", empty=_NOTHING)]
    return service.copy() | {"ports": filled}


def _validate_selector(service: Node) -> None:
    """The labels, which are named as missing wherever the document ends before them."""
    node = service
    for name in _LABELS:
        child = node.node(name)
        if child is None and node.has(name):
            return
        if child is None or (child.empty and name == _LABELS[-1]):
            service.fault(".".join(_LABELS), _NOTHING)
            return
        node = child
    node.entries()


def _port(node: Node) -> dict[str, Any]:
    ports.port_number(node)
    if node.string("name") is None and node.raw("name") == "":
        node.fault("name", EMPTY)
    return node.copy() | {"appProtocol": node.protocol("appProtocol") or "tcp"}


def _warnings(spec: Spec, _name: str) -> list[str]:
    return ports.warnings(spec["ports"])


KIND = Kind(
    name="MeshMultiZoneService",
    path="meshmultizoneservices",
    short="mzsvc",
    singular="Mesh Multi Zone Service",
    plural="Mesh Multi Zone Services",
    scope=Scope.MESH,
    flat=False,
    check=_check,
    warnings=_warnings,
    by_global=True,
    by_zone=False,
    down=True,
    rfc1035_name=True,
    pool=True,
)
