"""Blocks that zones say they hold, against those that global's log says it has leased.

A claim to what nobody holds is granted. Of two claims the earlier grant wins, then the zone's name,
in whatever order they come; but a holder loses a block only while the log is being recovered. Who
loses one is told by verdicts: one for the block, and one for each address that was bound in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgpack

from zonemesh.draft import Draft
from zonemesh.ipam import BLOCK, Binding, Block, Ledger, vip_kind
from zonemesh.model import Key, zone_of
from zonemesh.recovery import Claim, Claims, Recovery
from zonemesh.registry import Registry
from zonemesh.settings import Settings
from zonemesh.travel import VERDICT, block_verdict


class Claiming:
    """The claims of one decision."""

    def __init__(
        self,
        draft: Draft,
        registry: Registry,
        ledgers: Mapping[str, Ledger],
        settings: Settings,
        *,
        leased: dict[int, str],
    ) -> None:
        """`leased`: zones by the first address of what the decision has given out so far."""
        self._draft = draft
        self._registry = registry
        self._ledgers = ledgers
        self._settings = settings
        self._leased = leased
        self._taken: dict[int, tuple[str, Block]] = {}
        """By this decision: the ledgers learn of it when it is applied."""

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
        pool = self._settings.pool(claim.pool)
        if pool.block_at(claim.first) != (claim.first, claim.size):
            return False
        held = self._taken.get(claim.first) or self._ledgers[claim.pool].record_of(claim.first)
        key = Key("", zone, claim.pool, f"claim-{claim.first}").packed
        block = Block(claim.first, claim.size, claim.granted_ms)
        if held is not None and zone_of(held[0]) == zone:
            if held[1].retired or held[1].granted_ms != block.granted_ms:
                self._lease(held[0], block)
            return True
        if held is None:
            self._lease(key, block)
            return True
        earlier = (block.granted_ms, zone) < (held[1].granted_ms, zone_of(held[0]))
        if not earlier or Recovery.of(self._draft) is None:
            return False
        self._draft.set(BLOCK, held[0], None)
        self._lease(key, block)
        self._unbind(zone_of(held[0]), claim.pool, block)
        self._rebind(zone, claim.pool, block)
        return True

    def _lease(self, key: str, block: Block) -> None:
        self._taken[block.first] = key, block
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
