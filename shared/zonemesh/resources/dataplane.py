"""Dataplane: one instance of workloads, the ports that it serves and the backends that it calls."""

from __future__ import annotations

from typing import Any, NamedTuple

from zonemesh import names
from zonemesh.resources.addresses import host_address, is_ip
from zonemesh.resources.kind import Kind, Scope
from zonemesh.resources.tags import tags_of
from zonemesh.resources.validation import PORT_MAX, UNDEFINED, Node

BACKEND_KINDS = ("MeshService", "MeshExternalService", "MeshMultiZoneService")

_INBOUND_STATES = ("Ready", "NotReady", "Ignored")
_PORT_REASON = "port has to be in range of [1, 65535]"


def _check(dataplane: Node, name: str) -> dict[str, Any]:
    dataplane.fault_of_name(names.resource_name_fault(name))
    networking = dataplane.node("networking", required=True)
    if networking is not None:
        _validate_networking(networking)
    return dataplane.copy()


def _validate_networking(networking: Node) -> None:
    address = host_address(networking, "address", required=True)
    host_address(networking, "advertisedAddress")
    inbounds = networking.nodes("inbound")
    if (gateway := networking.node("gateway")) is not None:
        gateway.choice("type", ("DELEGATED", "BUILTIN"))
        tags_of(gateway)
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
    tags_of(node)
    return listening


def _listening(node: Node, default_address: str | None) -> _Listening:
    name = _identifier(node, "name")
    address = _ip(node, "address") or default_address
    return _Listening(node, name, address, node.port("port", reason=_PORT_REASON))


def _validate_outbound(outbound: Node) -> None:
    """An outbound names its backend in one of three ways: Kuma 3's, Kuma 2's, and an older one."""
    outbound.port("port", reason=_PORT_REASON)
    _ip(outbound, "address")
    tags = tags_of(outbound)
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
    name = _identifier(backend, "name")
    labels = backend.string_map("labels")
    if not any(map(backend.raw, ("name", "labels"))):
        backend.fault("name", "either name or labels must be defined")
    if labels and name is not None:
        backend.fault("labels", "cannot be defined together with name")
    if _identifier(backend, "namespace") is not None and name is None:
        backend.fault("namespace", "cannot be defined without name")
    # An external service has exactly one port.
    required = port_required and kind != "MeshExternalService"
    backend.port("port", reason=_PORT_REASON, required=required)


def _identifier(node: Node, name: str) -> str | None:
    value = node.string(name)
    if value is not None and (fault := names.resource_name_fault(value)) is not None:
        node.fault(name, fault)
    return value


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
    if value is not None and not is_ip(value):
        node.fault(name, f"{name} has to be valid IP address")
        return None
    return value


KIND = Kind(
    name="Dataplane",
    path="dataplanes",
    short="dp",
    singular="Dataplane",
    plural="Dataplanes",
    scope=Scope.MESH,
    flat=True,
    check=_check,
    by_global=False,
    by_zone=True,
    up=True,
)
