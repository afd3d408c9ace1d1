"""Global's own part out of the newest copy that a zone offers, where nothing else is left of it.

From one copy only, the one of the highest position, whose chain its holder has verified: what a
union of several would bring back had been deleted (docs/decisions/0023).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

import structlog

from globalcp.inputs import TakeCopy
from zonemesh.errors import NotFoundError, WireError, WrongKeyError
from zonemesh.log import snapshot
from zonemesh.log.port import SnapshotInfo, Store
from zonemesh.log.writer import Writer
from zonemesh.model import Change, Position
from zonemesh.travel import copy_log

PART_BYTES = 200 << 10
_PARTS_PER_TURN_ROWS = 2_000

log = structlog.get_logger()


async def take(
    store: Store, zones: Collection[str], writer: Writer, *, beyond: Position | None = None
) -> None:
    """Have the newest copy that can be read taken over; none at all is taken for an empty one.

    `beyond`: the log has all that was known there. Terms rise from incarnation to incarnation, so
    that a copy with a later position is a newer one.
    """
    for zone, info in await _offered(store, zones):
        if beyond is not None and info.position <= beyond:
            continue
        try:
            _, rows = await snapshot.decode_in_thread(
                await store.log(copy_log(zone)).load_snapshot(info)
            )
            parts = await _parts(rows)
        except (NotFoundError, WireError) as error:
            log.warning("copy_unusable", zone=zone, error=str(error))
            continue
        for part in parts:
            await writer.submit(TakeCopy(part, last=False))
        log.warning(
            "copy_taken", zone=zone, position=str(info.position), records=sum(map(len, parts))
        )
        break
    else:
        if beyond is None:
            log.warning("no_copy_offered", zones=sorted(zones))
    await writer.submit(TakeCopy((), last=True))


async def _offered(store: Store, zones: Collection[str]) -> Sequence[tuple[str, SnapshotInfo]]:
    """Newest first."""
    found = []
    for zone in sorted(zones):
        try:
            found += [(zone, info) for info in await store.log(copy_log(zone)).snapshots()]
        except WrongKeyError as error:
            log.warning("copy_unusable", zone=zone, error=str(error))
    return sorted(found, key=lambda each: each[1].position, reverse=True)


async def _parts(rows: Iterable[snapshot.Row]) -> list[list[Change]]:
    parts: list[list[Change]] = [[]]
    size = 0
    for number, (kind, key, payload) in enumerate(rows, 1):
        if size > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(Change(kind, key, payload))
        size += len(kind) + len(key) + len(payload) + 12
        if number % _PARTS_PER_TURN_ROWS == 0:
            await asyncio.sleep(0)
    return parts
