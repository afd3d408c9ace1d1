"""External services and those over several zones: names, endpoints, what clients are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import put_dataplane, put_service
from tests.maps import (
    EXTERNAL,
    MULTI_ZONE,
    POOL,
    SERVICE,
    Counting,
    View,
    available,
    binding,
    bound,
    dataplane,
    endpoints,
    external,
    ingress,
    key_of,
    multi_zone,
    record,
    removal,
    service,
    started,
    two_zones,
    zone_record,
)
from zonemesh import status
from zonemesh.deciding import Put
from zonemesh.ipam import Binding
from zonemesh.labels import DISPLAY_NAME
from zonemesh.model import Change, Key, ServiceRef

MULTI = ServiceRef(MULTI_ZONE, key_of("web", ""))


# External services


@pytest.mark.parametrize("zone", ["", "west"], ids=["made on global", "made here"])
def test_an_external_service_has_a_name_and_leads_to_its_endpoints(zone: str) -> None:
    view = started()
    chain = view.own if zone else view.copy
    chain.commit(
        external("api", ("192.0.2.1", 8443), ("api.example.com", 443), zone=zone),
        bound(EXTERNAL, "api", 5, zone),
    )
    view.flush()

    ref = ServiceRef(EXTERNAL, key_of("api", zone))
    (outbound,) = view.map.outbounds.of(ref)
    assert view.names == {"api.extsvc.mesh.local": 5}
    assert (outbound["kind"], outbound["port"], outbound["protocol"]) == (EXTERNAL, 443, "tls")
    assert endpoints(view, ref) == [
        ("192.0.2.1", 8443, zone, 0),
        ("api.example.com", 443, zone, 0),
    ]


def test_an_endpoint_of_an_external_service_keeps_its_own_priority() -> None:
    view = started()
    listed = [{"address": "192.0.2.1", "port": 1, "priority": 2}, {"address": "b.io", "port": 2}]
    spec = {"match": {"port": 443}, "endpoints": listed}
    put = Put(EXTERNAL, Key("default", "", "", "api"), {}, spec)
    view.copy.commit(record(put), bound(EXTERNAL, "api", 5))
    view.flush()

    found = endpoints(view, ServiceRef(EXTERNAL, key_of("api", "")))
    assert [priority for *_, priority in found] == [2, 0]


def test_an_external_service_without_endpoints_still_has_its_name() -> None:
    view = started()
    view.copy.commit(external("api"), bound(EXTERNAL, "api", 5))
    view.flush()

    assert view.names == {"api.extsvc.mesh.local": 5}
    assert endpoints(view, ServiceRef(EXTERNAL, key_of("api", ""))) == []


# Services over several zones


def test_a_multi_zone_service_leads_to_all_of_its_name_the_local_ones_first() -> None:
    view = two_zones()

    assert view.names["web.mzsvc.mesh.local"] == 3
    assert sorted(endpoints(view, MULTI)) == [
        ("10.0.0.1", 80, "west", 0),
        ("10.0.0.2", 80, "east", 1),
    ]
    assert view.map.outbounds.matched(MULTI) == [key_of("web", "east"), key_of("web", "west")]


@pytest.mark.parametrize(
    "change, found",
    [
        pytest.param(
            lambda view: view.copy.commit(available("web", "east", state="Unavailable")),
            ["10.0.0.1"],
            id="another zone's is unavailable",
        ),
        pytest.param(
            lambda view: view.own.commit(available("web", "west", state="Unavailable")),
            ["10.0.0.1", "10.0.0.2"],
            id="the local one speaks for itself",
        ),
        pytest.param(
            lambda view: view.copy.commit(removal(service("web", "east"))),
            ["10.0.0.1"],
            id="one is deleted",
        ),
        pytest.param(
            lambda view: view.own.commit(Change("Dataplane", key_of("w"), None)),
            ["10.0.0.2"],
            id="a Dataplane goes",
        ),
        pytest.param(
            lambda view: view.copy.commit(dataplane("e2", "web", zone="east", address="10.0.0.9")),
            ["10.0.0.1", "10.0.0.2", "10.0.0.9"],
            id="a Dataplane comes",
        ),
        pytest.param(
            lambda view: view.copy.commit(ingress("east", "203.0.113.1")),
            ["10.0.0.1", "203.0.113.1"],
            id="another zone gets an ingress",
        ),
        pytest.param(
            lambda view: view.copy.commit(zone_record("east", enabled=False)),
            ["10.0.0.1"],
            id="another zone is taken out",
        ),
    ],
)
def test_what_changes_behind_a_multi_zone_service_is_published_at_once(
    change: Callable[[View], Any], found: list[str]
) -> None:
    view = two_zones()

    change(view)

    delta = view.flush()["default"]
    assert MULTI in delta.services
    assert sorted(address for address, *_ in endpoints(view, MULTI)) == found


def test_a_multi_zone_service_of_which_nothing_is_left_keeps_name_and_address() -> None:
    view = two_zones()

    view.own.commit(removal(service("web")), binding("web", 1, released_ms=1))
    view.copy.commit(
        removal(service("web", "east")), binding("web", 2, "east", order=2, released_ms=1)
    )
    view.flush()

    assert view.names == {"web.mzsvc.mesh.local": 3}
    assert endpoints(view, MULTI) == []


@pytest.mark.parametrize(
    "asked, behind",
    [
        ({"port": 8080, "name": "http"}, [81]),
        ({"port": 80}, [80]),
        ({"port": 9, "name": "80"}, [80]),
        ({"port": 81}, []),
        ({"port": 80, "name": "admin"}, []),
    ],
    ids=["by name", "by number", "a number as a name", "a named port by number", "no such name"],
)
def test_a_port_stands_for_the_ports_that_are_called_the_same(
    asked: Mapping[str, Any], behind: list[int]
) -> None:
    view = started()
    put = put_service("web")
    ports = [
        {"port": 80, "targetPort": 80},
        {"port": 81, "targetPort": 81, "name": "http"},
    ]
    spec = put_dataplane("w", "web", "web").spec
    view.own.commit(
        record(replace(put, spec={**put.spec, "ports": ports})),
        record(Put("Dataplane", Key("default", "west", "", "w"), {}, spec)),
        binding("web", 1),
    )
    view.copy.commit(multi_zone("web", asked), bound(MULTI_ZONE, "web", 3))
    view.flush()

    assert [port for _, port, *_ in endpoints(view, MULTI)] == behind


@pytest.mark.parametrize("arrives", ["service", "selector"])
@pytest.mark.parametrize(
    "match",
    [
        {DISPLAY_NAME: "web"},
        {"tier": "front"},
        {"kuma.io/zone": "east"},
        {"kuma.io/zone": "east", "tier": "front"},
        {"kuma.io/env": "universal", DISPLAY_NAME: "web"},
        {"kuma.io/origin": "global"},
        {"kuma.io/mesh": "default", "tier": "front"},
    ],
    ids="+".join,
)
def test_a_service_is_found_by_stored_and_by_computed_labels(
    arrives: str, match: Mapping[str, str]
) -> None:
    view = started()
    changes = [
        [available("web", "east", tier="front"), available("other", "east", tier="fronts")],
        [multi_zone("web", match=match), bound(MULTI_ZONE, "web", 3)],
    ]
    for part in changes if arrives == "selector" else reversed(changes):
        view.copy.commit(*part)
        view.flush()

    assert key_of("web", "east") in view.map.outbounds.matched(MULTI)
    only_zone = match.keys() <= {"kuma.io/zone", "kuma.io/origin"}
    assert (key_of("other", "east") in view.map.outbounds.matched(MULTI)) is only_zone


def test_a_service_of_another_mesh_is_not_matched() -> None:
    view = two_zones()
    twin = available("web", "east")
    view.copy.commit(twin._replace(key=key_of("web", "east", "shop")))
    view.flush()

    assert key_of("web", "east", "shop") not in view.map.outbounds.matched(MULTI)


def test_a_label_that_changes_moves_a_service_from_one_multi_zone_service_to_another() -> None:
    view = started()
    view.copy.commit(
        multi_zone("blue", match={"color": "blue"}),
        bound(MULTI_ZONE, "blue", 1),
        multi_zone("green", match={"color": "green"}),
        bound(MULTI_ZONE, "green", 2),
        available("web", "east", color="blue"),
    )
    view.flush()

    view.copy.commit(available("web", "east", color="green"))

    blue, green = (ServiceRef(MULTI_ZONE, key_of(name, "")) for name in ("blue", "green"))
    assert {blue, green} <= view.flush()["default"].services
    assert view.map.outbounds.matched(blue) == []
    assert view.map.outbounds.matched(green) == [key_of("web", "east")]


def test_adding_a_multi_zone_service_by_name_reads_only_services_of_that_name() -> None:
    view = started(made=Counting)
    assert isinstance(view.map, Counting)
    view.copy.commit(*(available(f"s{number}", "east") for number in range(500)))
    view.copy.commit(available("web", "east"), available("web", "south"))
    view.flush()
    view.map.read.clear()

    view.copy.commit(multi_zone("web"), bound(MULTI_ZONE, "web", 3))
    view.flush()

    read = {ref.key for ref in view.map.read if ref.kind == SERVICE}
    assert read == {key_of("web", "east"), key_of("web", "south")}
    assert len(view.map.outbounds.matched(MULTI)) == 2


# What clients are told of them


def test_an_external_service_shows_one_address_and_who_gave_its_name() -> None:
    view = started()
    view.copy.commit(external("api"), bound(EXTERNAL, "api", 5))
    view.flush()

    found = status.mesh_external_service(
        binding=Binding(POOL + 5, 1, None, 0),
        outcomes=view.map.outcomes(ServiceRef(EXTERNAL, key_of("api", ""))),
        shortage=None,
    )

    assert found["vip"] == {"ip": "241.0.0.5"}
    (address,) = found["addresses"]
    assert address["hostname"] == "api.extsvc.mesh.local"
    assert address["hostnameGeneratorRef"]["coreName"].startswith("synced-mesh-external-service-")
    assert "conditions" not in found


def test_a_multi_zone_service_shows_the_services_that_it_stands_for() -> None:
    view = two_zones()

    found = status.mesh_multi_zone_service(
        binding=Binding(POOL + 3, 1, None, 0),
        outcomes=view.map.outcomes(MULTI),
        matched=[Key.parse(key) for key in view.map.outbounds.matched(MULTI)],
        shortage=None,
    )

    assert [each["ip"] for each in found["vips"]] == ["241.0.0.3", "fd00:fd00::f100:3"]
    assert [(each["name"], each["zone"]) for each in found["meshServices"]] == [
        ("web", "east"),
        ("web", "west"),
    ]
    (condition,) = found["conditions"]
    assert (condition["status"], condition["reason"]) == ("True", "MatchesFound")
    assert condition["message"].startswith("2 ")


@pytest.mark.parametrize(
    "shortage, reason", [(None, "Waiting"), ("pool X: all in use", "PoolExhausted")]
)
@pytest.mark.parametrize(
    "held", [None, Binding(None, 1, None, 0), Binding(POOL, 1, 5, 0)], ids=["new", "waits", "rests"]
)
def test_a_service_without_an_address_says_why(
    held: Binding | None, shortage: str | None, reason: str
) -> None:
    several = status.mesh_multi_zone_service(
        binding=held, outcomes=(), matched=(), shortage=shortage
    )
    one = status.mesh_external_service(binding=held, outcomes=(), shortage=shortage)

    assert (several["vips"], one["vip"]) == ([], {})
    unmatched, *more = several["conditions"]
    assert (unmatched["status"], unmatched["reason"]) == ("False", "NoMatchesFound")
    for condition in (*more, *one["conditions"]):
        assert (condition["type"], condition["status"]) == ("VIPAllocated", "False")
        assert condition["reason"] == reason
        assert shortage is None or condition["message"] == shortage
    assert len(more) == 1
