"""Addresses for legacy names, bound by the plane that owns them all: global, or a zone alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import islice

from zonemesh.deciding import Now
from zonemesh.draft import Draft
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import Binding, Ledger
from zonemesh.legacy import MESH, LegacyIndex, Naming, service_key, services_of
from zonemesh.legacynames import service_names
from zonemesh.legacypool import LEGACY, LEGACY_VIP, LegacyAllocation, Range, ranges_without, rebind
from zonemesh.members import DATAPLANE
from zonemesh.model import Record
from zonemesh.registry import Registry
from zonemesh.settings import Settings
from zonemesh.virtualoutbound import VIRTUAL_OUTBOUND

KEYS_MAX = 500
"""Names that one decision looks at again: some 5 ms."""


class LegacyBindings:
    """Which legacy names there must be by a registry, and which of them have addresses."""

    def __init__(self, registry: Registry, naming: Naming, others: Collection[Ledger] = ()) -> None:
        """`others`: ledgers of the other pools, whose addresses are not given out here."""
        self._registry = registry
        self._naming = naming
        self._others = others
        self._index = LegacyIndex(naming)
        self._index.attach(registry)
        self._due: set[str] = set()
        self._claimed: dict[int, str] = {}
        """Addresses that zones have brought, until all that such a zone has is known."""
        self.remembered: Callable[[str], int | None] = lambda _: None
        """Where a name was while somebody else gave out the addresses."""
        self.ledger = Ledger(LEGACY)
        registry.add_index(self.ledger)

    def begin(self) -> None:
        """Look at every name: the leader before may not have come to all of them."""
        self._due.update(self._index.wanted(), self._registry.table(LEGACY_VIP))

    def claim(self, draft: Draft, settings: Settings, key: str, address: int) -> bool:
        """Bind a name where a zone had it while it stood alone; the first to claim one has it.

        Whether there is such a name is looked at once the claims are `settled`.

        Returns:
            Whether the name is at that address now.
        """
        packed = draft.get(LEGACY_VIP, key)
        if packed is not None:
            return Binding.unpack(packed).address == address
        usual = Settings()
        inside = any(
            first <= address < first + size for first, size in (*_ranges(settings), *_ranges(usual))
        )
        holders = {self.ledger.holder(address), self._claimed.get(address)} - {None, key}
        foreign = any(
            each.holder(address) is not None or each.owner(address) is not None
            for each in self._others
        )
        if not inside or holders or foreign:
            return False
        self._claimed[address] = key
        draft.set(LEGACY_VIP, key, Binding(address, None, None, 0).pack())
        return True

    def wants(self, key: str) -> bool:
        """Whether there must be a legacy name, by what is known of services."""
        return self._index.wants(key)

    def settled(self) -> None:
        """All that the zone has is known: names that nobody wants may rest."""
        self._due.update(self._claimed.values())
        self._claimed.clear()

    def draining(self, settings: Settings) -> int:
        """Addresses held, in use or at rest, that are outside of the pool by now."""
        held = self.ledger.held()
        inside = sum(
            first <= address < first + size for address in held for first, size in _ranges(settings)
        )
        return len(held) - inside

    def decide(
        self,
        draft: Draft,
        settings: Settings,
        now: Now,
        *,
        full: Callable[[], bool],
        retry: bool,
        short: Callable[[str, str | None], None],
    ) -> bool:
        """Bind and release what follows from this entry and those before, as far as it fits.

        A service that comes with this very entry is bound in it; what else follows from an entry is
        seen once that is applied. `retry`: those that found nothing left try again; `short` is told
        why some were left without an address, or with a retry that none was (as `Binder` tells it).

        Returns:
            Whether there is something to decide again once this entry is applied.
        """
        self._due.update(key for key in self._index.take().names if not self._is_right(key))
        fresh = self._fresh(draft)
        due = set() if full() else set(islice(self._due, KEYS_MAX))
        waiting = self.ledger.waiting[""] if retry else ()
        errors: list[PoolExhaustedError] = []
        if fresh or due or waiting:
            changes, errors = rebind(
                {*fresh, *due, *islice(waiting, KEYS_MAX)},
                wants=lambda key: key in fresh or self._index.wants(key),
                held=lambda key: draft.get(LEGACY_VIP, key) or self._former(key, now),
                allocation=LegacyAllocation(
                    self.ledger,
                    _ranges(settings),
                    log_time_ms=now.log_time_ms,
                    quarantine_ms=settings.quarantine_ms,
                    others=self._others,
                ),
                log_time_ms=now.log_time_ms,
            )
            for change in changes:
                draft.set(*change)
        self._due -= due
        if errors:
            short(LEGACY, str(errors[0]))
        elif retry:
            short(LEGACY, None)
        return bool(self._due) or self._goes_on(draft)

    def _former(self, key: str, now: Now) -> bytes | None:
        address = self.remembered(key)
        return None if address is None else Binding(address, None, now.log_time_ms, 0).pack()

    def _goes_on(self, draft: Draft) -> bool:
        """Whether what an entry holds may ask for more once it is applied."""
        if draft.touched(VIRTUAL_OUTBOUND) or draft.touched(MESH):
            return True
        # What a Dataplane has left may be gone with it.
        return any(
            self._registry.get(DATAPLANE, key) is not None for key in draft.touched(DATAPLANE)
        )

    def _is_right(self, key: str) -> bool:
        """Whether a name is bound as it must be: nearly all are, by the entry they came with."""
        packed = self._registry.get(LEGACY_VIP, key)
        live = packed is not None and Binding.unpack(packed).live
        return live == self._index.wants(key)

    def _fresh(self, draft: Draft) -> set[str]:
        """Services of the Dataplanes that this entry puts, as keys of their names."""
        found = set()
        for key in draft.touched(DATAPLANE) if self._naming.services else ():
            payload = draft.get(DATAPLANE, key)
            mesh = key.partition("/")[0]
            if payload is not None and self._index.enabled(mesh):
                for service in services_of(Record.unpack(payload)):
                    if service_names(service, self._naming.domain):
                        found.add(service_key(mesh, service))
        return found


def _ranges(settings: Settings) -> tuple[Range, ...]:
    others = tuple(cidr for cidrs in settings.pools.values() for cidr in cidrs)
    return _ranges_of(settings.legacy_cidrs, others)


@lru_cache(maxsize=4)  # netaddr takes a millisecond
def _ranges_of(cidrs: tuple[str, ...], others: tuple[str, ...]) -> tuple[Range, ...]:
    return ranges_without(cidrs, others)
