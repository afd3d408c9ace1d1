"""Any order of wanting, releasing, granting and waiting keeps addresses distinct, still and rested.

I1: no two keys share an address. I2: a key's address never changes, and is its own again until
somebody else had a right to it. I3: nobody gets an address before its rest is over.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.builders import NOW_MS, Chain
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import BLOCK, Allocation, Binding, Block, Ledger, Pool, vip_kind
from zonemesh.leasing import grants
from zonemesh.model import Change, Key, zone_of

SERVICE = "MeshService"
VIP = vip_kind(SERVICE)
QUARANTINE_MS = 1_000
ZONES = ("west", "east")
KEYS = [Key("default", zone, "", f"s{n}").packed for zone in ZONES for n in range(12)]
POOLS = [
    ["10.0.0.0/28"],
    ["10.0.0.0/26"],
    ["10.0.0.0/21"],
    ["10.0.0.0/22", "10.0.6.0/23"],
    ["10.0.0.8/29", "10.1.0.0/28"],
]
SOME_KEYS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6, unique=True)


class Addresses(RuleBasedStateMachine):
    @initialize(cidr=st.sampled_from(["10.0.0.0/28", "10.0.0.0/26", "10.0.0.0/21"]))
    def begin(self, cidr: str) -> None:
        """16 or 64 blocks of one address, or 1,024 of two."""
        self.pool = Pool(SERVICE, (cidr,))
        self.chain = Chain()
        self.registry = self.chain.registry
        self.ledger = Ledger(SERVICE)
        self.registry.add_index(self.ledger)
        self.live: dict[str, int] = {}
        self.left: dict[int, tuple[str, int]] = {}
        """Who gave an address up last, and when."""

    @rule(keys=SOME_KEYS, known=st.booleans())
    def want(self, keys: Sequence[str], known: bool) -> None:
        """Keys of both zones, in one entry each, as their control planes choose for them."""
        for zone in ZONES:
            allocation = Allocation(
                self.pool,
                self.ledger,
                zone,
                log_time_ms=self.registry.log_time_ms,
                quarantine_ms=QUARANTINE_MS,
            )
            changes: dict[str, bytes | None] = {}
            for key in keys:
                if zone_of(key) == zone and key not in self.live:
                    self._bind(key, allocation, changes)
            ordered = sorted(changes.items(), key=lambda each: (each[1] is None) == known)
            self.chain.commit(*(Change(VIP, *each) for each in ordered))

    def _bind(self, key: str, allocation: Allocation, changes: dict[str, bytes | None]) -> None:
        held = changes[key] if key in changes else self.registry.get(VIP, key)
        former = None if held is None else Binding.unpack(held).address
        try:
            address, evicted = allocation.choose(key, former)
        except PoolExhaustedError:
            assert former is None or not (self.pool.covers(former) or self._rests(former)), (
                "a key that rests has an address of its own"
            )
            changes[key] = Binding(None, None, None, 1).pack()
            return
        if former is not None and (self.pool.covers(former) or self._rests(former)):
            assert address == former, "a key that rests gets its own address back"
        if evicted is not None:
            changes[evicted] = None
        changes[key] = Binding(address, None, None, 1).pack()
        self._check_right(key, address)
        self.live[key] = address

    def _check_right(self, key: str, address: int) -> None:
        assert address not in self.live.values(), "an address has two owners"
        zone = zone_of(key)
        assert any(address in block for block in self.ledger.blocks(zone))
        new = self.left.get(address, ("", 0))[0] != key
        is_open = any(address in block for block in self.ledger.open_blocks(self.pool, zone))
        assert is_open or not new, "a removed range is given out again"
        owner, since_ms = self.left.pop(address, (key, 0))
        rested_ms = self.registry.log_time_ms - since_ms
        assert owner == key or rested_ms >= QUARANTINE_MS, "an address changed hands too early"

    def _rests(self, address: int) -> bool:
        return self.registry.log_time_ms - self.left[address][1] < QUARANTINE_MS

    @rule(cidrs=st.sampled_from(POOLS))
    def change_the_pool(self, cidrs: Sequence[str]) -> None:
        """Ranges come, go and are cut otherwise; what is bound stays."""
        self.pool = Pool(SERVICE, tuple(cidrs))

    @rule(keys=SOME_KEYS)
    def release(self, keys: Sequence[str]) -> None:
        changes = []
        now_ms = self.registry.log_time_ms
        for key in keys:
            packed = self.registry.get(VIP, key)
            if packed is None:
                continue
            binding = Binding.unpack(packed)
            if binding.address is None:
                changes.append(Change(VIP, key, None))
            elif binding.released_ms is None:
                changes.append(Change(VIP, key, binding._replace(released_ms=now_ms).pack()))
                self.left[self.live.pop(key)] = key, now_ms
        self.chain.commit(*changes)

    @rule(zones=st.permutations(ZONES))
    def grant(self, zones: Sequence[str]) -> None:
        """Both zones in one entry."""
        drafted: list[int] = []
        changes = []
        for zone in zones:
            try:
                found = grants(
                    self.pool,
                    self.ledger,
                    zone,
                    now_ms=NOW_MS,
                    log_time_ms=self.registry.log_time_ms,
                    quarantine_ms=QUARANTINE_MS,
                    drafted=drafted,
                )
            except PoolExhaustedError:
                continue
            for key, block in found:
                assert block is not None
                assert block.first not in drafted
                assert block.first not in self.ledger.leased()
                drafted.append(block.first)
                changes.append(Change(BLOCK, key, block.pack()))
        self.chain.commit(*changes)

    @rule(ms=st.sampled_from([1, QUARANTINE_MS - 1, QUARANTINE_MS]))
    def time_passes(self, ms: int) -> None:
        self.chain.commit(after_ms=ms)

    @invariant()
    def addresses_are_distinct_and_still(self) -> None:
        table = self.registry.table(VIP)
        bindings = {key: Binding.unpack(payload) for key, payload in table.items()}
        held = [each.address for each in bindings.values() if each.address is not None]
        assert len(set(held)) == len(held)
        assert {key: each.address for key, each in bindings.items() if each.live} == self.live

    @invariant()
    def the_ledger_counts_as_if_from_scratch(self) -> None:
        fresh = Ledger(SERVICE)
        for kind, key, payload in self.registry.freeze().rows():
            fresh.changed(kind, key, None, payload)
        assert fresh.leased() == self.ledger.leased()
        for zone in ZONES:
            assert fresh.live(zone) == self.ledger.live(zone)
            assert fresh.resting(zone) == self.ledger.resting(zone)
            assert fresh.capacity(self.pool, zone) == self.ledger.capacity(self.pool, zone)
            assert set(fresh.waiting[zone]) == set(self.ledger.waiting[zone])
            for block in self.ledger.blocks(zone):
                assert fresh.filled(block) == self.ledger.filled(block)
                assert 0 <= self.ledger.filled(block) <= block.size
                assert [fresh.holder(block.first)] == [self.ledger.holder(block.first)]
        assert self._blocks_are_disjoint()

    def _blocks_are_disjoint(self) -> bool:
        blocks = sorted(
            Block.unpack(payload)[:2] for payload in self.registry.table(BLOCK).values()
        )
        ends = [first + size for first, size in blocks]
        return all(end <= first for end, (first, _) in zip(ends, blocks[1:], strict=False))


@pytest.mark.timeout(60)
def test_any_order_of_wanting_releasing_and_granting_keeps_the_invariants() -> None:
    examples = max(60, settings.default.max_examples // 2) if settings.default else 60
    run_state_machine_as_test(
        Addresses, settings=settings(max_examples=examples, stateful_step_count=40)
    )
