"""Blocks granted to zones, and addresses chosen out of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW_MS, Chain
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import (
    BLOCK,
    Allocation,
    Binding,
    Block,
    Ledger,
    Pool,
    ipv4_text,
    stable_hash,
    vip_kind,
)
from zonemesh.leasing import grants
from zonemesh.model import Change, Key, zone_of

SERVICE = "MeshService"
VIP = vip_kind(SERVICE)
DAY_MS = 24 * 3600 * 1000
LARGE = Pool(SERVICE, ("241.0.0.0/8",))
SMALL = Pool(SERVICE, ("10.0.0.0/27",))
"""32 blocks of one address."""


def key_of(name: str, zone: str = "west") -> str:
    return Key("default", zone, "", name).packed


class Books:
    """A registry with a ledger of one pool."""

    def __init__(self, pool: Pool = LARGE) -> None:
        self.pool = pool
        self.chain = Chain()
        self.ledger = Ledger(SERVICE)
        self.chain.registry.add_index(self.ledger)

    def grant(self, zone: str = "west", **options: Any) -> list[tuple[str, Block | None]]:
        found = grants(
            self.pool,
            self.ledger,
            zone,
            now_ms=NOW_MS,
            log_time_ms=self.chain.registry.log_time_ms,
            quarantine_ms=DAY_MS,
            **options,
        )
        self.chain.commit(
            *(Change(BLOCK, key, None if block is None else block.pack()) for key, block in found)
        )
        return found

    def bind(self, name: str, zone: str = "west", *, address: int | None = None) -> int:
        """As a zone does: an address is chosen, and who rested there is forgotten."""
        key = key_of(name, zone)
        packed = self.chain.registry.get(VIP, key)
        former = None if packed is None else Binding.unpack(packed).address
        evicted = None
        if address is None:
            address, evicted = self.allocation(zone).choose(key, former)
        changes = [] if evicted is None else [Change(VIP, evicted, None)]
        self.chain.commit(*changes, Change(VIP, key, Binding(address, None, None, 1).pack()))
        return address

    def allocation(self, zone: str = "west") -> Allocation:
        now_ms = self.chain.registry.log_time_ms
        return Allocation(self.pool, self.ledger, zone, log_time_ms=now_ms, quarantine_ms=DAY_MS)

    def release(self, name: str, zone: str = "west") -> None:
        packed = self.chain.registry.get(VIP, key_of(name, zone))
        assert packed is not None
        now_ms = self.chain.registry.log_time_ms
        released = Binding.unpack(packed)._replace(released_ms=now_ms)
        self.chain.commit(Change(VIP, key_of(name, zone), released.pack()))

    def retire(self, zone: str) -> None:
        """As global does with a deleted zone."""
        registry = self.chain.registry
        gone = [Change(VIP, key, None) for key in registry.table(VIP) if zone_of(key) == zone]
        blocks = [
            Change(
                BLOCK,
                key,
                Block.unpack(payload)
                ._replace(retired=True, retired_ms=registry.log_time_ms)
                .pack(),
            )
            for key, payload in registry.table(BLOCK).items()
            if zone_of(key) == zone
        ]
        self.chain.commit(*gone, *blocks)


# Placement: these values are the protocol's. A zone that lost everything must come to them again.


def test_hashes_are_the_same_in_every_process_and_build() -> None:
    assert stable_hash(SERVICE, "default/west//redis") == 0x4B87915592A2CDDC
    assert stable_hash(SERVICE, "west/0") == 0xDE11767CEC3CFF77
    assert stable_hash("ab", "c") != stable_hash("a", "bc")


def test_a_new_zone_is_granted_two_blocks_at_their_hashed_places() -> None:
    granted = Books().grant("west")

    assert [(key, block and ipv4_text(block.first)) for key, block in granted] == [
        ("/west/MeshService/0", "241.247.112.0"),
        ("/west/MeshService/1", "241.241.144.0"),
    ]


def test_a_new_key_is_placed_by_its_hash() -> None:
    books = Books()
    books.grant("west")

    found = [ipv4_text(books.bind(name)) for name in ("redis", "web", "api")]

    assert found == ["241.247.118.238", "241.247.123.194", "241.247.122.31"]


# Grants


def test_blocks_of_two_zones_never_meet() -> None:
    books = Books(SMALL)

    for zone in ("west", "east") * 6:
        for key, block in books.grant(zone):
            assert block is not None
            books.bind(key.replace("/", "-"), zone, address=block.first)

    west, east = ({block.first for block in books.ledger.blocks(zone)} for zone in ("west", "east"))
    assert not west & east
    assert len(west | east) == len(books.ledger.leased()) == 24


def test_what_is_granted_in_the_same_entry_is_not_granted_again() -> None:
    books = Books(SMALL)
    pool = SMALL.blocks()

    granted = books.grant("west", drafted=[first for first, _ in pool[:-2]])

    assert {block.first for _, block in granted if block} == {pool[-1][0], pool[-2][0]}


def test_a_grant_that_was_lost_is_made_again() -> None:
    before = Books().grant("west")

    assert Books().grant("west") == before


def test_a_zone_in_stock_is_granted_nothing() -> None:
    books = Books()
    books.grant("west")

    assert books.grant("west") == []


def test_a_zone_is_kept_at_two_free_blocks() -> None:
    books = Books()
    books.grant("west")
    books.bind("redis")

    assert len(books.grant("west")) == 1
    assert books.grant("west") == []


def test_a_zone_is_kept_at_a_quarter_of_what_it_has_bound() -> None:
    books = Books(Pool(SERVICE, ("10.0.0.0/24",)))
    for number in range(100):
        books.grant("west")
        books.bind(f"service-{number}")

    books.grant("west")

    assert books.ledger.free(books.pool, "west", 0, DAY_MS) == 25


def test_who_waits_counts_against_what_is_free() -> None:
    books = Books()
    books.grant("west")
    waiting = Binding(None, None, None, 1).pack()
    books.chain.commit(*(Change(VIP, key_of(f"s{n}"), waiting) for n in range(5_000)))

    assert len(books.grant("west")) == 2


def test_what_rests_is_not_free_and_what_has_rested_is() -> None:
    books = Books()
    books.grant("west")
    capacity = books.ledger.capacity(books.pool, "west")
    books.bind("redis")
    books.release("redis")

    assert books.ledger.free(books.pool, "west", DAY_MS - 1, DAY_MS) == capacity - 1
    assert books.ledger.free(books.pool, "west", DAY_MS, DAY_MS) == capacity


def test_an_empty_pool_is_told_by_name_and_usage() -> None:
    books = Books(SMALL)
    every = [block[0] for block in SMALL.blocks()]

    with pytest.raises(PoolExhaustedError, match=r"MeshService \(10.0.0.0/27\): all 32 blocks"):
        books.grant("west", drafted=every)


def test_the_last_blocks_are_granted_without_a_complaint() -> None:
    books = Books(SMALL)
    every = [block[0] for block in SMALL.blocks()]

    assert len(books.grant("west", drafted=every[1:])) == 1
    assert books.grant("west", drafted=every[1:]) == []


def test_blocks_of_a_deleted_zone_are_leased_again_last() -> None:
    books = Books(SMALL)
    books.grant("west")
    retired = {block.first for block in books.ledger.blocks("west")}
    books.retire("west")
    books.chain.commit(after_ms=DAY_MS)

    given: list[int] = []
    while len(given) < 32:
        fresh = [block.first for _, block in books.grant("east") if block is not None]
        for address in fresh:
            books.bind(f"s{address}", "east", address=address)
        given += fresh

    assert len(given) == 32
    assert set(given[-2:]) == retired
    assert books.ledger.blocks("west") == []
    assert not [key for key in books.chain.registry.table(BLOCK) if zone_of(key) == "west"]


def test_a_block_that_is_still_used_is_not_leased_again() -> None:
    books = Books(SMALL)
    (_, used), *_ = books.grant("west")
    assert used is not None
    books.retire("west")
    books.chain.commit(after_ms=DAY_MS)
    books.bind("redis", "west", address=used.first)
    every = [first for first, _ in SMALL.blocks() if first not in books.ledger.leased()]

    granted = books.grant("east", drafted=every)

    assert used.first not in {block.first for _, block in granted if block is not None}


def test_a_block_may_change_its_record_before_the_former_one_goes() -> None:
    books = Books(SMALL)
    ((key, block), *_) = books.grant("west")
    assert block is not None

    books.chain.commit(Change(BLOCK, key.replace("west", "east"), block.pack()))
    books.chain.commit(Change(BLOCK, key, None))

    assert books.ledger.owner(block.first) == "east"
    assert books.ledger.blocks("east") == [block]
    assert block not in books.ledger.blocks("west")


def test_a_deleted_zone_that_is_back_overwrites_no_record_of_a_retired_block() -> None:
    books = Books()
    before = {key for key, _ in books.grant("west")}
    books.retire("west")

    after = {key for key, _ in books.grant("west")}

    assert len(after) == 2
    assert not before & after
    assert len(books.ledger.leased()) == 4


# Choice


def test_a_key_gets_its_former_address_back_at_once() -> None:
    books = Books()
    books.grant("west")
    address = books.bind("redis")
    books.release("redis")

    assert books.bind("redis") == address


def test_a_former_address_that_is_anothers_by_now_is_not_given_back() -> None:
    books = Books()
    books.grant("west")
    address = books.bind("other")

    assert books.allocation().choose(key_of("redis"), address)[0] != address


def test_keys_chosen_for_in_one_entry_get_distinct_addresses() -> None:
    books = Books(SMALL)
    books.grant("west")
    books.grant("west")
    allocation = books.allocation()

    found = {allocation.choose(key_of(f"s{n}"), None)[0] for n in range(2)}

    assert len(found) == 2
    with pytest.raises(PoolExhaustedError, match="zone west's blocks for default/west//s9"):
        allocation.choose(key_of("s9"), None)


def test_of_released_addresses_the_one_released_longest_ago_is_taken_after_quarantine() -> None:
    books = Books(SMALL)
    books.grant("west")
    given = [books.bind(f"s{n}") for n in range(2)]
    for name in ("s1", "s0"):
        books.release(name)
        books.chain.commit(after_ms=1000)
    books.chain.commit(after_ms=DAY_MS - 2000)

    with pytest.raises(PoolExhaustedError, match="0 of 2 in use, 2 at rest"):
        Books.bind(_reloaded(books, after_ms=-1), "new")
    assert books.bind("new") == given[1]
    assert books.ledger.holder(given[1]) == key_of("new")
    assert books.chain.registry.get(VIP, key_of("s1")) is None


def test_a_ledger_from_a_snapshot_finds_the_longest_released_too() -> None:
    books = Books(SMALL)
    books.grant("west")
    given = [books.bind(f"s{n}") for n in range(2)]
    for name in ("s1", "s0"):
        books.release(name)
        books.chain.commit(after_ms=DAY_MS // 2)

    later = _reloaded(books)

    assert later.bind("new") == given[1]


def _reloaded(books: Books, *, after_ms: int = 0) -> Books:
    """The same records, heard of in the order of their keys."""
    fresh = Books(books.pool)
    rows = sorted(books.chain.registry.freeze().rows())
    now_ms = books.chain.registry.log_time_ms
    fresh.chain.commit(*(Change(*row) for row in rows), after_ms=now_ms + after_ms)
    return fresh
