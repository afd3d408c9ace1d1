"""Leasing: which blocks of a pool a zone gets, so that it can bind without asking anybody."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence

from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import Block, Ledger, Pool, owner_title, stable_hash
from zonemesh.model import Key


def grants(
    pool: Pool,
    ledger: Ledger,
    zone: str,
    *,
    now_ms: int,
    log_time_ms: int,
    quarantine_ms: int,
    drafted: Collection[int] = (),
    others: Iterable[Ledger] = (),
) -> list[tuple[str, Block | None]]:
    """The blocks to lease to a zone now, each with the key of its record.

    A block of a deleted zone changes its owner only when no other is left and its addresses have
    rested, which no binding tells any more; its former record comes before the new one, as None.
    `drafted` are the first addresses of blocks given out in the same entry already, which the
    ledger does not know yet. `others` are the ledgers of the other pools: what they still hold of
    a range that was theirs, blocks and single addresses, is left out.

    A zone is kept at free - waiting >= max(two blocks, a quarter of what it has bound): with
    fewer, a burst that arrives while global is away would have to wait. The n-th block is searched
    from a hash of (pool, zone, n), so that a grant that was lost and is made again is most likely
    the same.

    Raises:
        PoolExhaustedError: Not a single block of the pool is left, and the zone needs one.
    """
    free = ledger.free(pool, zone, log_time_ms, quarantine_ms) - len(ledger.waiting[zone])
    spare = max(2 * pool.block_size, ledger.live(zone) // 4)
    if free >= spare:
        return []
    places = pool.blocks()
    result: list[tuple[str, Block | None]] = []
    taken = set(drafted)
    foreign = foreign_to(pool, tuple(others))
    held = ledger.records(zone)
    number = len(ledger.blocks(zone))
    while free < spare:
        start = stable_hash(pool.name, f"{zone}/{number}")
        key = Key("", zone, pool.name, str(number)).packed
        number += 1
        if key in held:
            continue  # claimed or retired blocks have shifted the count
        place = _search_block(places, ledger, taken, foreign, start, log_time_ms - quarantine_ms)
        if place is None:
            if free <= 0 and not result:
                raise PoolExhaustedError(
                    f"pool {pool.name} ({', '.join(pool.cidrs)}): all {len(places)} blocks are"
                    f" leased, or drain from another pool; {owner_title(zone)} has"
                    f" {max(free, 0)} free addresses left"
                )
            break
        first, size = place
        taken.add(first)
        former = ledger.record_of(first)
        if former is not None:
            result.append((former[0], None))
        result.append((key, Block(first, size, now_ms)))
        free += size
    return result


def emptied(pool: Pool, ledger: Ledger, owner: str) -> list[tuple[str, Block]]:
    """An owner's blocks of ranges that were removed, in which nothing is bound or rests any more,
    each behind the key of its record: nothing will ever be bound there again.
    """
    return [
        record
        for block in ledger.blocks(owner)
        if not pool.covers(block.first, block.size)
        and not ledger.filled(block)
        and (record := ledger.record_of(block.first)) is not None
    ]


def is_handed_back(pool: Pool, ledger: Ledger, block: Block) -> bool:
    """Whether a zone's own log has that very lease as handed back, and nothing has changed since.

    Global may not have heard of it yet: what it says of the block is older.
    """
    own = ledger.record_of(block.first)
    return (
        own is not None
        and own[1].retired
        and own[1].granted_ms == block.granted_ms
        and not pool.covers(block.first, block.size)
        and not ledger.filled(own[1])
    )


def forgettable(pool: Pool, ledger: Ledger, rested_ms: int) -> list[str]:
    """The records of blocks in removed ranges that were retired by `rested_ms`, and are empty."""
    return [
        key
        for key, block in ledger.retired()
        if block.retired_ms <= rested_ms
        and not pool.covers(block.first, block.size)
        and not ledger.filled(block)
    ]


def foreign_to(pool: Pool, others: Sequence[Ledger]) -> Callable[[int, int], bool]:
    """Whether other pools have something in a place of this one."""
    found: list[int] | None = None

    def foreign(first: int, size: int) -> bool:
        nonlocal found
        if found is None:  # (only for who needs a block: this looks at all there is)
            found = sorted(
                at
                for start, length in pool.ranges
                for each in others
                for at in each.held()
                if start <= at < start + length
            )
        at = bisect_left(found, first)
        if at < len(found) and found[at] < first + size:
            return True
        return any(each.overlaps(first, size) for each in others)

    return foreign


def _search_block(  # noqa: PLR0917 -- one search, in one place
    places: Sequence[tuple[int, int]],
    ledger: Ledger,
    taken: set[int],
    foreign: Callable[[int, int], bool],
    start: int,
    rested_ms: int,
) -> tuple[int, int] | None:
    """A block that nobody holds, else one retired by `rested_ms` (log time) and empty."""
    count = len(places)
    last_resort = None
    for step in range(count):
        first, size = places[(start + step) % count]
        if first in taken:
            continue
        record = ledger.record_of(first)
        if record is None:
            # Ranges that were cut otherwise before have left blocks that begin elsewhere.
            if not ledger.overlaps(first, size) and not foreign(first, size):
                return first, size
            continue
        block = record[1]
        rested = block.retired and block.retired_ms <= rested_ms and not ledger.filled(block)
        if rested and block.size == size and last_resort is None:
            last_resort = first, size
    return last_resort
