"""Legacy names: which they are, and which exist."""

from __future__ import annotations

from typing import Any

import pytest

from tests.legacynames import POLICIES, SERVICE, dataplane, dp, index_of, mesh_of, packed, service
from zonemesh.legacy import LegacyIndex, Naming, legacy_names_enabled
from zonemesh.legacynames import service_names
from zonemesh.model import zone_of
from zonemesh.registry import Registry

# Names


@pytest.mark.parametrize(
    "tag, names",
    [
        ("redis", ("redis.mesh",)),
        ("Redis", ("redis.mesh",)),
        (
            "echo-server_echo-example_svc_1010",
            ("echo-server_echo-example_svc_1010.mesh", "echo-server.echo-example.svc.1010.mesh"),
        ),
        ("a.b", ("a.b.mesh",)),
        ("_a", ("_a.mesh",)),  # no label may be empty
        ("a__b", ("a__b.mesh",)),
        ("a_-b", ("a_-b.mesh",)),
        ("a" * 63, ("a" * 63 + ".mesh",)),
        ("a" * 64, ()),
        ("a" * 40 + "_" + "b" * 40, ("a" * 40 + "." + "b" * 40 + ".mesh",)),
        ("-a", ()),
        ("a..b", ()),
        (".".join(["a" * 62] * 4), ()),  # 256 octets with the domain
    ],
)
def test_the_names_of_a_service(tag: str, names: tuple[str, ...]) -> None:
    assert service_names(tag, "mesh") == names


def test_the_domain_and_the_port_are_configurable() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a"), dataplane("a_b"))
    index = index_of(registry, Naming(domain="corp.lan", port=8080))

    assert index.names(service("a_b")) == ["a_b.corp.lan", "a.b.corp.lan"]
    assert [port.port for port in index.ports(service("a_b"))] == [8080]


def test_without_service_vips_only_virtual_outbounds_make_names() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a"), dataplane("redis"))
    registry.put("VirtualOutbound", "default///vo", POLICIES[0])
    index = index_of(registry, Naming(services=False))

    assert list(index.wanted()) == ["default//host/redis.mesh"]
    assert index.contenders("default", "redis.mesh") == ["default//host/redis.mesh"]
    assert [port.port for port in index.ports("default//host/redis.mesh")] == [8080]


@pytest.mark.parametrize(
    "services, name, contenders",
    [
        (("a_b", "a.b"), "a.b.mesh", ("a.b", "a_b")),
        (("a_b", "A.B"), "a.b.mesh", ("A.B", "a_b")),
        (("a_b.c", "a.b_c"), "a.b.c.mesh", ("a.b_c", "a_b.c")),
        (("REDIS", "redis", "Redis"), "redis.mesh", ("redis", "REDIS", "Redis")),
        (("A_b", "a.B"), "a.b.mesh", ("a.B", "A_b")),
        (("a_b",), "a_b.mesh", ("a_b",)),
        (("a_b",), "a_b", ()),
    ],
)
def test_who_of_two_services_has_a_name_does_not_depend_on_the_order(
    services: tuple[str, ...], name: str, contenders: tuple[str, ...]
) -> None:
    for order in (services, services[::-1]):
        _, index = mesh_of(*order)

        found = index.contenders("default", name)

        assert found == [service(each) for each in contenders]
        for loser in found[1:]:
            (conflict,) = index.conflicts(loser)
            assert conflict == (name, None, found[0], loser)


def test_a_dotted_name_falls_to_the_next_when_its_service_goes() -> None:
    registry, index = mesh_of("a_b", "a.b")
    assert index.names(service("a_b")) == ["a_b.mesh"]
    index.take()

    registry.put("Dataplane", dp("a.b"), None)

    assert index.take().names == {service("a_b"), service("a.b")}
    assert index.names(service("a_b")) == ["a_b.mesh", "a.b.mesh"]
    assert index.conflicts(service("a_b")) == []
    assert index.conflicts(service("a.b")) == []
    assert index.names(service("a.b")) == []


# Which exist


def test_a_service_of_several_zones_has_one_name_until_the_last_dataplane_goes() -> None:
    registry = Registry()
    index = index_of(registry)
    registry.put("Dataplane", dp("a", "east"), dataplane("redis"))
    registry.put("Dataplane", dp("a", "west"), dataplane("redis"))
    assert index.take().names == {service("redis")}
    (port,) = index.ports(service("redis"))
    assert port.dataplanes == (dp("a", "east"), dp("a", "west"))

    registry.put("Dataplane", dp("a", "east"), None)
    touched = index.take()
    assert (touched.names, touched.endpoints) == (set(), {service("redis")})
    assert index.wants(service("redis"))

    registry.put("Dataplane", dp("a", "west"), None)
    assert index.take().names == {service("redis")}
    assert not index.wants(service("redis"))
    assert index.ports(service("redis")) == []


@pytest.mark.parametrize(
    "spec, services",
    [
        ({"inbound": [{"tags": {SERVICE: "a"}}, {"tags": {SERVICE: "b"}}]}, {"a", "b"}),
        ({"inbound": [{"tags": {SERVICE: "a"}}, {"tags": {SERVICE: "a"}}]}, {"a"}),
        # As in Kuma: nothing in the mesh connects to a gateway.
        ({"gateway": {"tags": {SERVICE: "edge"}}}, set()),
        ({"inbound": [{"tags": {SERVICE: "a"}, "state": "Ignored"}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a"}, "state": "NotReady"}]}, {"a"}),
        ({"inbound": [{"port": 1}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a" * 64}}]}, set()),
        # what another build may have stored
        ({"inbound": [{"tags": {SERVICE: 7, "b": 1}}]}, set()),
        ({"inbound": [{"tags": {SERVICE: "a/b"}}]}, set()),
        ({"inbound": [{"tags": [SERVICE]}]}, set()),
        ({}, set()),
    ],
)
def test_which_services_a_dataplane_names(spec: dict[str, Any], services: set[str]) -> None:
    registry = Registry()
    registry.put("VirtualOutbound", "default///vo", POLICIES[1])
    index = index_of(registry)

    registry.put("Dataplane", dp("a"), packed({"networking": spec}))

    assert {key for key in index.wanted() if "/service/" in key} == set(map(service, services))
    registry.put("Dataplane", dp("a"), None)
    assert not list(index.wanted())


@pytest.mark.parametrize(
    "mode, enabled",
    [
        (None, True),
        ("Disabled", True),
        ("Everywhere", True),
        ("ReachableBackends", True),
        ("Exclusive", False),
    ],
)
def test_the_mode_of_a_mesh_decides_whether_it_has_legacy_names(
    mode: str | None, enabled: bool
) -> None:
    registry, index = mesh_of("redis")
    index.take()

    registry.put("Mesh", "///default", packed({"meshServices": {"mode": mode}} if mode else {}))

    assert legacy_names_enabled(mode) == enabled
    assert index.wants(service("redis")) == enabled
    assert bool(list(index.wanted())) == enabled
    assert bool(index.contenders("default", "redis.mesh")) == enabled
    assert bool(index.take().names) != enabled  # only a mode that takes the names changes them
    registry.put("Mesh", "///default", None)
    assert index.wants(service("redis"))


def test_globals_mesh_counts_before_a_zones_own() -> None:
    registry, index = mesh_of("redis")
    registry.put("Mesh", "/west//default", packed({"meshServices": {"mode": "Exclusive"}}))
    assert not index.wants(service("redis"))

    registry.put("Mesh", "///default", packed({}))

    assert index.wants(service("redis"))


def test_meshes_do_not_share_names() -> None:
    registry = Registry()
    registry.put("Dataplane", dp("a", mesh="one"), dataplane("redis"))
    index = index_of(registry)

    assert index.contenders("one", "redis.mesh") == ["one//service/redis"]
    assert index.contenders("two", "redis.mesh") == []
    assert not index.wants("two//service/redis")


def test_a_zone_sees_its_own_dataplanes_in_its_own_log_only() -> None:
    own, copy = Registry(), Registry()
    copy.put("Dataplane", dp("old", "west"), dataplane("gone"))
    copy.put("Dataplane", dp("far", "east"), dataplane("redis"))
    own.put("Dataplane", dp("near", "west"), dataplane("redis"))
    index = LegacyIndex()
    index.attach(own, lambda key: zone_of(key) == "west")
    index.attach(copy, lambda key: zone_of(key) != "west")

    # A policy of one registry renders the Dataplanes of both.
    copy.put("VirtualOutbound", "default///vo", POLICIES[0])

    host = "default//host/redis.mesh"
    assert set(index.wanted()) == {service("redis"), host}
    assert index.ports(host)[0].dataplanes == (dp("far", "east"), dp("near", "west"))


def test_a_heartbeat_of_a_dataplane_touches_no_name() -> None:
    registry, index = mesh_of("redis")
    index.take()

    registry.put("Dataplane", dp("redis"), dataplane("redis", address="10.0.0.2"))

    touched = index.take()
    assert (touched.names, touched.endpoints) == (set(), {service("redis")})
    assert not index.take()
