"""What the kernel's tools are given, and how what they list is read."""

from __future__ import annotations

from typing import Any

import pytest

from zonecp.dataplane.redirect import rules
from zonecp.dataplane.redirect.rules import Found, Mode, Plan, Route

PLAN = Plan(
    mode=Mode.NAT,
    cidrs=("240.0.0.0/4", "fd00:fd00::/64"),
    dns_port=15053,
    dns_families=frozenset((4,)),
    envoy_port=15001,
    excluded=(5678, 991),
)
V4, V6 = Route(4, False, "240.0.0.0/4"), Route(6, False, "fd00:fd00::/64")


def test_one_transaction_replaces_both_tables_of_nft() -> None:
    text = rules.nft(PLAN)

    assert text.startswith(
        "add table ip zonedp\ndelete table ip zonedp\n"
        "add table ip6 zonedp\ndelete table ip6 zonedp\n"
    )
    ipv4, ipv6 = text.split("\ntable ")[1:]
    assert [line.strip() for line in ipv4.splitlines()[3:-2]] == [
        "meta skuid { 5678, 991 } counter return",
        "udp dport 53 counter redirect to :15053",
        "tcp dport 53 counter redirect to :15053",
        "ip daddr { 240.0.0.0/4 } meta l4proto tcp counter redirect to :15001",
    ]
    assert "dport 53" not in ipv6  # nobody answers there
    assert "ip6 daddr { fd00:fd00::/64 }" in ipv6


def test_iptables_gets_one_jump_however_many_are_there() -> None:
    saved = "*nat\n:ZONEDP_OUTPUT - [0:0]\n" + "-A OUTPUT -j ZONEDP_OUTPUT\n" * 3

    lines = rules.iptables(PLAN, 4, saved).splitlines()

    assert lines[:2] == ["*nat", ":ZONEDP_OUTPUT - [0:0]"]
    assert lines[2] == "-A ZONEDP_OUTPUT -m owner --uid-owner 5678 -j RETURN"
    assert lines[-5:] == [
        *["-D OUTPUT -j ZONEDP_OUTPUT"] * 3,
        "-I OUTPUT 1 -j ZONEDP_OUTPUT",
        "COMMIT",
    ]


def test_others_chains_are_not_removed() -> None:
    assert (
        rules.iptables_remove("*nat\n:DOCKER_OUTPUT - [0:0]\n-A OUTPUT -j DOCKER_OUTPUT\n") is None
    )


def test_anyip_needs_routes_and_no_rules() -> None:
    plan = Plan(
        mode=Mode.ANYIP,
        cidrs=("241.0.0.0/8", "242.0.0.0/8", "fd00:fd00::/64"),
        dns_port=None,
        dns_families=frozenset(),
        envoy_port=15001,
        excluded=(),
        families=frozenset((4,)),
    )

    assert rules.nft(plan) == rules.nft_remove()
    assert rules.routes(plan) == {Route(4, True, "241.0.0.0/8"), Route(4, True, "242.0.0.0/8")}
    assert " ".join(Route(4, True, "241.0.0.0/8").words) == "local 241.0.0.0/8 dev lo proto 153"


def test_a_route_names_its_source() -> None:
    assert " ".join(V4.words) == "240.0.0.0/4 dev lo src 127.0.0.1 proto 153"
    assert " ".join(V6.words) == "fd00:fd00::/64 dev lo src ::1 proto 153"


def test_routes_are_read_as_they_were_made() -> None:
    listed: list[dict[str, Any]] = [
        {"dst": "240.0.0.0/4", "dev": "lo", "prefsrc": "127.0.0.1", "flags": []},
        {"type": "local", "dst": "241.0.0.1", "dev": "lo", "table": "local"},
    ]

    assert rules.parse_routes(4, listed) == {V4, Route(4, True, "241.0.0.1/32")}


@pytest.mark.parametrize(
    "found,state",
    [
        (Found({4: (), 6: ()}, True, frozenset()), "absent"),
        (Found({4: ("a",), 6: ("b",)}, True, frozenset((V4, V6))), "nat"),
        (Found({4: ("a",), 6: ()}, True, frozenset((V4,))), "nat"),
        (Found({4: ("a",), 6: ()}, True, frozenset((V4, V6))), "incomplete"),
        (Found({4: ("a",), 6: ()}, False, frozenset((V4,))), "incomplete"),
        (Found({4: (), 6: ()}, True, frozenset((V4,))), "incomplete"),
        (Found({4: (), 6: ()}, True, frozenset((Route(4, True, "a"),))), "anyip"),
        (Found({4: ("a",), 6: ()}, True, frozenset((Route(4, True, "a"),))), "incomplete"),
    ],
)
def test_what_is_half_done_is_told_from_what_is_whole(found: Found, state: str) -> None:
    assert rules.state(found) == state
