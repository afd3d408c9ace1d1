"""Names of addresses, and the ranges that they are in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane.message import wire_name
from zonecp.dataplane.reverse import reverse_address, reverse_domains
from zonemesh.errors import InputError


@given(st.ip_addresses())
def test_the_name_of_an_address_is_read_as_the_address(
    address: IPv4Address | IPv6Address,
) -> None:
    assert reverse_address(wire_name(address.reverse_pointer)) == address.packed


@pytest.mark.parametrize(
    "name",
    ["1.2.3.4.5.in-addr.arpa", "256.2.3.4.in-addr.arpa", "01.2.3.4.in-addr.arpa",
     "x.in-addr.arpa", "g.ip6.arpa", "10.ip6.arpa", "arpa", "in-addr.arpa.mesh"],
)  # fmt: skip
def test_other_names_are_no_address(name: str) -> None:
    assert reverse_address(wire_name(name)) is None


@pytest.mark.parametrize("name", ["in-addr.arpa", "241.in-addr.arpa", "d.f.ip6.arpa"])
def test_the_beginning_of_an_address_is_known_as_that(name: str) -> None:
    assert reverse_address(wire_name(name)) == b""


@pytest.mark.parametrize(
    "cidr,domains",
    [
        ("241.0.0.0/8", ["241.in-addr.arpa"]),
        ("127.241.0.0/16", ["241.127.in-addr.arpa"]),
        ("10.64.0.0/10", [f"{n}.10.in-addr.arpa" for n in range(64, 128)]),
        ("240.0.0.0/4", [f"{n}.in-addr.arpa" for n in range(240, 256)]),
        ("fd00:fd00::/64", ["0.0.0.0.0.0.0.0.0.0.d.f.0.0.d.f.ip6.arpa"]),
    ],
)
def test_a_range_has_the_domains_of_its_addresses(cidr: str, domains: list[str]) -> None:
    assert reverse_domains(cidr) == domains


@pytest.mark.parametrize("cidr", ["x", "241.0.0.1/8", "241.0.0.0/33"])
def test_what_is_no_range_is_refused(cidr: str) -> None:
    with pytest.raises(InputError):
        reverse_domains(cidr)
