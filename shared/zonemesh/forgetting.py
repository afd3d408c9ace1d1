"""Forgetting bindings whose addresses have rested for long: a registry is not to grow for ever.

What a key once had is kept beyond the quarantine as a courtesy, so that a service that comes back
has its former address. Whoever makes up a new name each time must not be remembered for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from zonemesh.draft import Draft
from zonemesh.ipam import Binding, Ledger, Pool, vip_kind

KEPT_MS = 30 * 24 * 3600 * 1000
"""Log time after the quarantine for which a former address is remembered."""
KEPT_MAX = 10_000
"""Of one owner and pool, beyond which it is not even that: some 2 MB."""
_LOOKED_AT = 5_000
"""Per decision, some 2 ms; all are come to in turn."""
_FORGOTTEN_MAX = 500
"""Per decision; they are removed by one entry."""


class Forgetting:
    """Goes round the resting bindings of ledgers, some at each heartbeat.

    What it has come to is no state: to begin again costs only time.
    """

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def forget(
        self,
        draft: Draft,
        owned: Iterable[tuple[Ledger, str, Pool | None]],
        *,
        log_time_ms: int,
        quarantine_ms: int,
        full: Callable[[], bool],
    ) -> bool:
        """Put removals into a draft, until it is full; True if there are more to be made.

        `owned`: ledgers, each with the owner whose bindings in it are to be looked at, and with the
        pool where addresses outside of it are remembered no longer than they rest: nobody may have
        them again, and it is by being empty that a block of a removed range comes free.
        """
        more = False
        for ledger, owner, pool in owned:
            if full():
                return True
            more = self._forget(draft, ledger, owner, pool, log_time_ms - quarantine_ms) or more
        return more

    def _forget(
        self, draft: Draft, ledger: Ledger, owner: str, pool: Pool | None, rested_ms: int
    ) -> bool:
        due = self._due(ledger, owner, pool, rested_ms)
        kind = vip_kind(ledger.pool)
        for key in due[:_FORGOTTEN_MAX]:
            packed = draft.get(kind, key)
            if packed is not None and Binding.unpack(packed).released_ms is not None:
                draft.set(kind, key, None)
        return len(due) > _FORGOTTEN_MAX

    def _due(self, ledger: Ledger, owner: str, pool: Pool | None, rested_ms: int) -> list[str]:
        resting = ledger.resting(owner)
        start = self._at.get(ledger.pool, 0)
        if start >= len(resting):
            start = 0
        looked_at = list(islice(resting.items(), start, start + _LOOKED_AT))
        excess = len(resting) - KEPT_MAX
        due: list[str] = []
        for address, released_ms in looked_at:
            if released_ms > rested_ms:
                continue
            drains = pool is not None and not pool.covers(address)
            if drains or len(due) < excess or released_ms <= rested_ms - KEPT_MS:
                key = ledger.holder(address)
                if key is not None:
                    due.append(key)
        self._at[ledger.pool] = start + len(looked_at) - len(due)
        return due
