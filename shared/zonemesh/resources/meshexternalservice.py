"""MeshExternalService: something outside of the mesh that services reach by a name of the mesh."""

from __future__ import annotations

from typing import Any

from zonemesh.resources.addresses import is_domain, is_ip
from zonemesh.resources.kind import Kind, Scope, Spec
from zonemesh.resources.validation import UNDEFINED, Node, dns_label_name

MATCH_TYPE = "HostnameGenerator"
PROTOCOLS = ("grpc", "http", "http2", "tcp")

# In ascending order; TLSAuto is below all since it bounds nothing.
_TLS_VERSIONS = ("TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13")
_VERIFICATION_MODES = ("SkipSAN", "SkipCA", "SkipAll", "Secured")
_NAME_MATCHES = ("Exact", "Prefix")
_PRIORITY_MAX = 2**32 - 1
_SOURCE_TYPES = ("Secret", "InsecureInline")
_SOURCES_2 = ("secret", "inline", "inlineString")
"""Kuma 2's data sources: one of these fields instead of a type."""


def _check(service: Node, name: str) -> dict[str, Any]:
    dns_label_name(service, name)
    match = service.node("match", required=True)
    stored = service.copy() if match is None else service.copy() | {"match": _match(match)}
    extension = service.node("extension")
    if extension is not None:
        # What an extension is told is its own affair; but a secret is one everywhere.
        extension.string("type", required=True)
    else:
        for endpoint in service.nodes("endpoints"):
            _validate_endpoint(endpoint)
    if (tls := service.node("tls")) is not None:
        _validate_tls(tls, sources_only=extension is not None)
    return stored


def _match(match: Node) -> dict[str, Any]:
    kind = match.choice("type", (MATCH_TYPE,)) or MATCH_TYPE
    match.port("port")
    protocol = match.protocol("protocol", PROTOCOLS) or "tcp"
    return match.copy() | {"type": kind, "protocol": protocol}


def _validate_endpoint(endpoint: Node) -> None:
    address = endpoint.string("address", required=True)
    if address is not None and not is_ip(address) and not is_domain(address):
        endpoint.fault("address", "address has to be a valid IP or hostname")
    endpoint.port("port")
    endpoint.integer("priority", 0, _PRIORITY_MAX, reason=f"must be 0-{_PRIORITY_MAX}")


def _validate_tls(tls: Node, *, sources_only: bool) -> None:
    verification = tls.node("verification")
    if verification is not None:
        for name in ("caCert", "clientCert", "clientKey"):
            _validate_source(verification, name)
    if sources_only:
        return
    tls.boolean("enabled")
    tls.boolean("allowRenegotiation")
    if (version := tls.node("version")) is not None:
        low, high = (version.choice(name, _TLS_VERSIONS) for name in ("min", "max"))
        if low and high and not _in_order(low, high):
            version.fault("min", f"must not be above max ({high})")
    if verification is not None:
        _validate_verification(verification)


def _in_order(low: str, high: str) -> bool:
    # Automatic at either end leaves that end to the proxy.
    return high == _TLS_VERSIONS[0] or _TLS_VERSIONS.index(low) <= _TLS_VERSIONS.index(high)


def _validate_verification(verification: Node) -> None:
    verification.choice("mode", _VERIFICATION_MODES)
    server_name = verification.string("serverName")
    if server_name is not None and not is_domain(server_name):
        verification.fault("serverName", "must be a valid DNS name")
    for alternative in verification.nodes("subjectAltNames"):
        alternative.choice("type", _NAME_MATCHES)  # absent means Exact
        alternative.string("value", required=True)
    for given, missing in (("clientCert", "clientKey"), ("clientKey", "clientCert")):
        if verification.has(given) and not verification.has(missing):
            verification.fault(missing, f"must be defined when {given} is defined")


def _validate_source(parent: Node, name: str) -> None:
    """Where a certificate or key is: Kuma 3 says so by a type, Kuma 2 by the field."""
    source = parent.node(name)
    if source is None:
        return
    if not source.has("type"):
        given = [field for field in _SOURCES_2 if source.string(field) is not None]
        if len(given) != 1:
            source.fault("", f"must have exactly one of: type, {', '.join(_SOURCES_2)}")
        return
    match source.choice("type", _SOURCE_TYPES):
        case "Secret":
            _required(source, "secretRef", "name")
        case "InsecureInline":
            _required(source, "insecureInline", "value")
        case _:
            pass


def _required(source: Node, section: str, field: str) -> None:
    node = source.node(section)
    if node is not None:
        node.string(field, required=True)
    elif not source.has(section):
        source.fault(section, UNDEFINED)


def _warnings(spec: Spec, _name: str) -> list[str]:
    if spec.get("extension") is not None:
        return ["spec.extension: kept, but no extension is run here"]
    if not spec.get("endpoints"):
        return ["spec.endpoints: none, so nothing can be reached by this service"]
    return []


KIND = Kind(
    name="MeshExternalService",
    path="meshexternalservices",
    short="extsvc",
    singular="Mesh External Service",
    plural="Mesh External Services",
    scope=Scope.MESH,
    flat=False,
    check=_check,
    warnings=_warnings,
    by_global=True,
    by_zone=True,
    up=True,
    down=True,
    rfc1035_name=True,
    pool=True,
)
