"""Which blocks of addresses zones hold: leased, given back and forgotten within one decision."""

from __future__ import annotations

from collections.abc import Callable

from globalcp.claiming import Claiming
from globalcp.state import GlobalState
from zonemesh.binding import binds_in
from zonemesh.deciding import Now
from zonemesh.draft import Draft
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import BLOCK, Block, Ledger
from zonemesh.leasing import emptied, forgettable, grants
from zonemesh.model import zone_of
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.settings import Settings


class Leases:
    """One decision's view of the blocks; global itself is the zone ""."""

    def __init__(
        self,
        draft: Draft,
        state: GlobalState,
        now: Now,
        claiming: Claiming,
        leased: dict[int, str],
    ) -> None:
        """`leased`: zones by the first address of what the decision has given out so far."""
        self._draft = draft
        self._state = state
        self._ledgers = state.ledgers
        self._now = now
        self._claiming = claiming
        self._leased = leased

    def allows(self, zone: str, pool: str, address: int) -> bool:
        """Whether a zone may use an address; a block that nobody holds is granted by the use."""
        ledger = self._ledgers.get(pool)
        if ledger is None:
            return True
        held = ledger.block_of(address)
        if held is not None:
            return self._keeps(zone, *held)
        place = self._claiming.place_at(pool, address)
        if place is None:
            return False
        first, size = place
        owner = self._leased.get(first)
        if owner is not None:
            return owner == zone
        return self._claiming.grant(zone, pool, Block(first, size, self._now.wall_ms))

    def _keeps(self, zone: str, key: str, block: Block) -> bool:
        """Whether a held block is the zone's; a deleted zone that is back has its own again."""
        if zone_of(key) != zone:
            return False
        if block.retired and block.first not in self._leased:
            self._grant(key, block._replace(retired=False, retired_ms=0))
        return True

    def _grant(self, key: str, block: Block) -> None:
        self._leased[block.first] = zone_of(key)
        self._draft.set(BLOCK, key, block.pack())

    def give_back(self, zone: str) -> None:
        """A deleted zone is back: its blocks are its own again."""
        for ledger in self._ledgers.values():
            for key in sorted(ledger.records(zone)):
                packed = self._draft.get(BLOCK, key)
                if packed is not None:
                    self._keeps(zone, key, Block.unpack(packed))

    def retire_all(self, zone: str) -> None:
        """A zone is deleted: its blocks are leased again last."""
        for key, packed in self._state.registry.table(BLOCK).items():
            if zone_of(key) == zone:
                self._retire(key, Block.unpack(packed))

    def _retire(self, key: str, block: Block) -> None:
        retired = block._replace(retired=True, retired_ms=self._now.log_time_ms)
        self._draft.set(BLOCK, key, retired.pack())

    def take_back(self, zone: str, pool: str, first: int) -> bool:
        """Retire a block that a zone says is empty, if by what it has published it is."""
        ledger = self._ledgers.get(pool)
        held = None if ledger is None else ledger.record_of(first)
        if ledger is None or held is None or zone_of(held[0]) != zone or held[1].retired:
            return False
        if ledger.filled(held[1]) or binds_in(self._draft, pool, held[1]):
            return False  # what empties it may be in this decision: it is told again
        self._retire(*held)
        return True

    def stock(self, new_zones: set[str], settings: Settings) -> bool:
        """Keep zones in stock: those new in this entry, and those that the last ones drew on.

        Global itself is one of them for what is made on it. True if the next entry has more to
        lease, or to bind.
        """
        state = self._state
        touched = self._touched_zones()
        # Global's own are looked at after each binding: whoever is left waiting is told why.
        state.unserved |= {"", *new_zones} & touched
        due = (new_zones | state.unserved) - touched
        state.unserved -= due
        for zone in sorted(due):
            seen = Seen.of(self._draft, zone) if zone else None
            if zone and (seen is None or seen.deleted):
                continue
            for pool, ledger in self._ledgers.items():
                if _draws(zone, pool, ledger):
                    self._lease_to(zone, pool, ledger, settings)
        # Bindings of this very entry count only once it is applied, and so do its blocks; who waits
        # for global's own is bound by the next one.
        return bool(state.unserved) or "" in self._leased.values()

    def _touched_zones(self) -> set[str]:
        kinds = [BLOCK, *(f"vip.{pool}" for pool in self._ledgers)]
        return {zone_of(key) for kind in kinds for key in self._draft.touched(kind)}

    def _lease_to(self, zone: str, pool: str, ledger: Ledger, settings: Settings) -> None:
        try:
            granted = grants(
                settings.pool(pool),
                ledger,
                zone,
                now_ms=self._now.wall_ms,
                log_time_ms=self._now.log_time_ms,
                quarantine_ms=settings.quarantine_ms,
                drafted=self._leased,
                others=self._state.other_ledgers(pool),
            )
        except PoolExhaustedError as error:
            self._state.shortages[pool, zone] = str(error)
            return
        self._state.shortages.pop((pool, zone), None)
        for key, block in granted:
            if block is None:
                self._draft.set(BLOCK, key, None)
            else:
                self._grant(key, block)

    def forget(self, settings: Settings, *, full: Callable[[], bool]) -> None:
        """Of removed ranges: global's own once they are empty, and whosesoever after their rest."""
        rested_ms = self._now.log_time_ms - settings.quarantine_ms
        touched = self._draft.touched(BLOCK)
        for name, ledger in self._ledgers.items():
            pool = settings.pool(name)
            for key, block in emptied(pool, ledger, ""):
                if not binds_in(self._draft, name, block):
                    self._retire(key, block)
            for key in forgettable(pool, ledger, rested_ms):
                if key not in touched and not full():
                    self._draft.set(BLOCK, key, None)


def _draws(owner: str, pool: str, ledger: Ledger) -> bool:
    """Whether a zone, or global as "", is to have a stock of a pool's addresses.

    Zones may be cut off with the next thing they make; global has no use for what it does not need.
    """
    if owner:
        return KINDS[pool].by_zone
    return bool(ledger.waiting[""] or ledger.live(""))
