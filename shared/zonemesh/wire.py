"""Log entries as bytes: bounded, versioned, hash-chained (docs/protocol.md).

An entry travels as msgpack `[format, body, h]`; `body` is msgpack bytes of the array
`[incarnation, position, previous, writer, time_ms, mono_delta_ms, log_time_ms, src, note, changes]`
and `h` = BLAKE2b-8(previous entry's h + body). A reader hands on the bytes it received, never a
re-encoding, so that the chain holds across any number of hands.

A format is a way to write the body; `CODECS` has those that this build knows. What is around the
body stays, so that a reader knows a later format when it sees one. Which one a log is written in is
`zonemesh.formats`'.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgpack

from zonemesh.errors import NewerFormatError, WireError
from zonemesh.model import SEQ_MAX, START, Change, Cursor, Position

FORMAT = 1
"""Of a log that begins."""
ENTRY_BYTES_MAX = 1 << 20
"""Redis holds an entry in one piece; 1 MiB keeps a read's memory and a stall's length small."""
UP_ENTRY_BYTES_MAX = 256 << 10
"""An up entry must fit whole, with what global adds, into one entry of global (exactly once)."""
HASH_BYTES = 8
NO_HASH = bytes(HASH_BYTES)
"""What the first entry of a log chains to."""


class Place(NamedTuple):
    """Where a reader of a log stands: the last entry it has applied."""

    incarnation: str
    position: Position
    h: bytes

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.incarnation, self.position)


NOWHERE = Place("", START, NO_HASH)
"""A reader that has applied nothing: the first entry of any incarnation follows, but of one that
was founded again from a state."""


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
    format: int = FORMAT

    @property
    def place(self) -> Place:
        return Place(self.entry.incarnation, self.entry.position, self.h)


def chain(previous_h: bytes, body: bytes) -> bytes:
    return blake2b(previous_h + body, digest_size=HASH_BYTES).digest()


class Codec(NamedTuple):
    """One format of the body."""

    pack: Callable[[Entry], bytes]
    unpack: Callable[[bytes], Entry]
    """May raise anything; all means the same to a reader."""


def known() -> tuple[int, ...]:
    """The formats that this build reads and writes."""
    return tuple(sorted(CODECS))


def seal(
    entry: Entry, previous_h: bytes, *, bytes_max: int = ENTRY_BYTES_MAX, version: int = FORMAT
) -> Sealed:
    """Encode an entry onto the chain, in a format that this build knows.

    Raises:
        WireError: Larger than `bytes_max`; the caller must split what it commits.
    """
    body = CODECS[version].pack(entry)
    h = chain(previous_h, body)
    data: bytes = msgpack.packb((version, body, h))
    if len(data) > bytes_max:
        raise WireError(f"entry of {len(data)} bytes; at most {bytes_max}")
    return Sealed(entry, data, h, previous_h, version)


def _pack(entry: Entry) -> bytes:
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
    return body


def decode(
    data: bytes,
    previous_h: bytes,
    *,
    bytes_max: int = ENTRY_BYTES_MAX,
    formats: Collection[int] | None = None,
) -> tuple[Sealed, bool]:
    """Parse one entry; the flag says whether it continues `previous_h`'s chain.

    The chain is reported, not raised, since what a mismatch means depends on `previous` (a gap or
    a fork) and is the reader's to say (`zonemesh.replica`). `formats` are those that may be read;
    None for all that this build knows.

    Raises:
        NewerFormatError: Written in a later format.
        WireError: Too long, not msgpack, or a field of the wrong shape.
    """
    if len(data) > bytes_max:
        raise WireError(f"entry of {len(data)} bytes; at most {bytes_max}")
    try:
        # A later format may have any shape: only its number is looked at.
        version, *rest = msgpack.unpackb(data, use_list=False)
        check_format("an entry", version, formats)
        body, h = rest
        if type(body) is not bytes or type(h) is not bytes:
            raise WireError("an entry is [format, bytes, bytes]")
        entry = CODECS[version].unpack(body)
    except WireError:
        raise
    except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
        raise WireError(f"malformed entry: {error!r}") from error
    return Sealed(entry, data, h, previous_h, version), chain(previous_h, body) == h


def check_format(what: str, version: Any, formats: Collection[int] | None = None) -> None:
    """Whether a format may be read, of an entry or a snapshot.

    Raises:
        NewerFormatError: It is a later one.
        WireError: It is none.
    """
    readable = CODECS if formats is None else formats
    if type(version) is not int or version < 0:
        raise WireError(f"{what} of format {version!r}; this build reads up to {max(readable)}")
    if version > max(readable):
        raise NewerFormatError(
            f"{what} of format {version}; this build reads up to {max(readable)}: upgrade it"
        )
    if version not in readable:
        raise WireError(f"{what} of format {version}; this build does not read it")


def _unpack(body: bytes) -> Entry:
    fields = msgpack.unpackb(body, use_list=False)
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


CODECS: dict[int, Codec] = {FORMAT: Codec(_pack, _unpack)}
"""By format. A format that is no longer written is kept until no supported build writes it."""
