"""Each kind written in one place and read on three control planes: global and two zones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.e2e.mesh import GLOBALS, Mesh, elsewhere, eventually, request
from zonemesh.labels import synced_name
from zonemesh.model import Key
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Scope

pytestmark = pytest.mark.timeout(60)

GLOBAL = GLOBALS[0]
EVERYWHERE = (GLOBAL, "west", "east")
LABELS = {"team": "checkout"}
SERVED = {"selector": {"dataplaneTags": {"app": "synced"}}, "ports": [{"port": 80}]}
OUTSIDE = {
    "match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"},
    "endpoints": [{"address": "192.0.2.1", "port": 443}],
}
NAMING = {
    "selector": {"meshService": {"matchLabels": {"nobody": "has-it"}}},
    "template": "{{ .DisplayName }}.synced.mesh.local",
}
NETWORK = {
    "address": "10.0.0.7",
    "inbound": [{"port": 8080, "tags": {"kuma.io/service": "synced"}}],
}
HOST = {
    "selectors": [{"match": {"kuma.io/service": "nobody"}}],
    "conf": {
        "host": "{{.service}}.synced",
        "port": "80",
        "parameters": [{"name": "service", "tagKey": "kuma.io/service"}],
    },
}


@dataclass(frozen=True)
class Case:
    kind: str
    written: str
    body: dict[str, Any]
    seen: tuple[str, ...]
    """The other planes that show it."""

    @property
    def key(self) -> Key:
        mesh = "default" if KINDS[self.kind].scope is Scope.MESH else ""
        zone = "" if self.written == GLOBAL else self.written
        return Key(mesh, zone, "", f"synced-{self.kind.lower()}")

    @property
    def collection(self) -> str:
        mesh = f"/meshes/{self.key.mesh}" if self.key.mesh else ""
        return f"{mesh}/{KINDS[self.kind].path}"

    def name_on(self, plane: str) -> str:
        here = "" if plane == GLOBAL else plane
        return synced_name(self.key, here) if KINDS[self.kind].hashed else self.key.name

    def path_on(self, plane: str) -> str:
        return f"{self.collection}/{self.name_on(plane)}"


def spec(inner: dict[str, Any]) -> dict[str, Any]:
    return {"spec": inner}


MULTI_ZONE = {
    "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "nobody"}}},
    "ports": [{"port": 80}],
}
INGRESS = {"networking": {"address": "10.0.0.2", "port": 10001}, "zone": "west"}

CASES = [
    Case("Mesh", GLOBAL, {"meshServices": {"mode": "Exclusive"}}, ("west", "east")),
    Case("HostnameGenerator", GLOBAL, spec(NAMING), ("west", "east")),
    Case("HostnameGenerator", "west", spec(NAMING), (GLOBAL,)),
    Case("MeshExternalService", GLOBAL, spec(OUTSIDE), ("west", "east")),
    Case("MeshExternalService", "west", spec(OUTSIDE), (GLOBAL,)),
    Case("MeshMultiZoneService", GLOBAL, spec(MULTI_ZONE), ("west", "east")),
    Case("VirtualOutbound", GLOBAL, HOST, ("west", "east")),
    Case("MeshService", "west", spec(SERVED), (GLOBAL, "east")),
    Case("Dataplane", "west", {"networking": NETWORK}, (GLOBAL,)),
    Case("ZoneIngress", "west", INGRESS, (GLOBAL, "east")),
    Case("ZoneEgress", "west", INGRESS, (GLOBAL,)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.written}")
def test_a_resource_is_shown_where_its_kind_travels_and_nowhere_else(
    calm_mesh: Mesh, case: Case
) -> None:
    kind = KINDS[case.kind]
    document = {"type": case.kind, "name": case.key.name, "labels": LABELS, **case.body}
    if case.key.mesh:
        document["mesh"] = case.key.mesh

    status, answer = calm_mesh.call(case.written, "PUT", case.path_on(case.written), document)
    assert status == 201, answer

    for plane in (case.written, *case.seen):
        shown = eventually(partial(shows, calm_mesh, plane, case), 5, calm_mesh, plane) or {}
        assert shown["name"] == case.name_on(plane)
        assert shown["labels"] == expected_labels(case, plane)
        if kind.short:
            assert shown["kri"] == kind.kri(case.key)
        assert listed(calm_mesh, plane, case) == [case.name_on(plane)]
    # What was written later has arrived everywhere: this would have, too.
    arrived(calm_mesh, f"after-{case.kind}-{case.written}".lower())
    for plane in set(EVERYWHERE) - {case.written, *case.seen}:
        assert shows(calm_mesh, plane, case) is None
        assert listed(calm_mesh, plane, case) == []

    for plane in case.seen:
        path = case.path_on(plane)
        status, answer = calm_mesh.call(
            plane, "PUT", path, {**document, "name": case.name_on(plane)}
        )
        assert status in (400, 405), "a copy was overwritten"
        assert calm_mesh.call(plane, "DELETE", path)[0] == 405

    assert calm_mesh.call(case.written, "DELETE", case.path_on(case.written))[0] == 200
    for plane in case.seen:
        eventually(partial(is_gone, calm_mesh, plane, case), 5, calm_mesh, plane)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.seen and case.kind != "Mesh"],
    ids=lambda case: f"{case.kind}-{case.written}",
)
def test_what_is_not_to_be_synced_stays_where_it_was_written(calm_mesh: Mesh, case: Case) -> None:
    document = {
        "type": case.kind,
        "name": case.key.name,
        "labels": {"kuma.io/kds-sync": "disabled"},
        **case.body,
    }
    if case.key.mesh:
        document["mesh"] = case.key.mesh
    calm_mesh.put(case.written, case.path_on(case.written), document)

    arrived(calm_mesh, f"private-{case.kind}-{case.written}".lower())

    assert shows(calm_mesh, case.written, case) is not None
    for plane in case.seen:
        assert shows(calm_mesh, plane, case) is None
    assert calm_mesh.call(case.written, "DELETE", case.path_on(case.written))[0] == 200


def test_services_of_a_kubernetes_zone_are_found_by_their_namespaced_names(
    calm_mesh: Mesh,
) -> None:
    labels = {"kuma.io/env": "kubernetes", "k8s.kuma.io/namespace": "redis-system"}
    headful = {**labels, "k8s.kuma.io/is-headless-service": "false"}
    pod = {
        **labels,
        "k8s.kuma.io/is-headless-service": "true",
        "k8s.kuma.io/service-name": "redis",
        "statefulset.kubernetes.io/pod-name": "redis-0",
    }
    service = {
        "selector": {"dataplaneTags": {"app": "redis"}},
        "ports": [{"port": 6379, "targetPort": 6379}],
    }
    key = Key("default", "west", "redis-system", "redis")
    for name, given, kept in (
        ("redis.redis-system", headful, service),
        ("redis-0.redis-system", pod, service),
    ):
        document = {"type": "MeshService", "mesh": "default", "name": name, "labels": given}
        path = f"/meshes/default/meshservices/{name}"
        calm_mesh.put("west", path, {**document, "spec": kept})

    address = calm_mesh.resolves("east", "redis.redis-system.svc.west.mesh.local")
    assert calm_mesh.resolves("east", "redis-0.redis.redis-system.svc.west.mesh.local") != address
    for plane in (GLOBAL, "east"):
        hashed = synced_name(key, "" if plane == GLOBAL else plane)
        place = f"/meshes/default/meshservices/{hashed}"
        eventually(lambda: calm_mesh.call(plane, "GET", place)[0] == 200, 5, calm_mesh, plane)  # noqa: B023
        shown = calm_mesh.get(plane, place)
        assert shown["labels"]["k8s.kuma.io/namespace"] == "redis-system"
        assert shown["labels"]["kuma.io/env"] == "kubernetes"
        assert shown["status"]["vips"][0]["ip"] == address
        path = f"/meshes/default/meshservices/{hashed}/_hostnames"
        names = [item["hostname"] for item in calm_mesh.get(plane, path)["items"]]
        assert "redis.redis-system.svc.west.mesh.local" in names
    own = calm_mesh.get("west", "/meshes/default/meshservices/redis.redis-system")
    assert own["name"] == "redis.redis-system"
    assert own["status"]["vips"][0]["ip"] == address
    for name in ("redis.redis-system", "redis-0.redis-system"):
        assert calm_mesh.call("west", "DELETE", f"/meshes/default/meshservices/{name}")[0] == 200


def arrived(mesh: Mesh, service: str) -> None:
    """Write a service, and wait until global and east have it."""
    mesh.registered(service)
    eventually(partial(mesh.holds, GLOBAL, {service: mesh.resolve("east", elsewhere(service))[0]}))


def shows(mesh: Mesh, plane: str, case: Case) -> dict[str, Any] | None:
    status, body = request(mesh.ports[plane], "GET", case.path_on(plane))
    assert status in (200, 404), body
    return body if status == 200 else None


def is_gone(mesh: Mesh, plane: str, case: Case) -> bool:
    return shows(mesh, plane, case) is None


def listed(mesh: Mesh, plane: str, case: Case) -> list[str]:
    found = mesh.get(plane, f"{case.collection}?name={case.key.name}")
    return [item["name"] for item in found["items"]]


def expected_labels(case: Case, plane: str) -> dict[str, str]:
    """Kuma's computed labels (pkg/core/resources/apis/core/labels), as read at a plane."""
    zone = case.key.zone
    here = "" if plane == GLOBAL else plane
    found = {
        **LABELS,
        "kuma.io/display-name": case.key.name,
        "kuma.io/origin": "zone" if zone and here in ("", zone) else "global",
    }
    if case.key.mesh:
        found["kuma.io/mesh"] = case.key.mesh
    if zone and KINDS[case.kind].by_zone:
        found |= {"kuma.io/zone": zone, "kuma.io/env": "universal"}
    return found
