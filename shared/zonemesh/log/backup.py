"""Saving a log as it is at one position, and founding it again from that.

A zone's own log comes back as it was: the zone finds that it has published more than that, and
takes the rest from global. Global's log begins a new incarnation instead, in doubt from its first
entry on: zones say what they hold, and what they own is as they say (docs/decisions/0033).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from zonemesh.errors import ConflictError, RefusedError, UnavailableError, WireError
from zonemesh.log import follower, snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.backupfile import Backup
from zonemesh.log.clock import Clock
from zonemesh.log.followed import known_term
from zonemesh.log.leadership import RENEW_EVERY_S
from zonemesh.log.port import Head, Lease, Log, SnapshotInfo, Store
from zonemesh.log.presence import Replica
from zonemesh.log.restore import found
from zonemesh.model import START, Change, Cursor
from zonemesh.recovery import Recovery
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG
from zonemesh.wire import NO_HASH, Sealed, decode

TERMS_APART = 1_000
"""Leaders of whom nothing is known may have begun terms since the file was saved."""

WRITE_S = 60.0
"""For the founding entry. A store that does not take it must not hold an operator for ever."""

_TRIES = 3
"""A log that is trimmed while it is read is read again."""


async def save(target: Log, into: Registry, *, saved_ms: int, version: str) -> Backup:
    """Read a log up to its head, as any reader does: nothing is written.

    Args:
        target: The log.
        into: A blank registry; holds what was read so far, for whoever shows progress.
        saved_ms: Wall time now.
        version: This build's.

    Raises:
        ConflictError: There is no log.
        UnavailableError: The store does not answer, or nothing leads to the log's head.
    """
    for _ in range(_TRIES):
        head = await target.head()
        if head is None:
            raise ConflictError(f"there is no log {target.name}: nothing to save")
        if await follower.load(target, into, head) is None:
            continue
        newest = await _entry_at(target, into)
        if newest is None:
            into.become(into.empty())
            continue
        _, chunks = await snapshotter.encode(into.freeze())
        return Backup(
            log=target.name, saved_ms=saved_ms, version=version, newest=newest, chunks=chunks
        )
    raise UnavailableError(
        f"log {target.name} has neither its beginning nor a snapshot that leads to its head: "
        "its leader makes one within seconds; try again"
    )


async def _entry_at(target: Log, registry: Registry) -> bytes | None:
    for raw in await target.read(registry.position.before(), count=1):
        if raw.position == registry.position:
            return raw.data
    return None


async def state_of(backup: Backup) -> tuple[Registry, Sealed]:
    """The state that a file holds, and the entry that it ends with.

    Raises:
        WireError: They are not what the file's writer held.
    """
    registry = Registry()
    await snapshotter.read(backup.chunks, registry)
    sealed, _ = decode(backup.newest, NO_HASH)
    entry = sealed.entry
    if sealed.place != registry.place:
        raise WireError(
            f"its newest entry is {entry.position}, its state that of {registry.cursor}"
        )
    return registry, sealed


async def put_back(target: Log, backup: Backup) -> Cursor:
    """Have a zone's own log again, byte for byte, where there is none.

    Raises:
        ConflictError: There is one, or somebody leads it.
        WireError: As `state_of`.
        UnavailableError: The store does not answer.
    """
    registry, sealed = await state_of(backup)
    async with _alone(target):
        if (present := await target.head()) is not None:
            raise ConflictError(
                f"there is a log {target.name} already, at {present.cursor}; nothing was changed"
            )
        place = registry.cursor
        info = SnapshotInfo(
            incarnation=place.incarnation,
            position=place.position,
            h=registry.h,
            chunks=len(backup.chunks),
        )
        await target.put_snapshot(info, backup.chunks)
        await target.create(sealed)
    return place


async def found_global(
    store: Store, backup: Backup, *, clock: Clock, replace: str | None = None
) -> Cursor:
    """Found global's log again from a file.

    Its new incarnation has a term above every one that is known, and begins with a `recovery`:
    nothing is bound or leased until zones have said what they hold.

    Args:
        store: Global's.
        backup: The state.
        clock: Of the founding entry.
        replace: The incarnation of the log that is there and is given up; None if there is none.

    Raises:
        ConflictError: Another log is there, or a globalcp lives. Nothing was changed.
        WireError: As `state_of`.
        UnavailableError: The store does not answer, or did not in time.
    """
    registry, _ = await state_of(backup)
    await _nobody_lives(store)
    target = store.log(GLOBAL_LOG)
    async with _alone(target):
        await target.repair()
        present = await target.head()
        _check_replaced(present, replace)
        if present is None and await target.read(START, count=1):
            raise ConflictError(
                f"log {target.name} has entries and no head: start a globalcp with its dataDir,"
                " which brings it back"
            )
        terms = [registry.position.term, await known_term(store)]
        terms += [] if present is None else [present.position.term]
        writer = secrets.token_hex(8)
        appender = Appender(
            target,
            writer=writer,
            clock=clock,
            log_time_ms=registry.log_time_ms,
            version=registry.format,
        )

        def first_changes(first: Cursor) -> Sequence[Change]:
            reason = f"restored from the snapshot of {_text(backup.saved_ms)}"
            return [Recovery.founded(first, registry, reason).change()]

        try:
            async with asyncio.timeout(WRITE_S):
                await found(
                    target,
                    appender,
                    registry,
                    term=max(terms) + TERMS_APART,
                    first_changes=first_changes,
                    replacing=present,
                )
        except TimeoutError as error:
            raise UnavailableError(
                f"the store did not take the log's first entry in {WRITE_S:g} s; try again"
            ) from error
        except RefusedError as error:
            raise ConflictError(f"somebody has founded the log meanwhile: {error}") from error
    return registry.cursor


def _check_replaced(present: Head | None, replace: str | None) -> None:
    if present is None:
        if replace is not None:
            raise ConflictError(f"there is no log to replace, of incarnation {replace} or another")
        return
    if present.incarnation != replace:
        asked = "" if replace is None else f", not {replace}"
        raise ConflictError(
            f"global has a log, at {present.cursor}{asked}; nothing was changed. To give it up for"
            f" what the file holds: --replace {present.incarnation}"
        )


async def _nobody_lives(store: Store) -> None:
    """Global's replicas would bring their own history back, or follow two in a row."""
    urls = []
    for writer, payload in (await store.replicas(GLOBAL_LOG)).items():
        try:
            urls.append(Replica.unpack(writer, payload).url or writer)
        except WireError:
            urls.append(writer)
    if urls:
        raise ConflictError(
            f"globalcp runs at {', '.join(sorted(urls))}; stop every one, wait 5 s and try again"
        )


@asynccontextmanager
async def _alone(target: Log) -> AsyncIterator[None]:
    """Hold a log's lease, so that nobody who starts meanwhile leads it."""
    lease = Lease(writer=secrets.token_hex(8), url="")
    if not await target.acquire(lease):
        holder = await target.holder()
        who = "somebody" if holder is None else holder.url or holder.writer
        raise ConflictError(f"{who} leads the log {target.name}; stop it and try again")
    keeping = asyncio.create_task(_keep(target, lease))
    try:
        yield
    finally:
        keeping.cancel()
        await target.release(lease)


async def _keep(target: Log, lease: Lease) -> None:
    # Whether it is kept matters to nobody but whoever waits: an append compares.
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        try:
            await target.renew(lease)
        except UnavailableError:
            continue


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
