"""Documents of every kind: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.specs import (
    CERT,
    EGRESS,
    EXTERNAL,
    INGRESS,
    KEY,
    MULTI_ZONE,
    VIRTUAL,
    advertised,
    endpoint,
    external,
    faults,
    listening,
    multi_zone,
    parameters,
    selectors,
    verification,
    virtual,
)
from zonemesh.resources.kind import Kind

OBJECT = "must be an object"
PORT = "port must be a valid (1-65535)"
RANGE = "port has to be in range of [1, 65535]"
EMPTY = "cannot be empty"
NAME = "must not be empty"
LABELS = "spec.selector.meshService.matchLabels"
VERIFICATION = "spec.tls.verification"
FAULTY = [
    (EXTERNAL, {}, "spec.match", "must be defined"),
    (EXTERNAL, external(match=[]), "spec.match", OBJECT),
    (EXTERNAL, external(match={}), "spec.match.port", "must be defined"),
    (EXTERNAL, external(match={"port": 0}), "spec.match.port", PORT),
    (EXTERNAL, external(match={"port": 65_536}), "spec.match.port", PORT),
    (
        EXTERNAL,
        external(match={"port": 1, "type": "Host"}),
        "spec.match.type",
        "must be one of: HostnameGenerator",
    ),
    (
        EXTERNAL,
        external(match={"port": 1, "protocol": "kafka"}),
        "spec.match.protocol",
        "must be one of: grpc, http, http2, tcp",
    ),
    (EXTERNAL, external(endpoints={}), "spec.endpoints", "must be a list"),
    (EXTERNAL, endpoint(address=""), "spec.endpoints[0].address", NAME),
    (
        EXTERNAL,
        endpoint(address="unix:///run/db"),
        "spec.endpoints[0].address",
        "address has to be a valid IP or hostname",
    ),
    (
        EXTERNAL,
        endpoint(address="1.2.3.300"),
        "spec.endpoints[0].address",
        "address has to be a valid IP or hostname",
    ),
    (EXTERNAL, endpoint(port=None), "spec.endpoints[0].port", "must be defined"),
    (EXTERNAL, endpoint(port=65_536), "spec.endpoints[0].port", PORT),
    (EXTERNAL, endpoint(priority=-1), "spec.endpoints[0].priority", "must be 0-4294967295"),
    (EXTERNAL, external(extension={}), "spec.extension.type", NAME),
    (EXTERNAL, external(tls={"enabled": 1}), "spec.tls.enabled", "must be a boolean"),
    (
        EXTERNAL,
        external(tls={"version": {"min": "TLS1"}}),
        "spec.tls.version.min",
        "must be one of: TLSAuto, TLS10, TLS11, TLS12, TLS13",
    ),
    (
        EXTERNAL,
        external(tls={"version": {"min": "TLS13", "max": "TLS12"}}),
        "spec.tls.version.min",
        "must not be above max (TLS12)",
    ),
    (
        EXTERNAL,
        verification(mode="Skip"),
        f"{VERIFICATION}.mode",
        "must be one of: SkipSAN, SkipCA, SkipAll, Secured",
    ),
    (
        EXTERNAL,
        verification(serverName="a b"),
        f"{VERIFICATION}.serverName",
        "must be a valid DNS name",
    ),
    (
        EXTERNAL,
        verification(subjectAltNames=[{"type": "Suffix", "value": "a"}]),
        f"{VERIFICATION}.subjectAltNames[0].type",
        "must be one of: Exact, Prefix",
    ),
    (
        EXTERNAL,
        verification(subjectAltNames=[{"type": "Exact"}]),
        f"{VERIFICATION}.subjectAltNames[0].value",
        NAME,
    ),
    (
        EXTERNAL,
        verification(clientCert=CERT),
        f"{VERIFICATION}.clientKey",
        "must be defined when clientCert is defined",
    ),
    (
        EXTERNAL,
        verification(clientKey=KEY),
        f"{VERIFICATION}.clientCert",
        "must be defined when clientKey is defined",
    ),
    (
        EXTERNAL,
        verification(caCert={"type": "File", "file": {"path": "/ca"}}),
        f"{VERIFICATION}.caCert.type",
        "must be one of: Secret, InsecureInline",
    ),
    (
        EXTERNAL,
        verification(caCert={}),
        f"{VERIFICATION}.caCert",
        "must have exactly one of: type, secret, inline, inlineString",
    ),
    (
        EXTERNAL,
        verification(caCert={"type": "Secret"}),
        f"{VERIFICATION}.caCert.secretRef",
        "must be defined",
    ),
    (
        EXTERNAL,
        verification(caCert={"type": "InsecureInline", "insecureInline": {}}),
        f"{VERIFICATION}.caCert.insecureInline.value",
        NAME,
    ),
    (
        EXTERNAL,
        external(extension={"type": "x"}, tls={"verification": {"caCert": {"type": "EnvVar"}}}),
        f"{VERIFICATION}.caCert.type",
        "must be one of: Secret, InsecureInline",
    ),
    # MeshMultiZoneService
    (MULTI_ZONE, multi_zone(selector=None), LABELS, EMPTY),
    (MULTI_ZONE, multi_zone(selector={}), LABELS, EMPTY),
    (MULTI_ZONE, multi_zone(selector={"meshService": {}}), LABELS, EMPTY),
    (MULTI_ZONE, multi_zone(selector={"meshService": {"matchLabels": {}}}), LABELS, EMPTY),
    (MULTI_ZONE, multi_zone(selector=[]), "spec.selector", OBJECT),
    (MULTI_ZONE, multi_zone(selector={"meshService": []}), "spec.selector.meshService", OBJECT),
    (MULTI_ZONE, multi_zone(selector={"meshService": {"matchLabels": []}}), LABELS, OBJECT),
    (
        MULTI_ZONE,
        multi_zone(selector={"meshService": {"matchLabels": {"a": 1}}}),
        f'{LABELS}["a"]',
        "must be a string",
    ),
    (MULTI_ZONE, multi_zone(ports=None), "spec.ports", EMPTY),
    (MULTI_ZONE, multi_zone(ports=[]), "spec.ports", EMPTY),
    (MULTI_ZONE, multi_zone(ports={}), "spec.ports", "must be a list"),
    (MULTI_ZONE, multi_zone(ports=["a"]), "spec.ports[0]", OBJECT),
    (MULTI_ZONE, multi_zone(ports=[{}]), "spec.ports[0].port", "must be defined"),
    (MULTI_ZONE, multi_zone(ports=[{"port": "80"}]), "spec.ports[0].port", "must be an integer"),
    (MULTI_ZONE, multi_zone(ports=[{"port": 1, "name": ""}]), "spec.ports[0].name", NAME),
    (
        MULTI_ZONE,
        multi_zone(ports=[{"port": 1, "appProtocol": "udp"}]),
        "spec.ports[0].appProtocol",
        "must be one of: grpc, http, http2, kafka, tcp",
    ),
    # VirtualOutbound
    (VIRTUAL, selectors(), "selectors", "must have at least one element"),
    (VIRTUAL, selectors({"match": {}}), "selectors[0].match", "must have at least one tag"),
    (VIRTUAL, selectors({}), "selectors[0].match", "must have at least one tag"),
    (VIRTUAL, selectors({"match": "a"}), "selectors[0].match", OBJECT),
    (
        VIRTUAL,
        selectors({"match": {"kuma.io/service": ""}}),
        'selectors[0].match["kuma.io/service"]',
        "tag value cannot be empty",
    ),
    (
        VIRTUAL,
        selectors({"match": {"kuma.io/service": "a*"}}),
        'selectors[0].match["kuma.io/service"]',
        "tag value must consist of alphanumeric characters, dots, dashes and underscores",
    ),
    (
        VIRTUAL,
        selectors({"match": {"a b": "*"}}),
        'selectors[0].match["a b"]',
        "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
    ),
    (VIRTUAL, selectors() | {"selectors": {}}, "selectors", "must be a list"),
    (VIRTUAL, virtual() | {"conf": None}, "conf", "must be defined"),
    (VIRTUAL, virtual(host=None), "conf.host", "must be defined"),
    (VIRTUAL, virtual(host=""), "conf.host", NAME),
    (VIRTUAL, virtual(port=80), "conf.port", "must be a string"),
    (VIRTUAL, virtual(host=0), "conf.host", "must be a string"),
    (
        VIRTUAL,
        virtual(host="{{.svc}"),
        "conf.host",
        "couldn't parse template: template: :1: unclosed action",
    ),
    (
        VIRTUAL,
        virtual(host="{{.other}}.mesh"),
        "conf.host",
        "couldn't parse template: template: :1: can't evaluate field other",
    ),
    (
        VIRTUAL,
        virtual(host="{{.svc}}..mesh"),
        "conf.host",
        'template renders to "dummy..mesh" which is not a valid DNS name',
    ),
    (
        VIRTUAL,
        virtual(port="{{.port}}a"),
        "conf.port",
        'template renders to "1a" which is not a port (1-65535)',
    ),
    (
        VIRTUAL,
        virtual(port="65536"),
        "conf.port",
        'template renders to "65536" which is not a port (1-65535)',
    ),
    (
        VIRTUAL,
        virtual(parameters=[{"name": "svc"}, {"name": "port"}]),
        "conf.parameters",
        "must contain a parameter with kuma.io/service as a tagKey",
    ),
    (VIRTUAL, parameters({}), "conf.parameters[1].name", NAME),
    (
        VIRTUAL,
        parameters({"name": "svc", "tagKey": "a"}),
        "conf.parameters[1].name",
        "name svc is used more than once",
    ),
    (
        VIRTUAL,
        parameters({"name": "a-b"}),
        "conf.parameters[1].name",
        "must consist of alphanumeric characters",
    ),
    (
        VIRTUAL,
        parameters({"name": "a", "tagKey": "b c"}),
        "conf.parameters[1].tagKey",
        "must be a valid tag name",
    ),
    # ZoneIngress and ZoneEgress
    (INGRESS, {}, "networking", "must be defined"),
    (EGRESS, {}, "networking", "must be defined"),
    (EGRESS, listening(port=None), "networking.port", "must be defined"),
    (EGRESS, listening(port=0), "networking.port", RANGE),
    (EGRESS, listening(address="0.0.0.0"), "networking.address", "must not be 0.0.0.0 or ::"),
    (
        EGRESS,
        listening(address="a b"),
        "networking.address",
        "address has to be valid IP address or domain name",
    ),
    (
        EGRESS,
        listening(admin={"port": 10_001}),
        "networking.admin.port",
        "must differ from networking.port",
    ),
    (EGRESS, listening() | {"zone": 1}, "zone", "must be a string"),
    (INGRESS, advertised(zone=1), "zone", "must be a string"),
    (
        INGRESS,
        listening(advertisedPort=1),
        "networking.advertisedAddress",
        "has to be defined with advertisedPort",
    ),
    (
        INGRESS,
        listening(advertisedAddress="1.2.3.4"),
        "networking.advertisedPort",
        "has to be defined with advertisedAddress",
    ),
    (
        INGRESS,
        listening(advertisedAddress="1.2.3.4", advertisedPort=65_536),
        "networking.advertisedPort",
        RANGE,
    ),
    (INGRESS, advertised(availableServices=[{}]), "availableServices[0].tags", NAME),
    (INGRESS, advertised(availableServices=[{"tags": []}]), "availableServices[0].tags", OBJECT),
    (
        INGRESS,
        advertised(availableServices=[{"tags": {"a": "b"}}]),
        'availableServices[0].tags["kuma.io/service"]',
        "tag has to exist",
    ),
    (
        INGRESS,
        advertised(availableServices=[{"tags": {"kuma.io/service": "a"}, "instances": -1}]),
        "availableServices[0].instances",
        "must be 0-4294967295",
    ),
]


@pytest.mark.parametrize("kind, spec, field, reason", FAULTY)
def test_what_cannot_work_is_refused(
    kind: Kind, spec: dict[str, Any], field: str, reason: str
) -> None:
    assert faults(kind, spec) == [(field, reason)]


@pytest.mark.parametrize(
    "kind, spec, name",
    [
        (EXTERNAL, external(), "1db"),
        (EXTERNAL, external(), "db.example"),
        (MULTI_ZONE, multi_zone(), "Redis"),
        (VIRTUAL, virtual(), "a_b"),
        (INGRESS, advertised(), "Ingress"),
        (EGRESS, listening(), ""),
    ],
)
def test_faulty_names(kind: Kind, spec: dict[str, Any], name: str) -> None:
    [(field, _)] = faults(kind, spec, name)

    assert field == "name"


def test_all_faults_of_a_document_are_reported_at_once() -> None:
    spec = {
        "match": {"port": 0, "protocol": "udp"},
        "endpoints": [{"address": "a b"}],
        "tls": {"verification": {"mode": 1, "clientCert": {}}},
    }

    assert [field for field, _ in faults(EXTERNAL, spec, "A")] == [
        "name",
        "spec.match.port",
        "spec.match.protocol",
        "spec.endpoints[0].address",
        "spec.endpoints[0].port",
        "spec.tls.verification.clientCert",
        "spec.tls.verification.mode",
        "spec.tls.verification.clientKey",
    ]
