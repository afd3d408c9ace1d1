"""Log entries as bytes: one bounded, versioned, hash-chained format (docs/protocol.md).

An entry travels as msgpack `[format, body, h]`; `body` is msgpack bytes of the array
`[incarnation, position, previous, writer, time_ms, mono_delta_ms, log_time_ms, src, note, changes]`
and `h` = BLAKE2b-8(previous entry's h + body). A reader hands on the bytes it received, never a
re-encoding, so that the chain holds across any number of hands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgpack

from zonemesh.errors import NewerFormatError, WireError
from zonemesh.model import SEQ_MAX, Change, Cursor, Position

FORMAT = 1
ENTRY_BYTES_MAX = 1 << 20
"""Redis holds an entry in one piece; 1 MiB keeps a read's memory and a stall's length small."""
UP_ENTRY_BYTES_MAX = 256 << 10
"""An up entry must fit whole, with what global adds, into one entry of global (exactly once)."""
HASH_BYTES = 8
NO_HASH = bytes(HASH_BYTES)
"""What the first entry of a log chains to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One atomic commit of a log."""

    incarnation: str
    position: Position
    previous: Position
    writer: str
    """Random per process start: two candidates' first entries never hash alike."""
    time_ms: int
    """Writer's wall clock; shown and used for lag, never for safety."""
    mono_delta_ms: int
    """Writer's monotonic time since its previous entry, at most 5,000; 0 for its first."""
    log_time_ms: int
    """Sum of all `mono_delta_ms` up to and including this entry."""
    src: Mapping[str, Cursor] = field(default_factory=dict)
    """Cursors of other logs that this entry moves."""
    note: Mapping[str, Any] = field(default_factory=dict)
    """Not state: a heartbeat's report, `resign`. Unknown keys are ignored."""
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True)
class Sealed:
    """An entry with the bytes that carry it, fixed for ever, and its place in the chain."""

    entry: Entry
    data: bytes
    h: bytes
    previous_h: bytes


def chain(previous_h: bytes, body: bytes) -> bytes:
    return blake2b(previous_h + body, digest_size=HASH_BYTES).digest()


def seal(entry: Entry, previous_h: bytes, *, bytes_max: int = ENTRY_BYTES_MAX) -> Sealed:
    """Encode an entry onto the chain.

    Raises:
        WireError: Larger than `bytes_max`; the caller must split what it commits.
    """
    body: bytes = msgpack.packb(
        (
            entry.incarnation,
            entry.position,
            entry.previous,
            entry.writer,
            entry.time_ms,
            entry.mono_delta_ms,
            entry.log_time_ms,
            {name: (incarnation, position) for name, (incarnation, position) in entry.src.items()},
            entry.note,
            entry.changes,
        )
    )
    h = chain(previous_h, body)
    data: bytes = msgpack.packb((FORMAT, body, h))
    if len(data) > bytes_max:
        raise WireError(f"entry of {len(data)} bytes; at most {bytes_max}")
    return Sealed(entry, data, h, previous_h)


def decode(
    data: bytes, previous_h: bytes, *, bytes_max: int = ENTRY_BYTES_MAX
) -> tuple[Sealed, bool]:
    """Parse one entry; the flag says whether it continues `previous_h`'s chain.

    The chain is reported, not raised, since what a mismatch means depends on `previous` (a gap or
    a fork) and is the reader's to say (`zonemesh.replica`).

    Raises:
        NewerFormatError: Written in a later format.
        WireError: Too long, not msgpack, or a field of the wrong shape.
    """
    if len(data) > bytes_max:
        raise WireError(f"entry of {len(data)} bytes; at most {bytes_max}")
    try:
        # A later format may have any shape: only its number is looked at.
        version, *rest = msgpack.unpackb(data, use_list=False)
        if type(version) is int and version > FORMAT:
            raise NewerFormatError(f"format {version}; this build reads up to {FORMAT}")
        body, h = rest
        if _int(version) != FORMAT or type(body) is not bytes or type(h) is not bytes:
            raise WireError(f"format {version!r}; this build reads {FORMAT}")
        entry = _entry(msgpack.unpackb(body, use_list=False))
    except WireError:
        raise
    except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
        raise WireError(f"malformed entry: {error!r}") from error
    return Sealed(entry, data, h, previous_h), chain(previous_h, body) == h


def _entry(fields: tuple[Any, ...]) -> Entry:
    incarnation, position, previous, writer, time_ms, mono, log_time, src, note, changes, *_ = (
        fields
    )
    return Entry(
        incarnation=_str(incarnation),
        position=_position(position),
        previous=_position(previous),
        writer=_str(writer),
        time_ms=_int(time_ms),
        mono_delta_ms=_int(mono),
        log_time_ms=_int(log_time),
        src={_str(log): Cursor(_str(inc), _position(pos)) for log, (inc, pos) in src.items()},
        note=_map(note),
        changes=[_change(*change) for change in changes],
    )


def _change(kind: Any, key: Any, payload: Any) -> Change:
    if type(kind) is not str or type(key) is not str or type(payload) not in (bytes, type(None)):
        raise WireError("a change is (kind, key, bytes or nil)")
    return Change(kind, key, payload)


def _position(value: Any) -> Position:
    term, seq = value
    if not (0 <= _int(term) <= SEQ_MAX and 0 <= _int(seq) <= SEQ_MAX):
        raise WireError(f"{value!r} is not a position")
    return Position(term, seq)


def _int(value: Any) -> int:
    if type(value) is not int:  # isinstance would take true for 1
        raise WireError(f"{value!r} is not an integer")
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        raise WireError(f"{value!r} is not a string")
    return value


def _map(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise WireError(f"{value!r} is not a map")
    return value
