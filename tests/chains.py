"""Entries of a log, each continuing the one before, and what is said of them, for stores' tests."""

from __future__ import annotations

from collections.abc import Sequence

from zonemesh.log.port import Head, Log, Raw, SnapshotInfo
from zonemesh.model import START, Change, Position
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

INCARNATION = "inc-1"


def entry(
    position: tuple[int, int],
    after: Sealed | None,
    *,
    writer: str = "writer-a",
    incarnation: str = INCARNATION,
    time_ms: int = 1_000,
    payload: bytes = b"payload",
) -> Sealed:
    """An entry that follows another, or nothing."""
    return seal(
        Entry(
            incarnation=incarnation,
            position=Position(*position),
            previous=START if after is None else after.entry.position,
            writer=writer,
            time_ms=time_ms,
            mono_delta_ms=0,
            log_time_ms=0,
            changes=(Change("Zone", "//ns/name", payload),),
        ),
        NO_HASH if after is None else after.h,
    )


def chain_of(length: int) -> list[Sealed]:
    """Entries 1-0 to 1-<length - 1>."""
    chain: list[Sealed] = []
    for seq in range(length):
        chain.append(entry((1, seq), chain[-1] if chain else None))
    return chain


async def write(log: Log, chain: Sequence[Sealed]) -> None:
    """Make a log of these entries."""
    await log.create(chain[0])
    for sealed in chain[1:]:
        await log.append(sealed)


async def grow(log: Log, length: int) -> list[Sealed]:
    """A new log of so many entries."""
    chain = chain_of(length)
    await write(log, chain)
    return chain


def raws(chain: Sequence[Sealed]) -> list[Raw]:
    return [Raw(sealed.entry.position, sealed.data) for sealed in chain]


def snapshot_of(sealed: Sealed, chunks: int = 1) -> SnapshotInfo:
    return SnapshotInfo(
        incarnation=sealed.entry.incarnation,
        position=sealed.entry.position,
        h=sealed.h,
        chunks=chunks,
    )


def head_of(sealed: Sealed, owner: str = "") -> Head:
    return Head(
        incarnation=sealed.entry.incarnation,
        position=sealed.entry.position,
        h=sealed.h,
        time_ms=sealed.entry.time_ms,
        owner=owner,
    )
