"""The compare of compare-and-append, for stores that run no Lua; `scripts` says the same in Lua."""

from __future__ import annotations

from collections.abc import Sequence

from zonemesh.errors import RefusedError
from zonemesh.log.port import Head, SnapshotInfo
from zonemesh.model import Position
from zonemesh.wire import HASH_BYTES, Sealed


def appends(head: Head | None, sealed: Sealed) -> bool:
    """Whether the entry is to be written; False: it is the head already (a retry).

    The second fence, that a position is above every one that was, is the stream's: XADD has it.

    Raises:
        RefusedError: It follows something else.
    """
    entry = sealed.entry
    if head is None:
        raise refused(None, sealed)
    if head.incarnation == entry.incarnation:
        if (head.position, head.h) == (entry.position, sealed.h):
            return False
        if (head.position, head.h) == (entry.previous, sealed.previous_h):
            return True
    raise refused(head, sealed)


def creates(head: Head | None, sealed: Sealed, *, top: Position | None, found: Head | None) -> bool:
    """Whether the first entry is to be written; False: it is the head already (a retry).

    Args:
        head: The log's.
        sealed: What to write.
        top: The newest entry's position, if there is any entry.
        found: The head that the caller means to replace.

    Raises:
        RefusedError: The log exists and is not what the caller means to replace.
    """
    entry = sealed.entry
    if head is not None and _names(head) == (entry.incarnation, entry.position, sealed.h):
        return False
    if found is None and head is None and top is None:
        return True
    replaces = head is not None and found is not None and _names(head) == _names(found)
    if replaces and (top is None or entry.position > top):
        return True
    raise refused(head, sealed)


def announces(
    head: Head | None, entry_h: bytes | None, announced: Sequence[SnapshotInfo], info: SnapshotInfo
) -> bool:
    """Whether a snapshot is to be announced; False: this very state is announced already.

    Args:
        head: The log's.
        entry_h: Hash of the log's entry at the snapshot's position, if it has one.
        announced: Those that are announced, newest first.
        info: What to announce.

    Raises:
        RefusedError: Its writer is deposed.
    """
    if any(_state(one) == _state(info) for one in announced):
        return False
    if announced and info.position <= announced[0].position:
        raise RefusedError(
            f"snapshot {info.position}: {announced[0].position} is announced already"
        )
    if head is not None and (head.incarnation != info.incarnation or entry_h != info.h):
        raise RefusedError(f"snapshot {info.position}: the log has no such entry")
    return True


def head_after(head: Head | None, sealed: Sealed, owner: str | None) -> Head:
    """The head that an entry makes; its owner stays unless another is given."""
    kept = "" if head is None else head.owner
    return Head(
        incarnation=sealed.entry.incarnation,
        position=sealed.entry.position,
        h=sealed.h,
        time_ms=sealed.entry.time_ms,
        owner=kept if owner is None else owner,
        format=sealed.format,
    )


def hash_of(data: bytes) -> bytes:
    """The hash of an entry's bytes without decoding them: `[format, body, h]` ends with it."""
    return data[-HASH_BYTES:]


def refused(head: Head | None, sealed: Sealed) -> RefusedError:
    found = "there is no log" if head is None else f"the head is {head.cursor} ({head.h.hex()})"
    entry = sealed.entry
    return RefusedError(
        f"entry {entry.incarnation}.{entry.position} follows {entry.previous} "
        f"({sealed.previous_h.hex()}), but {found}"
    )


def _names(head: Head) -> tuple[str, Position, bytes]:
    return head.incarnation, head.position, head.h


def _state(info: SnapshotInfo) -> tuple[str, Position, bytes]:
    return info.incarnation, info.position, info.h
