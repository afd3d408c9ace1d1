"""A zone that does not know what was bound for it asks global before it binds anything.

That is a zone that starts for the first time, or one that lost its own log. What global holds of
it, and what its own stream holds beyond that, becomes its own: resources, bindings, blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from zonecp.inputs import Adopt
from zonecp.state import ZoneState
from zonecp.unproven import Unproven
from zonemesh.agents import AGENT
from zonemesh.errors import (
    LogFaultError,
    NotFoundError,
    StaleLogError,
    UnavailableError,
    WireError,
)
from zonemesh.ipam import BLOCK, pool_of
from zonemesh.log import follower, snapshot
from zonemesh.log.port import Head, Log, Raw, Store
from zonemesh.log.writer import Writer
from zonemesh.model import START, Change, Cursor, Position, in_parts, zone_of
from zonemesh.recovery import RECOVERY, Recovery
from zonemesh.registry import Registry, difference
from zonemesh.replica import follows
from zonemesh.runtime.supervise import REMIND_S
from zonemesh.seen import Seen
from zonemesh.travel import (
    CANARY,
    GLOBAL_LOG,
    SEEN,
    accepted_from_zone,
    goes_up,
    held_back,
    up_log,
)
from zonemesh.wire import NO_HASH, Place, decode

_PART_BYTES = 120 << 10
_RETRY_S = 0.2

log = structlog.get_logger()


async def adopt(
    store: Store,
    state: ZoneState,
    writer: Writer,
    *,
    began: Position,
    claim: Callable[[], Awaitable[None]],
) -> None:
    """Take over everything that exists of this zone elsewhere; returns once that is done.

    Waits for as long as global's Redis does not answer, or has no log of global's: that is one
    before the first global has led, and one that has lost everything and is about to be restored.
    Until then the zone accepts registrations and binds nothing. `claim` returns once nobody else
    runs this zone: what is read before that could grow, and what is bound could be bound twice.
    `began`: where the own log ended when this process began. What it holds up to there may be of a
    backup, marks too.

    Raises:
        StaleLogError: Its term has been used for other entries, which are known elsewhere.
    """
    changes, copied = await _existing_at_last(store, state.zone, claim)
    own = state.registry
    unproven = Unproven.of(own, state.zone)
    later = unproven is not None and unproven.known_by(copied, own.incarnation)
    known = None
    if copied is not None and copied.incarnation == own.incarnation:
        known = copied.position
    if known is not None and known.term >= own.position.term:
        # It was set back to before it was led in that term, while it was to adopt something. Were
        # it written on in this one, nobody could tell the two apart by their positions.
        raise StaleLogError(
            f"own log is led in term {own.position.term}, and {known} of it is known",
            term=known.term,
        )
    beyond = START if known is None else min(began, known)
    if later:
        changes += _deleted_since(own, changes, state.zone)
    parts: list[list[Change]] = list(in_parts(changes, _PART_BYTES)) or [[]]
    for number, part in enumerate(parts, 1):
        await writer.submit(Adopt(part, last=number == len(parts), later=later, beyond=beyond))
    log.info("zone_adopted", zone=state.zone, records=len(changes))


async def _existing_at_last(
    store: Store, zone: str, claim: Callable[[], Awaitable[None]]
) -> tuple[list[Change], Cursor | None]:
    clock = asyncio.get_running_loop().time
    said, said_s = "", 0.0
    while True:
        try:
            await claim()
            return await _existing(store, zone)
        except (UnavailableError, NotFoundError, WireError) as error:
            # Not answering, a snapshot replaced while it was read, or one that cannot be: binding
            # without knowing would be worse than waiting.
            if str(error) != said or clock() - said_s >= REMIND_S:
                said, said_s = str(error), clock()
                log.warning("adoption_waits", zone=zone, error=said)
            await asyncio.sleep(_RETRY_S)


def _deleted_since(own: Registry, existing: Sequence[Change], zone: str) -> list[Change]:
    """Removals of what an old log still has and the zone had deleted before it was set back.

    What was written here since is marked, and stays.
    """
    known = {(change.kind, change.key) for change in existing}
    return [
        Change(kind, key, None)
        for kind, table in own.tables.items()
        for key, payload in table.items()
        if goes_up(kind, key, zone)
        and pool_of(kind) is None
        and kind not in (AGENT, CANARY)  # goes with its Dataplane
        and not held_back(kind, payload)  # was never published
        and (kind, key) not in known
    ]


async def _existing(store: Store, zone: str) -> tuple[list[Change], Cursor | None]:
    """Every record of the zone, and up to where in the zone's own log that is known."""

    def wanted(kind: str, key: str) -> bool:
        of_zone = zone_of(key) == zone and (kind in (BLOCK, SEEN) or accepted_from_zone(kind))
        return of_zone or kind == RECOVERY

    target = store.log(GLOBAL_LOG)
    head = await target.head()
    if head is None:
        raise UnavailableError("there is no log of global's: no globalcp has led or restored it")
    known = await follower.load(target, Registry(keeps=wanted), head)
    if known is None:
        raise UnavailableError("global's log has neither its beginning nor a snapshot")
    recovery = Recovery.of(known)
    if recovery is not None and recovery.wants:
        raise UnavailableError("global has lost its log, and takes over a copy of it first")
    seen = Seen.of(known, zone)
    merged = None if seen is None else seen.published
    copied = await _apply_stream(store, zone, known) or merged
    changes = [
        Change(kind, key, payload)
        for kind, table in known.tables.items()
        for key, payload in table.items()
        if kind not in (RECOVERY, SEEN)
    ]
    return changes, copied


async def _apply_stream(store: Store, zone: str, known: Registry) -> Cursor | None:
    """Add what the zone had published and global has not merged yet; how far that leads."""
    stream = store.log(up_log(zone))
    cursor: Cursor | None = known.cursors.get(up_log(zone))
    head = await stream.head()
    if head is None:
        return None
    begun = await _load_snapshot(stream, head, cursor, known)
    if begun is not None:
        after, place = begun.position.before(), begun
    elif cursor is not None and cursor.incarnation == head.incarnation:
        after, place = cursor.position.before(), None
    else:
        # A stream begins with a snapshot; without it, what global merged is what there is.
        return None
    copied: Cursor | None = None
    while raws := await stream.read(after):
        after = raws[-1].position
        try:
            place, copied = _apply_raws(raws, place, known, copied)
        except (LogFaultError, WireError) as error:
            # Nothing beyond can be trusted; what global merged is what there is.
            log.warning("adoption_stream_unusable", zone=zone, error=str(error))
            break
    return copied


async def _load_snapshot(
    stream: Log, head: Head, cursor: Cursor | None, known: Registry
) -> Place | None:
    """Take up a snapshot of the stream that global has not come to; None if there is none."""
    for info in await stream.snapshots():
        if info.incarnation != head.incarnation:
            continue
        merged = cursor is not None and cursor.incarnation == info.incarnation
        if merged and cursor is not None and cursor.position >= info.position:
            return None
        _, rows = await snapshot.decode_in_thread(await stream.load_snapshot(info))
        fresh: dict[str, dict[str, bytes]] = {BLOCK: dict(known.table(BLOCK))}
        for kind, key, payload in rows:
            fresh.setdefault(kind, {})[key] = payload
        for change in difference(known.tables, fresh):
            known.put(*change)
        return info.place
    return None


def _apply_raws(
    raws: Sequence[Raw], place: Place | None, known: Registry, copied: Cursor | None
) -> tuple[Place | None, Cursor | None]:
    """Apply entries after `place`; None: the first one is where global stands, and is not.

    `copied`: how far in the zone's own log what was applied so far leads.
    """
    for raw in raws:
        sealed, chained = decode(raw.data, NO_HASH if place is None else place.h)
        copied = next(iter(sealed.entry.src.values()), copied)
        if place is not None:
            if not follows(place, sealed, chained=chained):
                continue
            for change in sealed.entry.changes:
                known.put(*change)
        place = sealed.place
    return place, copied
