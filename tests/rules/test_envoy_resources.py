"""What an outbound of the feed becomes in Envoy's terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from zonecp.dataplane.envoy import bootstrap, clusters, dnsfilter, listeners
from zonecp.dataplane.envoy.messages import serialized
from zonecp.dataplane.outbounds import Endpoint, Outbound

VIP, VIP6 = "241.0.0.7", "fd00:fd00::f100:7"


def outbound(*endpoints: Endpoint, protocol: str = "http", **fields: Any) -> Outbound:
    return Outbound(
        **{
            "id": "kri_msvc_default_west__redis_main",
            "kind": "MeshService",
            "vips": (VIP, VIP6),
            "port": 6379,
            "name": "redis",
            "protocol": protocol,
            "zone": "west",
            "endpoints": endpoints,
            **fields,
        }
    )


def endpoint(address: str, zone: str, priority: int, *, ready: bool = True) -> Endpoint:
    return Endpoint(address=address, port=8080, zone=zone, priority=priority, ready=ready)


def as_dict(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def places(assignment: Any) -> list[tuple[int, str, list[tuple[str, str]]]]:
    return [
        (
            group.get("priority", 0),
            group["locality"]["zone"],
            [
                (
                    each["endpoint"]["address"]["socket_address"]["address"],
                    each["health_status"],
                )
                for each in group["lb_endpoints"]
            ],
        )
        for group in as_dict(assignment)["endpoints"]
    ]


def test_this_zone_comes_first_and_the_others_are_to_fail_over_to() -> None:
    found = clusters.assignment(
        outbound(
            endpoint("10.2.0.1", "west", 1),
            endpoint("10.1.0.1", "east", 0),
            endpoint("10.3.0.1", "north", 1),
            endpoint("10.1.0.2", "east", 0, ready=False),
        )
    )

    assert places(found) == [
        (0, "east", [("10.1.0.1", "HEALTHY"), ("10.1.0.2", "UNHEALTHY")]),
        (1, "north", [("10.3.0.1", "HEALTHY")]),
        (1, "west", [("10.2.0.1", "HEALTHY")]),
    ]


def test_priorities_have_no_gaps() -> None:
    found = clusters.assignment(
        outbound(endpoint("10.0.0.1", "a", 5), endpoint("10.0.0.2", "a", 200))
    )

    assert [priority for priority, _, _ in places(found)] == [0, 1]


def test_a_place_that_is_behind_several_services_is_there_once_and_ready_if_one_says_so() -> None:
    found = clusters.assignment(
        outbound(
            endpoint("10.0.0.9", "west", 1, ready=False),
            endpoint("10.0.0.9", "west", 1),
            endpoint("10.0.0.9", "west", 2, ready=False),
        )
    )

    assert places(found) == [(0, "west", [("10.0.0.9", "HEALTHY")])]


def test_a_cluster_does_not_change_with_its_endpoints() -> None:
    one = clusters.cluster(outbound(endpoint("10.0.0.1", "east", 0)))
    other = clusters.cluster(outbound())

    assert serialized(one) == serialized(other)
    assert as_dict(one)["type"] == "EDS"


def test_hostnames_are_resolved_by_envoy_and_are_part_of_their_cluster() -> None:
    external = outbound(endpoint("api.example.com", "west", 0), kind="MeshExternalService")

    found = as_dict(clusters.cluster(external))

    assert found["type"] == "STRICT_DNS"
    assert places(clusters.assignment(external)) == [(0, "west", [("api.example.com", "HEALTHY")])]
    assert found["load_assignment"]["endpoints"]


@pytest.mark.parametrize(
    "protocol, http, http2",
    [
        ("http", True, False),
        ("http2", True, True),
        ("grpc", True, True),
        ("tcp", False, False),
        ("kafka", False, False),
    ],
)
def test_the_protocol_decides_how_connections_are_handled(
    protocol: str, http: bool, http2: bool
) -> None:
    service = outbound(protocol=protocol)
    chain = as_dict(listeners.filter_chain(service))
    [handler] = chain["filters"]

    assert ("http_connection_manager" in handler["name"]) is http
    assert ("tcp_proxy" in handler["name"]) is not http
    assert ("typed_extension_protocol_options" in as_dict(clusters.cluster(service))) is http2


@pytest.mark.parametrize(
    "vip, name", [(VIP, f"outbound:{VIP}:6379"), (VIP6, f"outbound:[{VIP6}]:6379")]
)
def test_a_listener_is_named_by_its_address_and_tagged_with_its_service(
    vip: str, name: str
) -> None:
    service = outbound()
    chain = listeners.filter_chain(service)

    found = as_dict(listeners.outbound_listener(service, vip, chain, bound=True, freebind=False))

    assert found["name"] == name
    assert found["metadata"]["filter_metadata"]["io.kuma.tags"] == {"kuma.io/service": "redis"}
    assert found["address"]["socket_address"]["address"] == vip
    assert "bind_to_port" not in found


def test_redirected_connections_are_handed_to_listeners_that_do_not_bind() -> None:
    service = outbound()
    chain = listeners.filter_chain(service)

    found = as_dict(listeners.outbound_listener(service, VIP, chain, bound=False, freebind=False))
    entry = as_dict(listeners.redirect_listener(listeners.PASSTHROUGH_V4, 15001))

    assert found["bind_to_port"] is False
    assert entry["use_original_dst"] is True
    assert entry["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 15001}
    assert "original_dst" in entry["listener_filters"][0]["name"]
    # An address from outside the mesh is tried once: there is no other instance.
    proxy = entry["default_filter_chain"]["filters"][0]["typed_config"]
    assert proxy["max_connect_attempts"] == 1


def test_one_listener_may_hold_all_destinations() -> None:
    chains = {
        listeners.listener_name(VIP, 6379): serialized(listeners.matching_chain(outbound(), VIP))
    }

    found = as_dict(
        listeners.redirect_listener(listeners.PASSTHROUGH_V4, 15001, chains=chains, single=True)
    )

    [chain] = found["filter_chains"]
    assert chain["filter_chain_match"] == {
        "destination_port": 6379,
        "prefix_ranges": [{"address_prefix": VIP, "prefix_len": 32}],
    }
    assert "use_original_dst" not in found
    assert found["default_filter_chain"]


@pytest.mark.parametrize(
    "name,prefix",
    [
        (listeners.PASSTHROUGH_V4, {"address_prefix": "240.0.0.0", "prefix_len": 4}),
        (listeners.PASSTHROUGH_V6, {"address_prefix": "fd00:fd00::", "prefix_len": 64}),
    ],
)
def test_addresses_of_the_mesh_that_no_service_has_lead_nowhere(
    name: str, prefix: dict[str, Any]
) -> None:
    """Not to where they were going: nobody is there, and Envoy tries for long."""
    ranges = ("240.0.0.0/4", "fd00:fd00::/64")

    [chain] = as_dict(listeners.redirect_listener(name, 15001, vip_ranges=ranges))["filter_chains"]

    assert chain["filter_chain_match"] == {"prefix_ranges": [prefix]}
    assert chain["filters"][0]["typed_config"]["cluster"] == listeners.NOBODY


def test_in_the_single_listener_also_at_ports_that_services_have() -> None:
    chains = {
        listeners.listener_name(VIP, 6379): serialized(listeners.matching_chain(outbound(), VIP))
    }

    found = as_dict(
        listeners.redirect_listener(
            listeners.PASSTHROUGH_V4, 15001, chains=chains, single=True, vip_ranges=["240.0.0.0/4"]
        )
    )

    matches = [each["filter_chain_match"] for each in found["filter_chains"]]
    assert [each.get("destination_port") for each in matches] == [6379, None, 6379]


def test_clients_that_speak_http_1_0_are_served() -> None:
    """As nginx does to its upstreams by default."""
    chain = as_dict(listeners.filter_chain(outbound(protocol="http")))

    manager = chain["filters"][0]["typed_config"]
    assert manager["http_protocol_options"] == {"accept_http_10": True}


def test_an_inbound_stands_between_the_network_and_the_workload() -> None:
    document = {
        "name": "web-1",
        "networking": {
            "address": "10.0.0.1",
            "inbound": [
                {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}},
                {"port": 81, "servicePort": 81, "serviceAddress": "10.0.0.1"},
                {"port": 82, "state": "Ignored"},
            ],
        },
    }

    [inbound] = listeners.inbounds_of(document)

    assert (inbound.name, inbound.cluster) == ("inbound:10.0.0.1:80", "localhost:8080")
    assert as_dict(listeners.inbound_listener(inbound))["traffic_direction"] == "INBOUND"


def test_names_are_answered_by_envoys_filter_for_at_least_as_long_as_it_takes() -> None:
    domains = dnsfilter.virtual_domains(
        [("redis.mesh", (b"\xf1\0\0\7", bytes.fromhex("fd00fd00000000000000000000f10007")), 5)]
    )

    found = as_dict(dnsfilter.dns_listener("127.0.0.1", 15054, domains))

    [table] = found["listener_filters"][0]["typed_config"]["server_config"]["inline_dns_table"][
        "virtual_domains"
    ]
    assert table["name"] == "redis.mesh"
    assert table["answer_ttl"] == "30s"
    assert table["endpoint"]["address_list"]["address"][0] == "241.0.0.7"


def test_messages_are_the_same_octets_whenever_they_are_made() -> None:
    def everything() -> list[bytes]:
        service = outbound(endpoint("10.0.0.1", "east", 0), protocol="grpc")
        chain = listeners.filter_chain(service)
        return [
            serialized(clusters.cluster(service)),
            serialized(clusters.assignment(service)),
            serialized(listeners.outbound_listener(service, VIP, chain, bound=True, freebind=True)),
        ]

    assert everything() == everything()


def test_an_envoy_of_files_watches_the_directory() -> None:
    node = bootstrap.Node(mesh="default", dataplane="web-1", admin_port=0)

    found = bootstrap.for_files(node, Path("/etc/envoy"))

    source = found["dynamic_resources"]["lds_config"]["path_config_source"]
    assert source["path"] == "/etc/envoy/lds.json"
    assert source["watched_directory"] == {"path": "/etc/envoy"}
