"""Documents of every kind: what is accepted, warned of and stored."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.specs import (
    CERT,
    DATAPLANE,
    EGRESS,
    EXTERNAL,
    GENERATOR,
    INGRESS,
    KEY,
    MESH,
    MULTI_ZONE,
    SERVICE,
    VIRTUAL,
    ZONE,
    advertised,
    endpoint,
    external,
    faults,
    generator,
    listening,
    multi_zone,
    port,
    selectors,
    service,
    verification,
    virtual,
)
from zonemesh.hostnames import default_global_generators, default_zone_generators
from zonemesh.model import Key
from zonemesh.resources import (
    ports,
)
from zonemesh.resources.kind import Kind


def warnings(kind: Kind, spec: Any, name: str = "aurora") -> list[str]:
    return kind.warnings(kind.validate(spec, name), name)


USUAL = [
    (EXTERNAL, external()),
    (EXTERNAL, endpoint(address="fd00::1", priority=2)),
    (EXTERNAL, endpoint(address="_sip.Example.com.")),
    (EXTERNAL, external(tls={"enabled": True, "version": {"min": "TLS12", "max": "TLS13"}})),
    (EXTERNAL, external(tls={"version": {"min": "TLS13", "max": "TLSAuto"}})),
    (EXTERNAL, external(tls={"version": {"min": "TLSAuto", "max": "TLS10"}})),
    (EXTERNAL, verification(mode="SkipCA", serverName="db.example.com")),
    (EXTERNAL, verification(subjectAltNames=[{"type": "Prefix", "value": "spiffe://"}])),
    (EXTERNAL, verification(caCert=CERT, clientCert={"inline": "Y2VydA=="}, clientKey=KEY)),
    (EXTERNAL, verification(caCert={"type": "Secret", "secretRef": {"name": "ca"}})),
    (EXTERNAL, verification(caCert={"type": "InsecureInline", "insecureInline": {"value": "x"}})),
    (MULTI_ZONE, multi_zone()),
    (MULTI_ZONE, multi_zone(ports=[{"port": 1, "appProtocol": "kafka"}, {"port": 2}])),
    (VIRTUAL, virtual()),
    (VIRTUAL, virtual(host="{{.svc}}.{{.port}}.mesh.local", port="80")),
    (VIRTUAL, virtual(host="x.mesh", port="{{.svc}}")),
    (VIRTUAL, selectors({"match": {"kuma.io/service": "a_b", "version": "*"}})),
    (VIRTUAL, selectors({"match": {"team": "x"}}, {"match": {"kuma.io/zone": "west"}})),
    (INGRESS, advertised()),
    (INGRESS, advertised(zone="west", networking=listening()["networking"] | {
        "advertisedAddress": "ingress.example.com", "advertisedPort": 1, "admin": {"port": 9901}
    })),
    (INGRESS, advertised(availableServices=[
        {"tags": {"kuma.io/service": "redis"}, "instances": 2, "mesh": "default"},
        {"tags": {"kuma.io/service": "db", "kuma.io/protocol": "tcp"}, "externalService": True},
    ])),
    (EGRESS, listening()),
    (EGRESS, {"zone": "west", "networking": {"port": 10_002, "admin": {"port": 9901}}}),
    (SERVICE, service(port(80), port(81, name="http", appProtocol="http"))),
    (SERVICE, service(port(80, name="80"))),
    (SERVICE, service(port(80), selector={"dataplaneRef": {"name": "redis-01"}})),
    (SERVICE, service(port(80), selector={"dataplaneLabels": {"matchLabels": {"a": "b"}}})),
    (GENERATOR, generator()),
    (GENERATOR, generator("{{ .Name }}.{{ .Mesh }}.mesh")),
    (GENERATOR, generator('{{ label "team" }}.mesh.local', mesh="payments")),
    (MESH, {"meshServices": {"mode": "Exclusive"}, "networking": {}, "mtls": {}}),
    (ZONE, {"enabled": True}),
    (DATAPLANE, listening(inbound=[{"port": 0x1F90}])),
]  # fmt: skip


@pytest.mark.parametrize("kind, spec", USUAL)
def test_usual_documents_are_accepted_without_a_word(kind: Kind, spec: dict[str, Any]) -> None:
    assert faults(kind, spec) == []
    assert warnings(kind, spec) == []


WARNED = [
    (EXTERNAL, external(endpoints=[]), ["spec.endpoints: none, so nothing can be reached"]),
    (EXTERNAL, {"match": {"port": 80}}, ["spec.endpoints: none"]),
    (
        EXTERNAL,
        # What an extension makes of endpoints and TLS is not for us to know.
        external(
            extension={"type": "Lambda"}, endpoints=[{}], tls={"verification": {"mode": "X"}}
        ),
        ["spec.extension: kept, but no extension is run here"],
    ),
    (
        MULTI_ZONE,
        multi_zone(ports=[{"port": -1}, {"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
        ["spec.ports[0].port: -1 is not a port", "spec.ports[2].port: 1 is defined more than once"],
    ),
    (VIRTUAL, virtual(host="{{.svc}}.corp"), ['conf.host: "dummy.corp" does not end in .mesh']),
    (VIRTUAL, virtual(host="x.mesh"), ["conf: neither host nor port depends on the service"]),
    (
        VIRTUAL,
        selectors({"match": {"kuma.io/service": "a"}}, {"match": {"kuma.io/service": "b"}})
        | {"conf": virtual(host="x.mesh", port="80")["conf"]},
        ["conf: neither host nor port depends on the service"],
    ),
    (INGRESS, listening(), ["networking.advertisedAddress: none, so other zones do not use"]),
    (
        INGRESS,
        listening(advertisedAddress="", advertisedPort=None),
        ["networking.advertisedAddress: none"],
    ),
    (SERVICE, service(), ["spec.ports: none, so nothing can connect"]),
    (SERVICE, service(port(0)), ["spec.ports[0].port: 0 is not a port (1-65535) and is not"]),
    (SERVICE, service(port(65_536)), ["spec.ports[0].port: 65536 is not a port (1-65535)"]),
    (
        SERVICE,
        service(port(80, name="a"), port(80, name="b")),
        ["spec.ports[1].port: 80 is defined more than once; only the first is served"],
    ),
    (
        SERVICE,
        service(port(80, name="a"), port(81, name="a")),
        ["spec.ports[1].name: a means another port too; this one goes by its number, 81"],
    ),
    (
        SERVICE,
        service(port(81, name="80"), port(80)),
        ["spec.ports[0].name: 80 means another port too; this one goes by its number, 81"],
    ),
    (SERVICE, service({"port": 80}), ["spec.ports[0].targetPort: none, so this port matches no"]),
    (SERVICE, service(port(80, targetPort=0)), ["spec.ports[0].targetPort: 0 is not a port"]),
    (SERVICE, service(port(80), selector=None), ["spec.selector: none, so this service has no"]),
    (SERVICE, service(port(80), selector={}), ["spec.selector: none, so"]),
    (SERVICE, service(port(80), selector={"dataplaneTags": {}}), ["spec.selector: none, so"]),
    (
        SERVICE,
        service(port(80), selector={"dataplaneLabels": {"matchLabels": {}}}),
        ["spec.selector.dataplaneLabels: no matchLabels, so every Dataplane of this mesh and zone"],
    ),
    (
        SERVICE,
        {},
        ["spec.selector: none", "spec.ports: none"],
    ),
    (GENERATOR, generator("foo.mesh.local"), ["spec.template: the same name for every service"]),
    (GENERATOR, generator("{{ .Mesh }}.mesh"), ["spec.template: the same name for every service"]),
    (
        GENERATOR,
        generator("{{ .DisplayName }}.com"),
        ['spec.template: "one.com" does not end in .mesh.local or .mesh and hides an outside name'],
    ),
    (
        GENERATOR,
        generator("{{ .DisplayName }}.notmesh"),
        ['spec.template: "one.notmesh" does not end in'],
    ),
    (
        # The name of a mesh is no domain of the mesh.
        GENERATOR,
        generator("{{ .DisplayName }}.{{ .Mesh }}"),
        ['spec.template: "one.default" does not end in'],
    ),
    (
        GENERATOR,
        generator("google.com"),
        ["spec.template: the same name", 'spec.template: "google.com" does not end in'],
    ),
    (
        GENERATOR,
        generator(selector={"meshExternalService": {}}),
        ["spec.selector.meshExternalService: no matchLabels, so every MeshExternalService of"],
    ),
    (
        GENERATOR,
        generator(selector={"meshService": {"matchLabels": {}}}, mesh="payments"),
        ["spec.selector.meshService: no matchLabels, so every MeshService of mesh payments is"],
    ),
    (
        MESH,
        {"mtls": {"enabledBackend": "ca-1"}, "tracing": {"a": 1}},
        ["mtls: kept, and without effect here", "tracing: kept, and without effect here"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind, spec, expected", WARNED)
def test_what_exists_and_cannot_be_meant_is_accepted_with_a_warning(
    kind: Kind, spec: dict[str, Any], expected: list[str]
) -> None:
    found = warnings(kind, spec)

    assert len(found) == len(expected), found
    for warning, beginning in zip(found, expected, strict=True):
        assert warning.startswith(beginning)


@pytest.mark.parametrize("default", [*default_global_generators(), *default_zone_generators()])
def test_the_default_generators_are_above_suspicion(default: Any) -> None:
    assert warnings(GENERATOR, default.spec, default.name) == []


@pytest.mark.parametrize("kind, spec", [*USUAL, *((kind, spec) for kind, spec, _ in WARNED)])
def test_what_is_stored_validates_to_itself_and_the_document_is_left_alone(
    kind: Kind, spec: dict[str, Any]
) -> None:
    before = deepcopy(spec)

    stored = kind.validate(spec, "aurora")

    assert spec == before
    assert kind.validate(stored, "aurora") == stored


@pytest.mark.parametrize(
    "kind, spec",
    [
        (EXTERNAL, external()),
        (MULTI_ZONE, multi_zone()),
        (VIRTUAL, virtual()),
        (INGRESS, advertised()),
        (EGRESS, listening()),
    ],
)
def test_unknown_fields_are_kept(kind: Kind, spec: dict[str, Any]) -> None:
    document = {
        field: {**value, "unknown": 1} if isinstance(value, dict) and field != "selector" else value
        for field, value in spec.items()
    } | {"unknown": {"a": [1]}}

    stored = kind.validate(document, "aurora")

    assert stored == document


def test_an_external_service_is_named_by_generators_and_speaks_tcp() -> None:
    stored = EXTERNAL.validate({"match": {"port": 443}}, "aurora")

    assert stored == {"match": {"port": 443, "type": "HostnameGenerator", "protocol": "tcp"}}


def test_protocols_are_stored_in_lower_case() -> None:
    stored = EXTERNAL.validate({"match": {"port": 443, "protocol": "HTTP2"}}, "aurora")

    assert stored["match"]["protocol"] == "http2"


def test_ports_across_zones_speak_tcp_unless_they_say_otherwise() -> None:
    listed = [{"port": 1}, {"port": 2, "appProtocol": "GRPC"}]

    stored = MULTI_ZONE.validate(multi_zone(ports=listed), "redis")

    assert stored["ports"] == [
        {"port": 1, "appProtocol": "tcp"},
        {"port": 2, "appProtocol": "grpc"},
    ]


@pytest.mark.parametrize(
    "listed, sections",
    [
        ([], {}),
        ([{"port": 80}], {80: "80"}),
        ([{"port": 80, "name": "web"}, {"port": 81, "name": ""}], {80: "web", 81: "81"}),
        ([{"port": 0}, {"port": -1}, {"port": 65_536}, {"port": 65_535}], {65_535: "65535"}),
        ([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}], {80: "a"}),
        # A name that a port lost is free for the next one.
        ([{"port": 0, "name": "a"}, {"port": 80, "name": "a"}], {80: "a"}),
        ([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}], {80: "a", 81: "81"}),
        ([{"port": 81, "name": "80"}, {"port": 80}], {81: "81", 80: "80"}),
        ([{"port": 80, "name": "80"}], {80: "80"}),
        # As records of other builds may have them.
        ([{}, {"port": "80"}, {"port": True}, {"port": 80}], {80: "80"}),
    ],
)
def test_what_is_served_are_distinct_ports_under_distinct_sections(
    listed: list[dict[str, Any]], sections: dict[int, str]
) -> None:
    found = list(ports.served(listed))

    assert {each.port["port"]: each.section for each in found} == sections
    assert len(found) == len(sections)
    assert all(listed[each.position] is each.port for each in found)


@pytest.mark.parametrize(
    "kind, spec, numbers",
    [
        (SERVICE, service(port(80), port(81)), [80, 81]),
        (SERVICE, service(), []),
        (SERVICE, {}, []),
        (MULTI_ZONE, multi_zone(), [6379]),
        (EXTERNAL, external(), [443]),
    ],
)
def test_every_kind_of_service_lists_its_ports(
    kind: Kind, spec: dict[str, Any], numbers: list[int]
) -> None:
    stored = kind.validate(spec, "aurora")

    assert [each["port"] for each in ports.listed(stored)] == numbers


@pytest.mark.parametrize(
    "kind, kri",
    [
        (EXTERNAL, "kri_extsvc_default_west__a_"),
        (MULTI_ZONE, "kri_mzsvc_default_west__a_"),
        (VIRTUAL, "kri_vo_default_west__a_"),
    ],
)
def test_identifiers(kind: Kind, kri: str) -> None:
    assert kind.kri(Key("default", "west", "", "a")) == kri
