"""How far zones have followed global's log, by the newest entry of each one's stream.

It is what is known of that log where nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog

from zonemesh.errors import WireError, WrongKeyError
from zonemesh.log.port import Store
from zonemesh.model import Cursor
from zonemesh.travel import GLOBAL_LOG, up_log
from zonemesh.wire import NO_HASH, decode

log = structlog.get_logger()


class Followed(NamedTuple):
    """What one zone says of a log that it has followed."""

    cursor: Cursor
    ranges: Mapping[str, Sequence[str]]
    """CIDRs by pool that the mesh gives addresses out of, or did, beyond the usual ones."""


async def followed(store: Store) -> dict[str, Followed]:
    """By zone; without zones that have followed none, or whose stream cannot be read."""
    found = {}
    for zone in sorted(await store.zones()):
        there = await _followed_by(store, zone)
        if there is not None:
            found[zone] = there
    return found


async def known_term(store: Store) -> int:
    """The highest term of global's log that zones, or announced snapshots, know of."""
    terms = [each.cursor.position.term for each in (await followed(store)).values()]
    terms += [info.position.term for info in await store.log(GLOBAL_LOG).snapshots()]
    return max(terms, default=0)


async def _followed_by(store: Store, zone: str) -> Followed | None:
    up = store.log(up_log(zone))
    try:
        head = await up.head()
        raws = () if head is None else await up.read(head.position.before(), count=1)
        for raw in raws:
            sealed, _ = decode(raw.data, NO_HASH)
            cursor = _applied(sealed.entry.note)
            return None if cursor is None else Followed(cursor, _ranges(sealed.entry.note))
    except (WireError, WrongKeyError) as error:
        log.warning("zone_stream_unreadable", zone=zone, error=str(error))
    return None


def _applied(note: Mapping[str, Any]) -> Cursor | None:
    """Where a zone stands in global's log, by its heartbeat, whose note may have any shape."""
    applied = note.get("applied")
    return Cursor.heard(applied.get(GLOBAL_LOG)) if isinstance(applied, dict) else None


def _ranges(note: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    match note.get("ranges"):
        case dict() as ranges:
            return {
                name: [cidr for cidr in cidrs if isinstance(cidr, str)]
                for name, cidrs in ranges.items()
                if isinstance(name, str) and isinstance(cidrs, list | tuple)
            }
        case _:
            return {}
