"""Every kind's validation: what is stored, and what is refused with which words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from zonemesh.errors import ValidationError
from zonemesh.hostnames import default_global_generators, default_zone_generators
from zonemesh.resources.catalogue import BY_PATH, KINDS
from zonemesh.resources.kind import Kind


def faults(kind: str, spec: Any, name: str = "redis") -> list[tuple[str, str]]:
    try:
        KINDS[kind].validate(spec, name)
    except ValidationError as error:
        return [(field, reason) for field, reason in error.violations]
    return []


def service(**fields: Any) -> dict[str, Any]:
    return {"ports": [{"port": 6379}]} | fields


def generator(**fields: Any) -> dict[str, Any]:
    return {"selector": {"meshService": {}}, "template": "{{ .DisplayName }}.mesh"} | fields


def dataplane(**fields: Any) -> dict[str, Any]:
    return {"networking": {"address": "10.0.0.1", "inbound": [{"port": 6379}]} | fields}


def backend(**fields: Any) -> dict[str, Any]:
    reference = {"kind": "MeshService", "name": "redis", "port": 6379} | fields
    return {"outbound": [{"port": 1, "backendRef": reference}]}


SERVICE_PARAMETER = [{"name": "service", "tagKey": "kuma.io/service"}]

VALID = [
    ("Mesh", {}),
    ("Mesh", {"skipCreatingInitialPolicies": ["*"]}),
    ("Mesh", {"meshServices": {"mode": "Exclusive"}, "mtls": {"backends": []}}),
    ("Mesh", {"networking": {"outbound": {"passthrough": False}}, "routing": {"zoneEgress": True}}),
    ("Zone", {}),
    ("Zone", {"enabled": False}),
    ("MeshService", {}),
    ("MeshService", service(selector={"dataplaneRef": {"name": "redis-01"}})),
    ("MeshService", service(selector={"dataplaneTags": {"kuma.io/service": "redis"}})),
    ("MeshService", service(selector={"dataplaneLabels": {"matchLabels": {"app": "redis"}}})),
    ("MeshService", service(selector={"dataplaneLabels": {}})),
    ("MeshService", service(identities=[{"type": "SpiffeID", "value": "spiffe://x"}])),
    ("MeshService", {"ports": [{"port": 1, "name": ""}, {"port": 2, "targetPort": "main"}]}),
    ("HostnameGenerator", generator()),
    ("HostnameGenerator", generator(mesh="payments")),
    ("HostnameGenerator", generator(selector={"meshService": None, "meshExternalService": {}})),
    ("HostnameGenerator", generator(template='{{ label "a" }}.{{ .Name }}')),
    ("HostnameGenerator", generator(template="foo.mesh.local", extension={"type": "x"})),
    ("Dataplane", dataplane()),
    ("Dataplane", dataplane(inbound=[])),
    ("Dataplane", dataplane(address="redis.example.com")),
    ("Dataplane", dataplane(address="Redis_1.example.com.")),
    ("Dataplane", dataplane(address="fd00::1", advertisedAddress="1.2.3.4")),
    ("Dataplane", dataplane(inbound=[{"port": 80, "tags": {"kuma.io/service": "web"}}])),
    ("Dataplane", dataplane(inbound=[{"port": 80, "health": {"ready": False}, "tags": {}}])),
    ("Dataplane", dataplane(inbound=[{"port": 80}, {"port": 80, "address": "10.0.0.2"}])),
    (
        "Dataplane",
        dataplane(inbound=[{"port": 80, "servicePort": 81, "serviceAddress": "1.1.1.1"}]),
    ),
    ("Dataplane", dataplane(inbound=[{"port": 80, "protocol": "HTTP2", "state": "Ignored"}])),
    ("Dataplane", dataplane(inbound=[], gateway={"type": "DELEGATED", "tags": {}})),
    ("Dataplane", dataplane(listeners=[{"type": "ZoneIngress", "port": 10001, "name": "in"}])),
    ("Dataplane", dataplane(**backend())),
    ("Dataplane", dataplane(**backend(kind="MeshExternalService", port=None))),
    ("Dataplane", dataplane(**backend(name=None, labels={"app": "redis"}))),
    ("Dataplane", dataplane(outbound=[{"port": 1, "tags": {"kuma.io/service": "redis"}}])),
    ("Dataplane", dataplane(transparentProxying={"redirectPortInbound": 15006})),
    (
        "Dataplane",
        dataplane(
            transparentProxying={
                "reachableBackends": {"refs": [{"kind": "MeshService", "name": "a"}]},
                "ipFamilyMode": "IPv4",
            }
        ),
    ),
]


@pytest.mark.parametrize("kind, spec", VALID)
def test_valid_documents(kind: str, spec: dict[str, Any]) -> None:
    assert faults(kind, spec) == []


@pytest.mark.parametrize("kind, spec", VALID)
def test_what_is_stored_validates_to_itself_and_the_document_is_left_alone(
    kind: str, spec: dict[str, Any]
) -> None:
    before = deepcopy(spec)

    stored = KINDS[kind].validate(spec, "redis")

    assert spec == before
    assert KINDS[kind].validate(stored, "redis") == stored


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_kept(kind: str) -> None:
    listens = {"networking": {"port": 10_001}}
    spec = {
        "MeshService": service(),
        "HostnameGenerator": generator(),
        "Dataplane": dataplane(),
        "VirtualOutbound": {
            "selectors": [{"match": {"kuma.io/service": "*"}}],
            "conf": {"host": "a.mesh", "port": "1", "parameters": SERVICE_PARAMETER},
        },
        "MeshExternalService": {"match": {"port": 443}},
        "MeshMultiZoneService": service(
            selector={"meshService": {"matchLabels": {"app": "redis"}}}
        ),
        "ZoneIngress": listens,
        "ZoneEgress": listens,
    }
    document = spec.get(kind, {}) | {"unknown": {"a": [1]}}

    assert KINDS[kind].validate(document, "redis")["unknown"] == {"a": [1]}


@pytest.mark.parametrize("default", [*default_global_generators(), *default_zone_generators()])
def test_the_default_generators_are_valid(default: Any) -> None:
    assert faults("HostnameGenerator", default.spec, default.name) == []


MAP = "must be an object"
RANGE = "port has to be in range of [1, 65535]"
ONE_OF = "must specify only one of: dataplaneTags, dataplaneRef, or dataplaneLabels"
EXACTLY_ONE = (
    "exact one selector (meshService, meshExternalService, meshMultiZoneService) must be defined"
)


@pytest.mark.parametrize(
    "kind, spec, field, reason",
    [
        ("Mesh", {"skipCreatingInitialPolicies": "*"}, "skipCreatingInitialPolicies", "must be a"),
        ("Mesh", {"meshServices": {"mode": "On"}}, "meshServices.mode", "must be one of: Disabled"),
        ("Mesh", {"mtls": []}, "mtls", MAP),
        ("Mesh", {"routing": {"zoneEgress": 1}}, "routing.zoneEgress", "must be a boolean"),
        (
            "Mesh",
            {"networking": {"outbound": {"passthrough": "no"}}},
            "networking.outbound.passthrough",
            "must be a boolean",
        ),
        ("Zone", {"enabled": "yes"}, "enabled", "must be a boolean"),
        # MeshService
        ("MeshService", service(state="Gone"), "spec.state", "must be one of: Available"),
        ("MeshService", service(ports={}), "spec.ports", "must be a list"),
        ("MeshService", service(ports=[1]), "spec.ports[0]", MAP),
        ("MeshService", service(ports=[{}]), "spec.ports[0].port", "must be defined"),
        ("MeshService", service(ports=[{"port": True}]), "spec.ports[0].port", "an integer"),
        ("MeshService", service(ports=[{"port": "80"}]), "spec.ports[0].port", "an integer"),
        (
            "MeshService",
            service(ports=[{"port": 1, "appProtocol": "udp"}]),
            "spec.ports[0].appProtocol",
            "must be one of: grpc",
        ),
        (
            "MeshService",
            service(ports=[{"port": 1, "targetPort": ""}]),
            "spec.ports[0].targetPort",
            "must not be empty",
        ),
        (
            "MeshService",
            service(ports=[{"port": 1, "targetPort": True}]),
            "spec.ports[0].targetPort",
            "must be an integer or a string",
        ),
        (
            "MeshService",
            service(ports=[{"port": 1, "targetPort": []}]),
            "spec.ports[0].targetPort",
            "must be an integer or a string",
        ),
        (
            "MeshService",
            service(selector={"dataplaneRef": {"name": "a"}, "dataplaneLabels": {}}),
            "spec.selector",
            ONE_OF,
        ),
        (
            "MeshService",
            service(selector={"dataplaneRef": {}}),
            "spec.selector.dataplaneRef.name",
            "must not be empty",
        ),
        (
            "MeshService",
            service(selector={"dataplaneLabels": {"matchLabels": {"a": 1}}}),
            'spec.selector.dataplaneLabels.matchLabels["a"]',
            "must be a string",
        ),
        (
            "MeshService",
            service(identities=[{"type": "SpiffeID"}]),
            "spec.identities[0].value",
            "must not be empty",
        ),
        ("MeshService", service(ports=[{"port": 1, "name": 1}]), "spec.ports[0].name", "a string"),
        # HostnameGenerator
        ("HostnameGenerator", generator(mesh="A b"), "spec.mesh", "must consist of lower case"),
        ("HostnameGenerator", generator(mesh=["a"]), "spec.mesh", "must be a string"),
        ("HostnameGenerator", {"template": "a"}, "spec.selector", EXACTLY_ONE),
        ("HostnameGenerator", generator(selector={}), "spec.selector", EXACTLY_ONE),
        ("HostnameGenerator", generator(selector={"other": {}}), "spec.selector", EXACTLY_ONE),
        ("HostnameGenerator", generator(selector=[]), "spec.selector", MAP),
        (
            "HostnameGenerator",
            generator(selector={"meshService": {}, "meshMultiZoneService": {}}),
            "spec.selector",
            EXACTLY_ONE,
        ),
        (
            "HostnameGenerator",
            generator(selector={"meshService": {"matchLabels": []}}),
            "spec.selector.meshService.matchLabels",
            MAP,
        ),
        ("HostnameGenerator", generator(template=""), "spec.template", "must not be empty"),
        ("HostnameGenerator", generator(template=1), "spec.template", "must be a string"),
        ("HostnameGenerator", generator(template="{{ .A"), "spec.template", "unclosed action"),
        ("HostnameGenerator", generator(template="{{ .A }}"), "spec.template", "evaluate field A"),
        (
            "HostnameGenerator",
            generator(template="{{ .Name }}_x"),
            "spec.template",
            'template renders to "name_x" which is not a valid DNS name: ',
        ),
        (
            "HostnameGenerator",
            generator(template="a" * 64),
            "spec.template",
            "every label must be no more than 63 characters",
        ),
        (
            "HostnameGenerator",
            generator(template="{{/* nothing */}}"),
            "spec.template",
            'template renders to "" which is not a valid DNS name',
        ),
        (
            "HostnameGenerator",
            generator(extension={}),
            "spec.extension.type",
            "must not be empty",
        ),
        # Dataplane
        ("Dataplane", {}, "networking", "must be defined"),
        ("Dataplane", {"networking": 1}, "networking", MAP),
        ("Dataplane", {"networking": {}}, "networking.address", "must not be empty"),
        ("Dataplane", dataplane(address=""), "networking.address", "must not be empty"),
        ("Dataplane", dataplane(address=1), "networking.address", "must be a string"),
        ("Dataplane", dataplane(address="0.0.0.0"), "networking.address", "must not be 0.0.0.0"),
        ("Dataplane", dataplane(address="::"), "networking.address", "must not be 0.0.0.0 or ::"),
        ("Dataplane", dataplane(address="10.0.0.256"), "networking.address", "valid IP address"),
        ("Dataplane", dataplane(address="a b"), "networking.address", "or domain name"),
        (
            "Dataplane",
            dataplane(advertisedAddress="-"),
            "networking.advertisedAddress",
            "address has to be valid",
        ),
        (
            "Dataplane",
            dataplane(gateway={"type": "DELEGATED"}),
            "networking",
            "inbound cannot be defined both with gateway",
        ),
        (
            "Dataplane",
            dataplane(inbound=[], gateway={"tags": {"kuma.io/service": ""}}),
            'networking.gateway.tags["kuma.io/service"]',
            "tag value cannot be empty",
        ),
        ("Dataplane", dataplane(inbound=[{}]), "networking.inbound[0].port", "must be defined"),
        ("Dataplane", dataplane(inbound=[{"port": 0}]), "networking.inbound[0].port", RANGE),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80}, {"port": 80}]),
            "networking.inbound[1].port",
            "10.0.0.1:80 is listened on more than once",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80}, {"port": 80, "address": "10.0.0.1"}]),
            "networking.inbound[1].port",
            "10.0.0.1:80 is listened on more than once",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]),
            "networking.inbound[1].name",
            "name a is used more than once",
        ),
        (
            "Dataplane",
            dataplane(
                inbound=[{"port": 80, "name": "a"}],
                listeners=[{"type": "ZoneEgress", "port": 81, "name": "a"}],
            ),
            "networking.listeners[0].name",
            "name a is used more than once",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "name": "A"}]),
            "networking.inbound[0].name",
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "address": "host"}]),
            "networking.inbound[0].address",
            "address has to be valid IP address",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "servicePort": 65_536}]),
            "networking.inbound[0].servicePort",
            "servicePort has to be in range of [0, 65535]",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "serviceAddress": "10.0.0.1"}]),
            "networking.inbound[0].serviceAddress",
            "serviceAddress and servicePort has to differ from address and port",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "protocol": "udp"}]),
            "networking.inbound[0].protocol",
            "must be one of: grpc",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "state": "Sick"}]),
            "networking.inbound[0].state",
            "must be one of: Ready",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "tags": {"version": "1"}}]),
            'networking.inbound[0].tags["kuma.io/service"]',
            "tag has to exist",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "tags": {"kuma.io/service": 1, "a": "b"}}]),
            'networking.inbound[0].tags["kuma.io/service"]',
            "must be a string",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "tags": {"kuma.io/service": "a b"}}]),
            'networking.inbound[0].tags["kuma.io/service"]',
            "tag value must consist of",
        ),
        (
            "Dataplane",
            dataplane(inbound=[{"port": 80, "tags": {"kuma.io/service": "a", "b c": "d"}}]),
            'networking.inbound[0].tags["b c"]',
            "tag name must consist of",
        ),
        (
            "Dataplane",
            dataplane(
                inbound=[{"port": 8, "tags": {"kuma.io/service": "a", "kuma.io/protocol": "x"}}]
            ),
            'networking.inbound[0].tags["kuma.io/protocol"]',
            'tag "kuma.io/protocol" has an invalid value "x"',
        ),
        (
            "Dataplane",
            dataplane(outbound=[{"port": 1}]),
            "networking.outbound[0].backendRef",
            "def",
        ),
        (
            "Dataplane",
            dataplane(**backend(kind="Mesh")),
            "networking.outbound[0].backendRef.kind",
            "must be one of: MeshService",
        ),
        (
            "Dataplane",
            dataplane(**backend(kind=None)),
            "networking.outbound[0].backendRef.kind",
            "must not be empty",
        ),
        (
            "Dataplane",
            dataplane(**backend(port=None)),
            "networking.outbound[0].backendRef.port",
            "must be defined",
        ),
        (
            "Dataplane",
            dataplane(**backend(name=None)),
            "networking.outbound[0].backendRef.name",
            "either name or labels must be defined",
        ),
        (
            "Dataplane",
            dataplane(**backend(name="", labels={})),
            "networking.outbound[0].backendRef.name",
            "either name or labels must be defined",
        ),
        (
            "Dataplane",
            dataplane(**backend(name="Redis")),
            "networking.outbound[0].backendRef.name",
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "Dataplane",
            dataplane(**backend(namespace="a b")),
            "networking.outbound[0].backendRef.namespace",
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "Dataplane",
            dataplane(**backend(labels={"a": "b"})),
            "networking.outbound[0].backendRef.labels",
            "cannot be defined together with name",
        ),
        (
            "Dataplane",
            dataplane(**backend(name=None, labels={"a": "b"}, namespace="x")),
            "networking.outbound[0].backendRef.namespace",
            "cannot be defined without name",
        ),
        (
            "Dataplane",
            dataplane(
                outbound=[
                    {
                        "port": 1,
                        "tags": {"kuma.io/service": "a"},
                        "backendRef": {"kind": "MeshExternalService", "name": "a"},
                    }
                ]
            ),
            "networking.outbound[0]",
            "both backendRef and tags cannot be defined",
        ),
        (
            "Dataplane",
            dataplane(transparentProxying={"redirectPortOutbound": 65_536}),
            "networking.transparentProxying.redirectPortOutbound",
            "has to be in range",
        ),
        (
            "Dataplane",
            dataplane(transparentProxying={"reachableBackends": {"refs": [{"name": "a"}]}}),
            "networking.transparentProxying.reachableBackends.refs[0].kind",
            "must not be empty",
        ),
    ],
)
def test_faulty_documents(kind: str, spec: dict[str, Any], field: str, reason: str) -> None:
    [(found_field, found_reason)] = faults(kind, spec)

    assert found_field == field
    assert reason in found_reason


@pytest.mark.parametrize(
    "kind, spec, name",
    [
        ("Mesh", {}, "Default"),
        ("Zone", {}, "zone.1"),
        ("MeshService", service(), "1redis"),
        ("MeshService", service(), "r" * 64),
        ("HostnameGenerator", generator(), "Gen"),
        ("Dataplane", dataplane(), "dp_1"),
    ],
)
def test_faulty_names(kind: str, spec: dict[str, Any], name: str) -> None:
    [(field, _)] = faults(kind, spec, name)

    assert field == "name"


def test_all_faults_of_a_document_are_reported_at_once() -> None:
    ports = [{"port": "0", "appProtocol": "x", "targetPort": []}, "port"]

    found = faults("MeshService", {"state": 1, "selector": [], "ports": ports}, "Redis")

    assert [field for field, _ in found] == [
        "name",
        "spec.state",
        "spec.selector",
        "spec.ports[1]",
        "spec.ports[0].port",
        "spec.ports[0].targetPort",
        "spec.ports[0].appProtocol",
    ]


def test_a_service_is_unavailable_and_speaks_tcp_unless_it_says_otherwise() -> None:
    ports = [{"port": 1}, {"port": 2, "name": "web", "targetPort": "in", "appProtocol": "HTTP"}]

    stored = KINDS["MeshService"].validate({"ports": ports}, "redis")

    assert stored == {
        "state": "Unavailable",
        "ports": [
            {"port": 1, "appProtocol": "tcp"},
            {"port": 2, "name": "web", "targetPort": "in", "appProtocol": "http"},
        ],
    }


def test_the_catalogue_finds_a_kind_by_name_and_by_path() -> None:
    assert {name for name, kind in KINDS.items() if not kind.read_only} == {
        *("Mesh", "Zone", "HostnameGenerator", "MeshService", "Dataplane"),
        *("MeshExternalService", "MeshMultiZoneService"),
        *("VirtualOutbound", "ZoneIngress", "ZoneEgress"),
    }
    assert all(KINDS[kind.name] is kind is BY_PATH[kind.path] for kind in BY_PATH.values())


@pytest.mark.parametrize(
    "kind, on_global, on_following_zone",
    [
        ("Mesh", True, False),
        ("Zone", True, False),
        ("HostnameGenerator", True, True),
        ("MeshService", False, True),
        ("Dataplane", False, True),
        ("MeshExternalService", True, True),
        ("MeshMultiZoneService", True, False),
        ("VirtualOutbound", True, False),
        ("ZoneIngress", False, True),
        ("ZoneEgress", False, True),
    ],
)
def test_where_a_kind_may_be_written(
    kind: str, *, on_global: bool, on_following_zone: bool
) -> None:
    declared: Kind = KINDS[kind]

    assert declared.writable(on_global=True, federated=False) is on_global
    assert declared.writable(on_global=False, federated=True) is on_following_zone
    assert declared.writable(on_global=False, federated=False)
