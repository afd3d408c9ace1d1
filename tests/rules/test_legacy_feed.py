"""What agents are told of legacy names: endpoints, zones, protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.legacynames import SERVICE, dp, index_of, mesh_of, service
from tests.maps import ingress
from zonemesh.endpoints import Ingresses, Place
from zonemesh.ipam import parse_ipv4
from zonemesh.legacyoutbounds import Surroundings, outbound, outbound_ids
from zonemesh.model import Record, zone_of
from zonemesh.registry import Registry

HTTP = {SERVICE: "redis", "kuma.io/protocol": "http"}


def record(*inbound: dict[str, Any], address: str) -> Record:
    networking = {"address": address, "inbound": list(inbound)}
    return Record(created_ms=1, modified_ms=1, spec={"networking": networking})


NEAR = record({"port": 1, "tags": HTTP}, address="10.0.0.1")
FAR = record(
    {"port": 2, "tags": HTTP, "address": "10.9.0.2", "state": "NotReady"},
    {"port": 3, "tags": {SERVICE: "other"}},
    {"port": 4, "tags": HTTP},
    address="10.9.0.1",
)


def feed(ingresses: Mapping[str, list[Place]], **records: Record) -> dict[str, Any]:
    """The outbound of redis in zone west, of a Dataplane in each of some zones."""
    registry = Registry()
    for zone, each in records.items():
        registry.put("Dataplane", dp("a", zone), each.pack())
    (port,) = index_of(registry).ports(service("redis"))
    reached_at = Ingresses()
    for zone, places in ingresses.items():
        for number, place in enumerate(places):
            change = ingress(zone, *place, name=str(number))
            reached_at.put(change.key, change.payload)
    around = Surroundings(
        zone="west",
        dataplane=lambda key: records[zone_of(key)],
        ingresses=reached_at,
    )
    return outbound(service("redis"), port, parse_ipv4("240.0.0.7"), around)


def endpoint(address: str, port: int, zone: str, *, ready: bool = True) -> dict[str, Any]:
    priority = 0 if zone == "west" else 1
    return {"address": address, "port": port, "zone": zone, "priority": priority, "ready": ready}


def test_an_outbound_names_its_service_and_all_its_endpoints_the_zones_own_first() -> None:
    found = feed({}, west=NEAR, east=FAR)

    assert found == {
        "id": "default//service/redis/80",
        "kind": "Legacy",
        "vips": ["240.0.0.7", "fd00:fd00::f000:7"],
        "port": 80,
        "name": "redis",
        "protocol": "http",
        "zone": "",
        "endpoints": [
            endpoint("10.0.0.1", 1, "west"),
            endpoint("10.9.0.2", 2, "east", ready=False),
            endpoint("10.9.0.1", 4, "east"),
        ],
    }
    assert found["id"].startswith(outbound_ids(service("redis")))
    assert not found["id"].startswith(outbound_ids(service("red")))


def test_another_zone_is_reached_through_its_ingresses_if_it_has_any() -> None:
    places = [("10.9.9.2", 10001), ("10.9.9.1", 10001)]

    found = feed({"east": places, "west": places}, west=NEAR, east=FAR)

    assert found["endpoints"] == [
        endpoint("10.0.0.1", 1, "west"),
        endpoint("10.9.9.1", 10001, "east"),
        endpoint("10.9.9.2", 10001, "east"),
    ]


@pytest.mark.parametrize(
    "protocols, expected",
    [
        (("http", "http"), "http"),
        (("http", "grpc"), "tcp"),
        (("", ""), "tcp"),
        (("HTTP2", "http2"), "http2"),
    ],
)
def test_what_does_not_speak_alike_is_tcp(protocols: tuple[str, str], expected: str) -> None:
    inbound = [
        {"port": at, "tags": {SERVICE: "redis"}, "protocol": each}
        for at, each in enumerate(protocols, 1)
    ]

    assert feed({}, west=record(*inbound, address="10.0.0.1"))["protocol"] == expected


def test_a_dataplane_that_is_not_served_is_no_endpoint() -> None:
    _, index = mesh_of("a")
    (port,) = index.ports(service("a"))
    around = Surroundings(zone="west", dataplane=lambda _: None, ingresses=Ingresses())

    assert outbound(service("a"), port, 1, around)["endpoints"] == []
