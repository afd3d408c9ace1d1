"""Pools and their blocks, addresses as text, bindings and blocks as bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.errors import InputError, WireError
from zonemesh.ipam import (
    BLOCK_ADDRESSES_MAX,
    Binding,
    Block,
    Pool,
    check_pools,
    ipv4_text,
    ipv6_text,
    parse_ipv4,
)

SERVICE = "MeshService"


@pytest.mark.parametrize(
    "cidrs",
    [
        ("241.0.0.0/8",),
        ("10.0.0.0/24",),
        ("10.0.0.0/20", "10.1.0.0/21"),
        ("255.255.0.0/16",),
        ("255.255.255.0/24",),
        ("240.0.0.0/4",),
        ("192.0.2.1/32",),
    ],
)
def test_blocks_are_disjoint_and_cover_their_ranges(cidrs: tuple[str, ...]) -> None:
    pool = Pool(SERVICE, cidrs)

    blocks = sorted(pool.blocks())

    ends = [first + size for first, size in blocks]
    assert all(end <= first for end, (first, _) in zip(ends, blocks[1:], strict=False))
    assert max(size for _, size in blocks) == pool.block_size <= BLOCK_ADDRESSES_MAX
    broadcast = any(first + size == 1 << 32 for first, size in pool.ranges)
    assert sum(size for _, size in blocks) == sum(size for _, size in pool.ranges) - broadcast
    assert all(first + size <= 0xFFFFFFFF for first, size in blocks)


@given(st.sampled_from(["241.0.0.0/8", "10.0.0.0/19", "255.255.255.0/24"]), st.data())
def test_the_block_at_an_address_is_the_one_that_can_be_leased(
    cidr: str, data: st.DataObject
) -> None:
    pool = Pool(SERVICE, ("192.0.2.0/30", cidr))
    first, size = pool.ranges[1]
    address = data.draw(st.integers(first - 1, first + size))

    found = [
        block for block in pool.blocks() if block[0] <= address < block[0] + block[1]
    ]  # fmt: skip

    assert pool.block_at(address) == (found[0] if found else None)


def test_faults_of_pools_are_all_told() -> None:
    faults = check_pools(
        [
            Pool("a", ("10.0.0.0/8", "nonsense", "fd00::/64")),
            Pool("b", ("10.1.0.0/16",)),
            Pool("c", ("11.0.0.0/8",)),
        ]
    )

    assert [fault.partition(": ")[0] for fault in faults] == ["ipam a", "ipam a", "ipam b"]
    assert "overlaps 10.0.0.0/8 of a" in faults[2]


# Addresses


def test_ipv6_is_derived_from_ipv4() -> None:
    assert ipv6_text(parse_ipv4("241.0.0.7")) == "fd00:fd00::f100:7"
    assert ipv6_text(parse_ipv4("0.0.0.7")) == "fd00:fd00::7"
    assert ipv4_text(parse_ipv4("241.1.2.3")) == "241.1.2.3"


@pytest.mark.parametrize("text", ["", "241.0.0", "::1", "256.0.0.1", "web"])
def test_what_is_no_ipv4_address_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_ipv4(text)


# Codecs


@given(
    st.builds(Binding, *[st.none() | st.integers(0, 1 << 40)] * 3, birth=st.integers(0, 1 << 60)),
    st.builds(
        Block,
        st.integers(0, 1 << 32),
        st.integers(1, 4096),
        st.integers(0, 1 << 50),
        st.booleans(),
        st.integers(0, 1 << 50),
    ),
)
def test_bindings_and_blocks_are_read_as_they_were_packed(binding: Binding, block: Block) -> None:
    assert Binding.unpack(binding.pack()) == binding
    assert Block.unpack(block.pack()) == block


@pytest.mark.parametrize(
    "fields",
    [[], [1, 2, 3], [True, None, None, 1], ["1", None, None, 1], [1, 1.0, None, 1], {},
     [1, None, b"", 1], [1, None, None, None], [1, None, None, True], "1234", 7, None],
)  # fmt: skip
def test_a_malformed_binding_is_refused(fields: Any) -> None:
    with pytest.raises(WireError):
        Binding.unpack(msgpack.packb(fields))


def test_a_block_that_was_packed_without_the_time_of_its_retirement_is_read() -> None:
    assert Block.unpack(msgpack.packb([1, 2, 3, True])) == Block(1, 2, 3, retired=True)


@pytest.mark.parametrize(
    "fields",
    [[], [1, 2, 3], [True, 1, 1, False], ["1", 1, 1, False], [1, 2.5, 1, False], [1, 0, 1, False],
     [1, -1, 1, False], [1, 1 << 40, 1, False], [1, 1, float("inf"), False], [1, 1, 1, 1], 7,
     [1, 1, 1, True, None]],
)  # fmt: skip
def test_a_malformed_block_is_refused(fields: Any) -> None:
    with pytest.raises(WireError):
        Block.unpack(msgpack.packb(fields))


@given(st.binary(max_size=60))
def test_garbage_is_refused_as_a_binding_and_as_a_block(data: bytes) -> None:
    for codec in (Binding, Block):
        try:
            codec.unpack(data)
        except WireError:
            continue
