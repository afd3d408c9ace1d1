"""Which addresses and blocks a zone has: bound, handed back and given up within one decision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgpack

from zonecp.sizes import ENTRY_BYTES, ENTRY_BYTES_MAX
from zonecp.state import ZoneState
from zonemesh.binding import Binder, binds_in
from zonemesh.deciding import Decision, Now
from zonemesh.draft import Draft
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import BLOCK, Binding, Block, Ledger, Pool, vip_kind
from zonemesh.leasing import emptied, forgettable, grants
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.model import Key
from zonemesh.settings import Settings

BIRTH = "birth"
"""Counter of the bindings made here."""


class Addresses:
    """One decision's view of the zone's blocks and of what is bound in them."""

    def __init__(
        self, draft: Draft, state: ZoneState, decision: Decision, now: Now, settings: Settings
    ) -> None:
        self._draft = draft
        self._state = state
        self._zone = state.zone
        self._decision = decision
        self._now = now
        self._settings = settings
        self._short = partial(_short, state.shortages)
        self._binder = Binder(
            draft,
            state.ledgers,
            state.zone,
            log_time_ms=now.log_time_ms,
            settings=settings,
            short=self._short,
            chooses=state.adopted,
        )

    def bind(self, kind: str, key: str) -> None:
        bound = self._binder.bind(
            kind, key, lambda: Binding(None, None, None, self._draft.draw(BIRTH))
        )
        # A zone without a global grants itself what is lacking, in the next entry.
        self._decision.more = self._decision.more or not (bound or self._state.federated)

    def release(self, kind: str, key: str) -> None:
        self._binder.release(kind, key)

    def bind_waiting(self, *, retry: bool) -> None:
        """`retry`: look for blocks even if nothing waits for one."""
        if self._state.adopted:
            for kind, ledger in self._state.ledgers.items():
                self._bind_waiting(kind, ledger, retry=retry)

    def _bind_waiting(self, kind: str, ledger: Ledger, *, retry: bool) -> None:
        state = self._state
        if not state.federated and (ledger.waiting[self._zone] or retry):
            self._lease_own(kind, ledger)
        full = self._binder.bind_waiting(kind, lambda: self._draft.bytes >= ENTRY_BYTES_MAX)
        self._decision.more = self._decision.more or full

    def bind_legacy(self, *, full: Callable[[], bool], retry: bool) -> None:
        """Without a global, legacy names too are this zone's to give addresses to."""
        state = self._state
        if state.legacy is None:
            return
        more = state.legacy.decide(
            self._draft,
            self._settings,
            self._now,
            full=full,
            retry=retry,
            short=self._short,
        )
        self._decision.more = self._decision.more or more

    def forget_rested(self) -> None:
        owned: list[tuple[Ledger, str, Pool | None]] = [
            (ledger, self._zone, self._settings.pool(name))
            for name, ledger in self._state.ledgers.items()
        ]
        if self._state.legacy is not None:
            owned.append((self._state.legacy.ledger, "", None))
        more = self._state.forgetting.forget(
            self._draft,
            owned,
            log_time_ms=self._now.log_time_ms,
            quarantine_ms=self._settings.quarantine_ms,
            full=lambda: self._draft.bytes >= ENTRY_BYTES,
        )
        self._decision.more = self._decision.more or more

    def hand_back(self) -> None:
        """Give up blocks of removed ranges that are empty. Global, if there is one, is told behind
        all that was published of them, and lets them rest once more.
        """
        if not self._state.knows_pools:
            return
        for name, ledger in self._state.ledgers.items():
            pool = self._settings.pool(name)
            for _, block in emptied(pool, ledger, self._zone):
                if not binds_in(self._draft, name, block):
                    self._retire(name, block)
            if not self._state.federated:
                rested_ms = self._now.log_time_ms - self._settings.quarantine_ms
                for key in forgettable(pool, ledger, rested_ms):
                    self._draft.set(BLOCK, key, None)

    def _retire(self, pool: str, block: Block) -> None:
        """In all records of it: a zone that has joined may have two."""
        for key, packed in self._state.registry.table(BLOCK).items():
            there = Block.unpack(packed)
            if there.first == block.first and Key.parse(key).namespace == pool:
                retired = there._replace(retired=True, retired_ms=self._now.log_time_ms)
                self._draft.set(BLOCK, key, retired.pack())

    def _lease_own(self, kind: str, ledger: Ledger) -> None:
        """A zone without a global leases itself blocks by global's rule."""
        try:
            granted = grants(
                self._settings.pool(kind),
                ledger,
                self._zone,
                now_ms=self._now.wall_ms,
                log_time_ms=self._now.log_time_ms,
                quarantine_ms=self._settings.quarantine_ms,
                others=self._state.other_ledgers(kind),
            )
        except PoolExhaustedError as error:
            self._state.shortages[kind] = str(error)
            return
        for key, block in granted:
            self._draft.set(BLOCK, key, None if block is None else block.pack())
            self._decision.more = True

    def obey(self, key: str, payload: bytes) -> None:
        """Global says that another zone owns an address bound here: take another one."""
        kind, address = msgpack.unpackb(payload)
        if Key.parse(key).mesh == "":  # of a whole block
            lost = self._state.ledgers[kind].record_of(address)
            if lost is not None:
                self._draft.set(BLOCK, lost[0], None)
            return
        packed = self._draft.get(vip_kind(kind), key)
        if packed is None:
            return
        binding = Binding.unpack(packed)
        if binding.address != address:
            return
        self._decision.note.setdefault("renumbered", []).append([kind, key, address])
        rests = binding.released_ms is not None
        waits = None if rests else binding._replace(address=None).pack()
        self._draft.set(vip_kind(kind), key, waits)
        held = self._state.ledgers[kind].block_of(address)
        if held is not None:
            # The whole block is the other's, whatever this log says: choose from it no more.
            self._draft.set(BLOCK, held[0], None)

    def give_up_name(self, key: str, given: bytes | None) -> None:
        """Global gives out the address of a legacy name from now on; that one may be another."""
        own = self._draft.get(LEGACY_VIP, key)
        if own is not None and given is not None:
            address, other = Binding.unpack(own).address, Binding.unpack(given).address
            if Binding.unpack(own).live and address != other:
                self._decision.note.setdefault("renumbered", []).append([LEGACY, key, address])
        self._draft.set(LEGACY_VIP, key, None)


def _short(shortages: dict[str, str], pool: str, why: str | None) -> None:
    if why is None:
        shortages.pop(pool, None)
    else:
        shortages[pool] = why
