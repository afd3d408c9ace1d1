"""Blocks that zones say they hold, against those that global's log says it has leased.

A claim to what nobody holds is granted. Of two claims the earlier grant wins, then the zone's name,
in whatever order they come; but a holder loses a block only while the log is being recovered. Who
loses one is told by verdicts: one for the block, and one for each address that was bound in it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping

import msgpack

from zonemesh.draft import Draft
from zonemesh.ipam import BLOCK, Binding, Block, Ledger, Pool, vip_kind
from zonemesh.leasing import foreign_to
from zonemesh.model import Key, zone_of
from zonemesh.recovery import Claim, Claims, Recovery
from zonemesh.registry import Registry
from zonemesh.settings import Settings
from zonemesh.travel import VERDICT, block_verdict

_ANYWHERE = "0.0.0.0/0"


class Claiming:
    """The claims of one decision."""

    def __init__(
        self,
        draft: Draft,
        registry: Registry,
        ledgers: Mapping[str, Ledger],
        settings: Settings,
        *,
        legacy: Ledger,
        others: Callable[[str], Iterable[Ledger]],
        leased: dict[int, str],
        now_ms: int,
    ) -> None:
        """`others`: the ledgers of all pools but one; `leased`: zones by the first address of what
        the decision has given out so far; `now_ms`: the wall time of what is granted by it.
        """
        self._draft = draft
        self._registry = registry
        self._ledgers = ledgers
        self._settings = settings
        self._legacy = legacy
        self._now_ms = now_ms
        self._others = others
        self._leased = leased
        self._taken: dict[tuple[str, int], tuple[str, Block]] = {}
        """By this decision: the ledgers learn of it when it is applied."""
        self._spans: list[tuple[int, int]] = []
        """(first, beyond) of those, of all pools, in order."""
        self._foreign: dict[str, Callable[[int, int], bool]] = {}
        self.former = False
        """Whether some of them are in ranges that the pool gives out no more."""

    def take(self, zone: str, claims: Claims) -> int:
        """Decide about what a zone claims; answers how many blocks it does not get."""
        refused = {
            block_verdict(zone, claim.pool, claim.first): msgpack.packb((claim.pool, claim.first))
            for claim in claims.blocks
            if claim.pool in self._ledgers and not self._given(zone, claim)
        }
        for key in self._verdicts(zone):
            if Key.parse(key).mesh == "" and key not in refused:
                self._draft.set(VERDICT, key, None)  # it claims that one no more
        for key, payload in refused.items():
            self._draft.set(VERDICT, key, payload)
        return len(refused)

    def _given(self, zone: str, claim: Claim) -> bool:
        held = self._taken.get((claim.pool, claim.first)) or self._ledgers[claim.pool].record_of(
            claim.first
        )
        block = Block(claim.first, claim.size, claim.granted_ms)
        if held is None:
            places = self._places(claim.pool, claim.first)
            return (claim.first, claim.size) in places and self.grant(zone, claim.pool, block)
        if held[1].size != claim.size:
            return False
        if zone_of(held[0]) == zone:
            if held[1].retired or held[1].granted_ms != block.granted_ms:
                self._lease(held[0], claim.pool, block)
            return True
        earlier = (block.granted_ms, zone) < (held[1].granted_ms, zone_of(held[0]))
        if not earlier or Recovery.waiting(self._draft) is None:
            return False
        self._draft.set(BLOCK, held[0], None)
        self._lease(_claim_key(zone, claim.pool, block), claim.pool, block)
        self._unbind(zone_of(held[0]), claim.pool, block)
        self._rebind(zone, claim.pool, block)
        return True

    def place_at(self, pool: str, address: int) -> tuple[int, int] | None:
        """(first, size) of the block that an address can only be of."""
        return next((each for each in self._places(pool, address) if each is not None), None)

    def grant(self, zone: str, pool: str, block: Block) -> bool:
        """Lease what no record says anything of, unless it has to do with what others hold."""
        first, size = block.first, block.size
        if pool not in self._foreign:
            others = tuple(self._others(pool))
            self._foreign[pool] = foreign_to(Pool(pool, (_ANYWHERE,)), others)
        if self._ledgers[pool].overlaps(first, size) or self._foreign[pool](first, size):
            return False
        if self._overlaps(first, size):
            return False
        self._lease(_claim_key(zone, pool, block), pool, block)
        self.former = self.former or not self._settings.pool(pool).covers(first, size)
        return True

    def learn(self, settings: Settings) -> None:
        """Judge by these from now on."""
        self._settings = settings

    def free_for_global(self, pool: str, address: int) -> bool:
        """Whether no zone's block has an address; a block that it can only be of is global's then,
        as it was when the address was given out.
        """
        if pool not in self._ledgers:  # legacy names' addresses are of no block
            return all(each.owner(address) is None for each in self._ledgers.values())
        held = self._ledgers[pool].block_of(address)
        if held is not None:
            return zone_of(held[0]) == ""
        place = self.place_at(pool, address)
        if place is None:
            return False
        given = self._taken.get((pool, place[0]))
        if given is not None:
            return zone_of(given[0]) == ""
        return self.grant("", pool, Block(*place, self._now_ms))

    def vacate(self, pool: str, address: int, key: str) -> None:
        """Have whoever else is bound to an address look for another one."""
        holder = self._holders(pool).holder(address)
        packed = None if holder is None else self._draft.get(vip_kind(pool), holder)
        if holder is None or holder == key or packed is None:
            return
        binding = Binding.unpack(packed)
        if binding.address == address:
            waits = binding._replace(address=None).pack() if binding.live else None
            self._draft.set(vip_kind(pool), holder, waits)

    def _holders(self, pool: str) -> Ledger:
        return self._ledgers.get(pool, self._legacy)

    def _places(self, pool: str, address: int) -> list[tuple[int, int] | None]:
        """The blocks that it lies in now, and in ranges that were the pool's."""
        pools = (self._settings.pool(pool), self._settings.former_pool(pool))
        return [each.block_at(address) for each in pools]

    def _overlaps(self, first: int, size: int) -> bool:
        """Whether this decision has given out something of it already."""
        at = bisect_left(self._spans, (first, 0))
        before, after = self._spans[max(0, at - 1) : at], self._spans[at : at + 1]
        return any(end > first for _, end in before) or any(
            start < first + size for start, _ in after
        )

    def _lease(self, key: str, pool: str, block: Block) -> None:
        self._taken[pool, block.first] = key, block
        insort(self._spans, (block.first, block.first + block.size))
        self._leased[block.first] = zone_of(key)
        self._draft.set(BLOCK, key, block.pack())

    def _unbind(self, zone: str, pool: str, block: Block) -> None:
        """Take the addresses of a block from the zone that has lost it."""
        ledger = self._ledgers[pool]
        for address in range(block.first, block.first + block.size):
            key = ledger.holder(address)
            if key is None or zone_of(key) != zone:
                continue
            packed = self._draft.get(vip_kind(pool), key)
            binding = None if packed is None else Binding.unpack(packed)
            if binding is not None and binding.address == address:
                self._draft.set(VERDICT, key, msgpack.packb((pool, address)))
                self._draft.set(vip_kind(pool), key, binding._replace(address=None).pack())

    def _rebind(self, zone: str, pool: str, block: Block) -> None:
        """Give the winner back what it was refused before it was known to be the winner."""
        for key in self._verdicts(zone):
            payload = self._draft.get(VERDICT, key)
            packed = self._draft.get(vip_kind(pool), key)
            if payload is None or packed is None:
                continue
            of, address = msgpack.unpackb(payload)
            if of == pool and address in block:
                self._draft.set(VERDICT, key, None)
                bound = Binding.unpack(packed)._replace(address=address)
                self._draft.set(vip_kind(pool), key, bound.pack())

    def _verdicts(self, zone: str) -> list[str]:
        every = {*self._registry.table(VERDICT), *self._draft.touched(VERDICT)}
        return sorted(key for key in every if zone_of(key) == zone)


def _claim_key(zone: str, pool: str, block: Block) -> str:
    return Key("", zone, pool, f"claim-{block.first}").packed
