"""Giving addresses to what a plane owns, and taking them back, within one decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zonemesh.draft import Draft
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import Allocation, Binding, Block, Ledger, vip_kind
from zonemesh.settings import Settings


class Binder:
    """Binds out of one owner's blocks, into a draft.

    Args:
        draft: The decision's.
        ledgers: By pool, as of the last entry.
        owner: A zone, or "" for global: whose blocks these are.
        log_time_ms: Of the decision.
        settings: The pools, and how long a released address rests.
        chooses: False where it is not known yet what was bound before: whatever were chosen could
            be another's. What is known of a key itself stays, and everything else waits.
        short: Told (pool, why) when nothing was left for a key, and (pool, None) when there was.
    """

    def __init__(
        self,
        draft: Draft,
        ledgers: Mapping[str, Ledger],
        owner: str,
        *,
        log_time_ms: int,
        settings: Settings,
        short: Callable[[str, str | None], None],
        chooses: bool = True,
    ) -> None:
        self._draft = draft
        self._ledgers = ledgers
        self._owner = owner
        self._log_time_ms = log_time_ms
        self._settings = settings
        self._short = short
        self._chooses = chooses
        self._allocations: dict[str, Allocation] = {}

    def bind(self, kind: str, key: str, fresh: Callable[[], Binding]) -> bool:
        """Give an object its address: the one it had, else a new one; False: it waits for one.

        `fresh` makes the binding of a key that has none yet, without an address.
        """
        packed = self._draft.get(vip_kind(kind), key)
        binding = None if packed is None else Binding.unpack(packed)
        if binding is not None and (binding.live or binding.released_ms is None):
            return binding.live
        if binding is None:
            binding = fresh()
        address = self._choose(kind, key, binding.address)
        bound = binding._replace(address=address, released_ms=None)
        self._draft.set(vip_kind(kind), key, bound.pack())
        return address is not None

    def release(self, kind: str, key: str) -> None:
        """Let an object's address rest; one that waited for an address is forgotten."""
        packed = self._draft.get(vip_kind(kind), key)
        if packed is None:
            return
        binding = Binding.unpack(packed)
        if binding.address is None:
            self._draft.set(vip_kind(kind), key, None)
        elif binding.released_ms is None:
            # Its order is kept as well: registered again, it ranks as before.
            released = binding._replace(released_ms=self._log_time_ms)
            self._draft.set(vip_kind(kind), key, released.pack())

    def bind_waiting(self, kind: str, full: Callable[[], bool]) -> bool:
        """Bind those that wait, as far as there are addresses; True if the entry is full first."""
        ledger = self._ledgers[kind]
        waiting = ledger.waiting[self._owner]
        if not waiting:
            return False
        settings = self._settings
        free = ledger.free(
            settings.pool(kind), self._owner, self._log_time_ms, settings.quarantine_ms
        )
        for key in list(waiting)[: max(0, free)]:
            if full():
                return True
            packed = self._draft.get(vip_kind(kind), key)
            binding = None if packed is None else Binding.unpack(packed)
            if binding is None or binding.address is not None:
                continue
            address = self._choose(kind, key, None)
            if address is None:
                break
            self._draft.set(vip_kind(kind), key, binding._replace(address=address).pack())
        return False

    def _choose(self, kind: str, key: str, former: int | None) -> int | None:
        if not self._chooses:
            return former
        allocation = self._allocations.get(kind)
        if allocation is None:
            allocation = self._allocations[kind] = Allocation(
                self._settings.pool(kind),
                self._ledgers[kind],
                self._owner,
                log_time_ms=self._log_time_ms,
                quarantine_ms=self._settings.quarantine_ms,
            )
        try:
            address, evicted = allocation.choose(key, former)
        except PoolExhaustedError as error:
            self._short(kind, str(error))
            return None
        self._short(kind, None)
        if evicted is not None:
            self._draft.set(vip_kind(kind), evicted, None)
        return address


def binds_in(draft: Draft, kind: str, block: Block) -> bool:
    """Whether a decision gives out an address of a block, which the ledger does not know yet."""
    for key in draft.touched(vip_kind(kind)):
        packed = draft.get(vip_kind(kind), key)
        if packed is not None and Binding.unpack(packed).address in block:
            return True
    return False
