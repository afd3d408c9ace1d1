"""The kinds beside the five of every mesh, and what is accepted of any kind with a warning."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from zonemesh.errors import ValidationError
from zonemesh.hostnames import default_global_generators, default_zone_generators
from zonemesh.model import Key
from zonemesh.resources import (
    dataplane,
    hostnamegenerator,
    mesh,
    meshexternalservice,
    meshmultizoneservice,
    meshservice,
    ports,
    virtualoutbound,
    zone,
    zoneegress,
    zoneingress,
)
from zonemesh.resources.kind import Kind

MESH = mesh.KIND
ZONE = zone.KIND
SERVICE = meshservice.KIND
GENERATOR = hostnamegenerator.KIND
DATAPLANE = dataplane.KIND
EXTERNAL = meshexternalservice.KIND
MULTI_ZONE = meshmultizoneservice.KIND
VIRTUAL = virtualoutbound.KIND
INGRESS = zoneingress.KIND
EGRESS = zoneegress.KIND

CERT = {"secret": "ca"}
KEY = {"inlineString": "key"}


def faults(kind: Kind, spec: Any, name: str = "aurora") -> list[tuple[str, str]]:
    try:
        kind.validate(spec, name)
    except ValidationError as error:
        return [(field, reason) for field, reason in error.violations]
    return []


def warnings(kind: Kind, spec: Any, name: str = "aurora") -> list[str]:
    return kind.warnings(kind.validate(spec, name), name)


def external(**fields: Any) -> dict[str, Any]:
    return {
        "match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"},
        "endpoints": [{"address": "db.example.com", "port": 443}],
    } | fields


def endpoint(**fields: Any) -> dict[str, Any]:
    return external(endpoints=[{"address": "1.2.3.4", "port": 443} | fields])


def verification(**fields: Any) -> dict[str, Any]:
    return external(tls={"enabled": True, "verification": fields})


def multi_zone(**fields: Any) -> dict[str, Any]:
    return {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "redis"}}},
        "ports": [{"port": 6379, "name": "main", "appProtocol": "tcp"}],
    } | fields


def virtual(**conf: Any) -> dict[str, Any]:
    return {
        "selectors": [{"match": {"kuma.io/service": "*"}}],
        "conf": {
            "host": "{{.svc}}.mesh",
            "port": "{{.port}}",
            "parameters": [{"name": "svc", "tagKey": "kuma.io/service"}, {"name": "port"}],
        }
        | conf,
    }


def parameters(*added: Any) -> dict[str, Any]:
    return virtual(port="80", parameters=[{"name": "svc", "tagKey": "kuma.io/service"}, *added])


def selectors(*found: Any) -> dict[str, Any]:
    return virtual() | {"selectors": list(found)}


def listening(**networking: Any) -> dict[str, Any]:
    return {"networking": {"address": "10.0.0.1", "port": 10_001} | networking}


def advertised(**fields: Any) -> dict[str, Any]:
    """An ingress that other zones can use."""
    return listening(advertisedAddress="1.2.3.4", advertisedPort=10_001) | fields


def service(*listed: Any, **fields: Any) -> dict[str, Any]:
    selector = {"dataplaneTags": {"kuma.io/service": "redis"}}
    return {"selector": selector, "ports": list(listed)} | fields


def port(number: int, **fields: Any) -> dict[str, Any]:
    return {"port": number, "targetPort": 8080} | fields


def generator(template: str = "{{ .DisplayName }}.svc.mesh.local", **fields: Any) -> dict[str, Any]:
    selector = {"meshService": {"matchLabels": {"team": "checkout"}}}
    return {"selector": selector, "template": template} | fields


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
