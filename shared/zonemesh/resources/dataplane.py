"""Dataplane: one instance of workloads, the ports that it serves and the backends that it calls."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

from zonemesh import names
from zonemesh.labels import SERVICE
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import PORT_MAX, PROTOCOLS, UNDEFINED, Node, Violations

BACKEND_KINDS = ("MeshService", "MeshExternalService", "MeshMultiZoneService")

_INBOUND_STATES = ("Ready", "NotReady", "Ignored")
_PORT_REASON = "port has to be in range of [1, 65535]"
_PROTOCOL_TAG = "kuma.io/protocol"
_TAG_NAME = re.compile(r"[a-zA-Z0-9._\-/]+")
_TAG_VALUE = re.compile(r"[a-zA-Z0-9._\-]*")
_NO_HOST = ("0.0.0.0", "::")  # noqa: S104 - refused, not bound to


def _validate(spec: Spec, name: str) -> dict[str, Any]:
    violations = Violations()
    dataplane = Node(spec, "", violations)
    violations.name(names.resource_name_fault(name))
    networking = dataplane.node("networking", required=True)
    if networking is not None:
        _validate_networking(networking)
    violations.raise_if_any()
    return dataplane.copy()


def _validate_networking(networking: Node) -> None:
    address = networking.string("address", required=True)
    if address is not None:
        _validate_address(networking, "address", address)
    advertised = networking.string("advertisedAddress")
    if advertised is not None:
        _validate_address(networking, "advertisedAddress", advertised)
    inbounds = networking.nodes("inbound")
    if (gateway := networking.node("gateway")) is not None:
        gateway.choice("type", ("DELEGATED", "BUILTIN"))
        _validate_tags(gateway)
        if inbounds:
            networking.fault("", "inbound cannot be defined both with gateway")
    listening = [_inbound(node, address) for node in inbounds]
    listening += [_listener(node, address) for node in networking.nodes("listeners")]
    _validate_distinct(listening)
    for outbound in networking.nodes("outbound"):
        _validate_outbound(outbound)
    if (proxying := networking.node("transparentProxying")) is not None:
        _validate_proxying(proxying)


class _Listening(NamedTuple):
    """What an inbound or listener listens on, as far as it could be read."""

    node: Node
    name: str | None
    address: str | None
    port: int | None


def _validate_distinct(listening: list[_Listening]) -> None:
    """What listens must do so under one name and at one place."""
    taken_names: set[str] = set()
    taken: set[tuple[str | None, int]] = set()
    for node, name, address, port in listening:
        if name is not None:
            if name in taken_names:
                node.fault("name", f"name {name} is used more than once")
            taken_names.add(name)
        if port is not None:
            if (address, port) in taken:
                node.fault("port", f"{address}:{port} is listened on more than once")
            taken.add((address, port))


def _listener(node: Node, default_address: str | None) -> _Listening:
    """One of Kuma 3's listeners: a zone proxy's."""
    node.choice("type", ("ZoneIngress", "ZoneEgress"))
    node.choice("state", _INBOUND_STATES)
    return _listening(node, default_address)


def _inbound(node: Node, default_address: str | None) -> _Listening:
    listening = _listening(node, default_address)
    service_address = _ip(node, "serviceAddress")
    service_port = node.integer(
        "servicePort", 0, PORT_MAX, reason="servicePort has to be in range of [0, 65535]"
    )
    if (
        service_address is not None
        and service_address in (default_address, listening.address)
        and (service_port or listening.port) == listening.port
    ):
        node.fault(
            "serviceAddress", "serviceAddress and servicePort has to differ from address and port"
        )
    node.protocol("protocol")
    node.choice("state", _INBOUND_STATES)
    if (health := node.node("health")) is not None:
        health.boolean("ready")
    node.node("serviceProbe")
    _validate_tags(node)
    return listening


def _listening(node: Node, default_address: str | None) -> _Listening:
    name = node.string("name")
    if name is not None and (fault := names.resource_name_fault(name)) is not None:
        node.fault("name", fault)
    address = _ip(node, "address") or default_address
    return _Listening(node, name, address, node.port("port", reason=_PORT_REASON))


def _validate_tags(node: Node) -> dict[str, str]:
    """Kuma 2's tags. Absent or empty they are Kuma 3's way of saying nothing."""
    document = node.node("tags")
    tags = document.entries() if document is not None else {}
    if document is None or not tags:
        return tags
    if not document.has(SERVICE):
        node.fault(f'tags["{SERVICE}"]', "tag has to exist")
    protocol = tags.get(_PROTOCOL_TAG)
    if protocol and protocol.lower() not in PROTOCOLS:
        reason = f'tag "{_PROTOCOL_TAG}" has an invalid value "{protocol}"'
        node.fault(f'tags["{_PROTOCOL_TAG}"]', f"{reason}. Allowed values: {', '.join(PROTOCOLS)}")
    for name, value in tags.items():
        field = f'tags["{name}"]'
        if not value:
            node.fault(field, "tag value cannot be empty")
        if not _TAG_NAME.fullmatch(name):
            allowed = "alphanumeric characters, dots, dashes, slashes and underscores"
            node.fault(field, f"tag name must consist of {allowed}")
        if not _TAG_VALUE.fullmatch(value):
            allowed = "alphanumeric characters, dots, dashes and underscores"
            node.fault(field, f"tag value must consist of {allowed}")
    return tags


def _validate_outbound(outbound: Node) -> None:
    """An outbound names its backend in one of three ways: Kuma 3's, Kuma 2's, and an older one."""
    outbound.port("port", reason=_PORT_REASON)
    _ip(outbound, "address")
    tags = _validate_tags(outbound)
    backend = outbound.node("backendRef")
    outbound.string("service")
    if not any(map(outbound.has, ("backendRef", "tags", "service"))):
        outbound.fault("backendRef", UNDEFINED)
    if backend is not None:
        if tags:
            outbound.fault("", "both backendRef and tags cannot be defined")
        _validate_backend(backend, port_required=True)


def _validate_backend(backend: Node, *, port_required: bool) -> None:
    """A backend is one object by its name, or all those of a kind that have the labels."""
    kind = backend.choice("kind", BACKEND_KINDS, required=True)
    name = backend.string("name")
    labels = backend.string_map("labels")
    if not any(map(backend.has, ("name", "labels"))):
        backend.fault("name", "either name or labels must be defined")
    if labels and name is not None:
        backend.fault("labels", "cannot be defined together with name")
    if backend.string("namespace") is not None and name is None:
        backend.fault("namespace", "cannot be defined without name")
    # An external service has exactly one port.
    required = port_required and kind != "MeshExternalService"
    backend.port("port", reason=_PORT_REASON, required=required)


def _validate_proxying(proxying: Node) -> None:
    for name in ("redirectPortInbound", "redirectPortOutbound"):
        proxying.integer(name, 0, PORT_MAX, reason=f"{name} has to be in range of [0, 65535]")
    proxying.choice("ipFamilyMode", ("DualStack", "IPv4", "IPv6", "UnSpecified"))
    proxying.strings("directAccessServices")
    proxying.strings("reachableServices")  # Kuma 2
    if (reachable := proxying.node("reachableBackends")) is not None:
        for reference in reachable.nodes("refs"):
            _validate_backend(reference, port_required=False)


def _ip(node: Node, name: str) -> str | None:
    value = node.string(name)
    if value is not None and not _is_ip(value):
        node.fault(name, f"{name} has to be valid IP address")
        return None
    return value


def _validate_address(node: Node, name: str, address: str) -> None:
    if address in _NO_HOST:
        node.fault(name, "must not be 0.0.0.0 or ::")
    elif not _is_ip(address) and not _is_domain(address):
        node.fault(name, "address has to be valid IP address or domain name")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_domain(text: str) -> bool:
    # A last label of digits makes it a mistyped IPv4 address (RFC 1123 §2.1).
    return names.is_hostname(text.lower()) and not text.rpartition(".")[2].isdecimal()


KIND = Kind(
    name="Dataplane",
    path="dataplanes",
    short="dp",
    singular="Dataplane",
    plural="Dataplanes",
    scope=Scope.MESH,
    flat=True,
    validate=_validate,
    by_global=False,
    by_zone=True,
    up=True,
)
