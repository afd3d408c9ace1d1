"""The values that every part speaks in: positions, keys, changes, stored records."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Self

import msgpack

from zonemesh.errors import InputError, WireError

TIME_MS_MAX = 253_402_300_799_000
"""The last second of the year 9999, beyond which no time can be written down."""
DEPTH_MAX = 32
"""Levels of a record that another plane wrote. Kuma's resources have ten."""
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
"""What msgpack can hold."""
SEQ_MAX = (1 << 63) - 1
"""Above any sequence number in use, below what SQLite and Lua hold exactly as integers."""
_INCARNATION_MAX = 200
"""Characters of one that is told in a note. It is kept in logs and repeated there."""
_TEXT_MAX = 2 * 19 + 1
"""Digits of two such numbers and the dash."""
_FRAMING_BYTES = 12
"""What msgpack adds to an array of two short texts and octets."""


class Position(NamedTuple):
    """A place in a log: `<term>-<seq>`, ordered, comparable only within one incarnation."""

    term: int
    seq: int

    def __str__(self) -> str:
        return f"{self.term}-{self.seq}"

    def before(self) -> Position:
        """What to read after in order to get the entry at this position itself."""
        if self.seq > 0:
            return Position(self.term, self.seq - 1)
        return Position(self.term - 1, SEQ_MAX) if self.term > 0 else START

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `7-4`.

        Raises:
            InputError: Not of that form.
        """
        term, dash, seq = text.partition("-")
        # isdecimal alone would admit other scripts' digits.
        if not (dash and text.isascii() and term.isdecimal() and seq.isdecimal()):
            raise InputError(f"{text!r} is not a position <term>-<seq>")
        # Nor does int() take any number of digits.
        if len(text) > _TEXT_MAX or max(int(term), int(seq)) > SEQ_MAX:
            raise InputError(f"{text[:_TEXT_MAX]!r} is beyond any position")
        return cls(int(term), int(seq))


START = Position(0, 0)
"""What the first entry of a log follows."""


class Cursor(NamedTuple):
    """How far a log has been read: a position within an incarnation of it."""

    incarnation: str
    position: Position

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        incarnation, dot, position = text.partition(".")
        if not (incarnation and dot):
            raise InputError(f"{text!r} is not a cursor <incarnation>.<term>-<seq>")
        return cls(incarnation, Position.parse(position))

    def told(self) -> list[Any]:
        """As an entry's note carries it: `[incarnation, [term, seq]]`."""
        return [self.incarnation, list(self.position)]

    @classmethod
    def heard(cls, value: Any) -> Self | None:
        """Undo `told`, of a note of somebody else's, which may have any shape; None: no cursor."""
        match value:
            case [str(incarnation), [int(term), int(seq)]] if (
                0 < len(incarnation) <= _INCARNATION_MAX
                and incarnation.isprintable()
                and min(term, seq) >= 0
                and max(term, seq) <= SEQ_MAX
            ):
                return cls(incarnation, Position(term, seq))
            case _:
                return None


class Key(NamedTuple):
    """What a record is called within its kind. Its `zone` is its origin; "" is the global plane.

    Tables are keyed by `packed`: one untracked string instead of a tuple of four, a third of the
    memory and no work for the garbage collector at 100,000 records.
    """

    mesh: str
    zone: str
    namespace: str
    name: str

    @property
    def packed(self) -> str:
        return f"{self.mesh}/{self.zone}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, packed: str) -> Self:
        """Undo `packed`.

        Raises:
            WireError: Not four parts.
        """
        mesh, slash, rest = packed.partition("/")
        zone, slash2, rest = rest.partition("/")
        namespace, slash3, name = rest.partition("/")
        if not (slash and slash2 and slash3) or "/" in name:
            raise WireError(f"{packed!r} is not a key <mesh>/<zone>/<namespace>/<name>")
        # A handful of meshes, zones and namespaces for any number of names.
        return cls(sys.intern(mesh), sys.intern(zone), sys.intern(namespace), name)


def zone_of(packed: str) -> str:
    """The origin zone of a packed key, without splitting the rest."""
    start = packed.find("/") + 1
    return packed[start : packed.find("/", start)]


class ServiceRef(NamedTuple):
    """A service, of whatever kind; of a legacy name as well."""

    kind: str
    key: str


class Change(NamedTuple):
    """One record put (`payload`) or removed (`None`). Applied whole: payloads are never merged."""

    kind: str
    key: str
    payload: bytes | None

    @property
    def size(self) -> int:
        """Bytes that it takes in an entry, at most."""
        return len(self.kind) + len(self.key) + len(self.payload or b"") + _FRAMING_BYTES


def in_parts(changes: Iterable[Change], size: int) -> Iterator[list[Change]]:
    """Cut what is too much for one entry: each part goes beyond `size` bytes by one change at most;
    none if there is nothing.
    """
    part: list[Change] = []
    taken = 0
    for change in changes:
        part.append(change)
        taken += change.size
        if taken > size:
            yield part
            part, taken = [], 0
    if part:
        yield part


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a resource's payload holds; everything that can be derived from its key is left out.

    Computed labels (display name, mesh, zone, origin) are added at the REST edge, since "origin"
    depends on where the record is read (`zonemesh.labels`).
    """

    created_ms: int
    modified_ms: int
    labels: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(
            (self.created_ms, self.modified_ms, self.labels, self.spec), use_bin_type=True
        )
        return packed

    @staticmethod
    def unpack(payload: bytes) -> Record:
        """Read a payload; what it holds is shared, and never to be changed.

        Raises:
            WireError: Not a record. Unknown further elements are allowed and ignored.
        """
        return _unpack(payload)

    def check_foreign(self) -> None:
        """Refuse what JSON cannot say or no clock can show, wherever others' records come in.

        Not part of `unpack`, which every process runs for every record.

        Raises:
            WireError: Not such a record.
        """
        if not (0 <= self.created_ms <= TIME_MS_MAX and 0 <= self.modified_ms <= TIME_MS_MAX):
            raise WireError("malformed record: a time outside the years 1970 to 9999")
        for part in (self.labels, self.spec):
            _check_json(part, DEPTH_MAX)


@lru_cache(maxsize=256)  # deciding, and every index that is told of a change, read it once more
def _unpack(payload: bytes) -> Record:
    try:
        created_ms, modified_ms, labels, spec, *_ = msgpack.unpackb(payload)
    except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
        raise WireError(f"malformed record: {error!r}") from error
    if not (
        type(created_ms) is int
        and type(modified_ms) is int
        and type(labels) is dict
        and type(spec) is dict
    ):
        raise WireError("malformed record: not (int, int, map, map)")
    return Record(created_ms=created_ms, modified_ms=modified_ms, labels=labels, spec=spec)


def _check_json(value: Any, depth: int) -> None:
    if depth < 0:
        raise WireError(f"malformed record: nested deeper than {DEPTH_MAX} levels")
    if type(value) is dict:
        if not all(type(name) is str for name in value):
            raise WireError("malformed record: a map's key is not a string")
        value = value.values()
    elif type(value) is not list:
        if not _is_json_scalar(value):
            raise WireError(f"malformed record: no JSON value: {type(value).__name__}")
        return
    for inner in value:
        _check_json(inner, depth - 1)


def _is_json_scalar(value: Any) -> bool:
    if type(value) is int:
        return _INT_MIN <= value <= _INT_MAX
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (str, bool)
