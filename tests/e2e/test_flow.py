"""Register in west, resolve in east: what a user of a healthy mesh sees."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import dns.rcode
import pytest

from tests.e2e.mesh import (
    PLANES,
    SILENCE_S,
    ZONES,
    Mesh,
    at_home,
    elsewhere,
    eventually,
    ipv6_of,
)

pytestmark = pytest.mark.timeout(60)


def test_a_registration_in_west_resolves_in_east(calm_mesh: Mesh) -> None:
    calm_mesh.register("west", "redis")

    address = calm_mesh.resolves("east", elsewhere("redis"))
    answer = calm_mesh.query("east", elsewhere("redis"))
    assert answer is not None
    assert answer.rcode() == dns.rcode.NOERROR
    assert address.startswith("241.")
    assert [records.ttl for records in answer.answer] == [60]
    assert calm_mesh.resolve("east", elsewhere("redis"), "AAAA") == [ipv6_of(address)]
    assert calm_mesh.resolve("east", elsewhere("REDIS").upper()) == [address]


def test_a_known_name_has_no_other_records_but_exists(calm_mesh: Mesh) -> None:
    calm_mesh.registered("mail")

    answer = calm_mesh.query("east", elsewhere("mail"), "MX")

    assert answer is not None
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.answer == []


def test_everyone_holds_the_same_addresses(calm_mesh: Mesh) -> None:
    addresses = calm_mesh.registered("one", "two", "three")

    for plane in PLANES:
        eventually(partial(calm_mesh.holds, plane, addresses), 5, calm_mesh, plane)
    for service, address in addresses.items():
        assert calm_mesh.resolves("west", at_home(service)) == address
        assert calm_mesh.resolve("west", at_home(service), "AAAA") == [ipv6_of(address)]


def test_the_maps_of_both_zones_name_address_and_endpoint(calm_mesh: Mesh) -> None:
    address = calm_mesh.registered("mapped")["mapped"]

    def outbound(zone: str) -> list[Any]:
        seen = calm_mesh.get(zone, "/meshes/default/_vips")
        return [
            (found["vips"], [each["address"] for each in found["endpoints"]])
            for found in seen["outbounds"]
            if "_mapped_" in found["id"]
        ]

    expected = [([address, ipv6_of(address)], ["10.0.0.1"])]
    eventually(lambda: outbound("west") == expected == outbound("east"), 5, calm_mesh, *ZONES)


def test_the_name_of_the_last_dataplane_goes_after_its_grace_and_its_address_comes_back(
    calm_mesh: Mesh,
) -> None:
    address = calm_mesh.registered("gone")["gone"]

    removed_s = time.monotonic()
    calm_mesh.remove("west", "gone")
    eventually(lambda: not calm_mesh.resolve("east", elsewhere("gone")), 10, calm_mesh, "west")
    assert time.monotonic() - removed_s >= 1.0, "within its grace period"
    eventually(lambda: not calm_mesh.resolve("west", at_home("gone")), 3, calm_mesh, "west")

    assert calm_mesh.registered("other", "gone")["gone"] == address


def test_a_name_stays_while_another_dataplane_carries_it(calm_mesh: Mesh) -> None:
    path = "/meshes/default/dataplanes/pair-2"
    body = {
        "type": "Dataplane",
        "mesh": "default",
        "name": "pair-2",
        "networking": {
            "address": "10.0.0.2",
            "inbound": [{"port": 8080, "tags": {"kuma.io/service": "pair"}}],
        },
    }
    address = calm_mesh.registered("pair")["pair"]
    calm_mesh.put("west", path, body)

    calm_mesh.remove("west", "pair")

    def endpoints() -> list[str]:
        seen = calm_mesh.get("east", "/meshes/default/_vips")
        return [
            each["address"]
            for found in seen["outbounds"]
            if "_pair_" in found["id"]
            for each in found["endpoints"]
        ]

    eventually(lambda: endpoints() == ["10.0.0.2"], 5, calm_mesh, "east")
    assert calm_mesh.resolve("east", elsewhere("pair")) == [address]


def test_two_services_that_want_one_name_have_the_same_winner_in_both_zones(
    calm_mesh: Mesh,
) -> None:
    generator = {
        "type": "HostnameGenerator",
        "name": "anywhere",
        "spec": {
            "template": "{{ .DisplayName }}.anywhere.mesh.local",
            "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "twin"}}},
        },
    }
    leader = calm_mesh.leading()
    calm_mesh.put(leader, "/hostnamegenerators/anywhere", generator)
    calm_mesh.register("west", "twin")
    in_west = calm_mesh.resolves("east", elsewhere("twin"))
    calm_mesh.register("east", "twin")
    in_east = calm_mesh.resolves("west", elsewhere("twin", "east"))

    found = {zone: calm_mesh.resolves(zone, "twin.anywhere.mesh.local") for zone in ZONES}
    assert found["west"] == found["east"]
    assert found["west"] == in_west != in_east, "the one that was merged first"

    def said(zone: str) -> list[str]:
        listed = calm_mesh.get(zone, "/meshes/default/meshservices?size=1000")
        return [
            condition["message"]
            for item in listed["items"]
            if item["labels"]["kuma.io/display-name"] == "twin"
            and item["labels"]["kuma.io/zone"] == "east"
            for generated in item["status"]["hostnameGenerators"]
            for condition in generated["conditions"]
            if condition["reason"] == "Collision"
        ]

    for zone in ZONES:
        [message] = eventually(partial(said, zone), 5, calm_mesh, zone)
        assert "twin" in message
        assert "west" in message


def test_an_idle_feed_is_kept_open_by_its_heartbeats(calm_mesh: Mesh) -> None:
    """An agent that heard nothing for `silence_s` would open the feed anew."""
    calm_mesh.registered("quiet")

    def stays_open() -> bool:
        ended = calm_mesh.metric("east-agent", "zonedp_feed_ended_total")
        until_s = time.monotonic() + 2 * SILENCE_S
        eventually(lambda: time.monotonic() > until_s, 3 * SILENCE_S)
        return calm_mesh.metric("east-agent", "zonedp_feed_ended_total") == ended

    eventually(stays_open, 6 * SILENCE_S)  # but where a zone had no time for a heartbeat
