"""Addresses of legacy names: their pool, who gets which, and what is kept."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.legacynames import service
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import Binding, Ledger, ipv4_text, parse_ipv4
from zonemesh.legacypool import (
    LEGACY,
    LEGACY_VIP,
    LegacyAllocation,
    check_legacy_pool,
    ranges_without,
    rebind,
)
from zonemesh.model import Change
from zonemesh.registry import Registry

POOLS = ("241.0.0.0/8", "242.0.0.0/8", "243.0.0.0/8")
DAY_MS = 24 * 3600 * 1000


def text_ranges(cidrs: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """(first, last) of each range."""
    return [
        (ipv4_text(first), ipv4_text(first + size - 1))
        for first, size in ranges_without(cidrs, others)
    ]


@pytest.mark.parametrize(
    "cidrs, others, left",
    [
        (
            ["240.0.0.0/4"],
            POOLS,
            [("240.0.0.0", "240.255.255.255"), ("244.0.0.0", "255.255.255.254")],
        ),
        (["240.0.0.0/4"], ["0.0.0.0/0"], []),
        (["10.0.0.0/28"], POOLS, [("10.0.0.0", "10.0.0.15")]),
        (["10.0.0.0/28"], ["10.0.0.4/30"], [("10.0.0.0", "10.0.0.3"), ("10.0.0.8", "10.0.0.15")]),
        (["10.0.1.0/24", "10.0.0.0/24"], [], [("10.0.0.0", "10.0.1.255")]),
        (["255.255.255.255/32"], [], []),
        ([], [], []),
    ],
)
def test_what_is_left_for_legacy_names(
    cidrs: list[str], others: list[str], left: list[tuple[str, str]]
) -> None:
    assert text_ranges(cidrs, others) == left


@pytest.mark.parametrize(
    "cidrs, others, faults",
    [
        (["240.0.0.0/4"], POOLS, []),
        (["240.0.0.0/4"], ["nonsense"], []),  # said by the other pool
        (
            ["x", "fd00::/64"],
            POOLS,
            ["'x' is not a CIDR", "fd00::/64 must be IPv4; IPv6 is derived from it"],
        ),
        (["241.1.0.0/16"], POOLS, ["241.1.0.0/16: nothing is left without the other pools"]),
        ([], [], ["no CIDR: nothing is left without the other pools"]),
    ],
)
def test_the_faults_of_a_pool(cidrs: list[str], others: list[str], faults: list[str]) -> None:
    assert check_legacy_pool(cidrs, others) == [f"dnsServer.CIDR: {fault}" for fault in faults]


class Pool:
    """The bindings of one pool, as global decides them entry by entry."""

    def __init__(self, *cidrs: str, quarantine_ms: int = DAY_MS) -> None:
        self.ranges = ranges_without(cidrs, ())
        self.quarantine_ms = quarantine_ms
        self.ledger = Ledger(LEGACY)
        self.registry = Registry(indexes=[self.ledger])
        self.wanted: set[str] = set()
        self.now_ms = 0
        self.errors: list[PoolExhaustedError] = []

    def set(self, *services: str, after_ms: int = 0) -> list[Change]:
        """Exactly these services exist from now on."""
        self.now_ms += after_ms
        wanted = set(map(service, services))
        touched = [*(wanted ^ self.wanted), *self.ledger.waiting[""]]
        self.wanted = wanted
        allocation = LegacyAllocation(
            self.ledger, self.ranges, log_time_ms=self.now_ms, quarantine_ms=self.quarantine_ms
        )
        changes, self.errors = rebind(
            touched,
            wants=wanted.__contains__,
            held=lambda key: self.registry.get(LEGACY_VIP, key),
            allocation=allocation,
            log_time_ms=self.now_ms,
        )
        for change in changes:
            self.registry.put(*change)
        return changes

    def binding(self, name: str) -> Binding | None:
        payload = self.registry.get(LEGACY_VIP, service(name))
        return None if payload is None else Binding.unpack(payload)

    def address(self, name: str) -> int | None:
        binding = self.binding(name)
        return binding.address if binding is not None and binding.live else None

    def live(self) -> dict[str, int]:
        found = {key: Binding.unpack(each) for key, each in self.registry.table(LEGACY_VIP).items()}
        return {
            key: binding.address
            for key, binding in found.items()
            if binding.live and binding.address is not None
        }


def test_the_address_of_a_name_is_the_same_everywhere_and_always() -> None:
    pool = Pool("240.0.0.0/8")

    pool.set("redis")

    # A golden value: that every process finds the same cannot be seen from inside one.
    assert pool.address("redis") == parse_ipv4("240.171.40.251")


@pytest.mark.parametrize("cidrs", [("10.0.0.0/28",), ("10.0.0.0/29", "10.9.0.0/29")])
def test_a_small_pool_is_used_to_its_last_address(cidrs: tuple[str, ...]) -> None:
    pool = Pool(*cidrs)
    names = [f"s{number}" for number in range(16)]
    for count in range(17):
        pool.set(*names[:count])
    every = {first + each for first, size in pool.ranges for each in range(size)}
    assert set(pool.live().values()) == every

    pool.set(*names, "late")

    assert [str(error) for error in pool.errors] == [
        f"pool Legacy: no address left for {service('late')} (16 of 16 in use, 0 at rest)"
    ]
    assert pool.binding("late") == Binding(None, None, None, 0)
    assert pool.set(*names, "late") == []  # it waits without a word more
    assert len(pool.errors) == 1
    pool.set(*names[1:], "late")
    assert pool.address("late") is None
    pool.set(*names[1:], "late", after_ms=DAY_MS)
    assert pool.address("late") is not None
    assert pool.binding("s0") is None  # its address is another's now


def test_who_waited_in_vain_is_forgotten() -> None:
    pool = Pool("10.0.0.0/32")
    pool.set("a")
    pool.set("a", "b")

    pool.set("a")

    assert pool.binding("b") is None


@pytest.mark.parametrize("first, second", [("b", "c"), ("c", "b")])
def test_the_longest_released_address_goes_first(first: str, second: str) -> None:
    pool = Pool("10.0.0.0/30")
    pool.set("a", "b", "c", "d")
    addresses = pool.address(first), pool.address(second)
    pool.set("a", second, "d", after_ms=1)
    pool.set("a", "d", after_ms=1)

    pool.set("a", "d", "e", after_ms=DAY_MS)
    pool.set("a", "d", "e", "f")

    assert (pool.address("e"), pool.address("f")) == addresses


def test_a_former_address_that_is_anothers_by_now_is_not_given_back() -> None:
    pool = Pool("10.0.0.0/30")
    pool.set("a")
    former = pool.address("a")
    allocation = LegacyAllocation(pool.ledger, pool.ranges, log_time_ms=0, quarantine_ms=DAY_MS)

    given = [allocation.choose(service(name), former)[0] for name in ("b", "a", "a")]

    assert given[1] == former
    assert len(set(given)) == 3, "given out twice"


def test_a_never_used_address_comes_before_a_rested_one() -> None:
    pool = Pool("10.0.0.0/31")
    pool.set("a")
    former = pool.address("a")
    pool.set()

    pool.set("b", after_ms=10 * DAY_MS)

    assert pool.address("b") not in (None, former)


def test_a_returning_name_gets_its_address_before_any_other() -> None:
    for newcomer in ("aaa", "zzz"):
        pool = Pool("10.0.0.0/32")
        pool.set("m")
        pool.set(after_ms=1)

        pool.set("m", newcomer, after_ms=10 * DAY_MS)

        assert pool.address("m") is not None
        assert pool.address(newcomer) is None


def test_an_address_outside_the_present_ranges_is_kept_and_not_given_out_again() -> None:
    pool = Pool("10.0.0.0/28")
    pool.set("a", "b")
    left, kept = pool.address("a"), pool.address("b")
    pool.ranges = ranges_without(["10.7.0.0/28"], ())

    pool.set("b", "c")
    pool.set("a", "b", "c")

    (first, size), *_ = pool.ranges
    assert pool.address("b") == kept
    assert pool.address("a") == left  # its own, for as long as it rests
    pool.set("b", "c")
    pool.set("a", "b", "c", after_ms=DAY_MS)
    for name in ("a", "c"):
        address = pool.address(name)
        assert address is not None
        assert first <= address < first + size


def test_no_range_is_no_address() -> None:
    pool = Pool()

    pool.set("a")

    assert "0 of 0 in use" in str(pool.errors[0])


NAMES = st.sets(st.sampled_from([f"s{number}" for number in range(12)]))


@given(st.lists(st.tuples(NAMES, st.sampled_from([0, 1, DAY_MS])), max_size=20))
def test_addresses_are_unique_stay_and_come_back(steps: list[tuple[set[str], int]]) -> None:
    pool = Pool("10.0.0.0/29")
    last: dict[str, tuple[int, int]] = {}

    for names, after_ms in steps:
        before = pool.live()
        pool.set(*names, after_ms=after_ms)

        live = pool.live()
        assert len(set(live.values())) == len(live)
        assert len(live) + len(pool.errors) == len(names)
        for key, address in live.items():
            assert before.get(key, address) == address, "an address moved"
            first, size = pool.ranges[0]
            assert first <= address < first + size
            for other, (its, until_ms) in last.items():
                if other != key and its == address:
                    assert pool.now_ms - until_ms >= DAY_MS, "an address did not rest"
        for key in before.keys() - live.keys():
            last[key] = before[key], pool.now_ms
        for key, (address, until_ms) in list(last.items()):
            if key in live:
                assert live[key] == address or pool.now_ms - until_ms >= DAY_MS
                del last[key]


@given(st.permutations([f"s{number}" for number in range(8)]))
def test_one_entry_gives_the_same_addresses_in_any_order(order: list[str]) -> None:
    one, other = Pool("10.0.0.0/29"), Pool("10.0.0.0/29")

    one.set(*order)
    other.set(*sorted(order))

    assert one.live() == other.live()
