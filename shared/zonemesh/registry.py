"""The state of one log: records by kind, cursors, and a hash that any replica can compare.

Records are held as packed bytes (a decoded MeshService is nine times its size, and a garbage
collection over 100,000 of them stops a process for over a second). What must be found by something
other than its key is found by an `Index`, told of every change.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

from zonemesh.errors import WireError
from zonemesh.model import START, Change, Cursor, Position, zone_of
from zonemesh.wire import FORMAT, NO_HASH, Place, Sealed

SUM_BITS = 128
_SHARED = ("vip.", "Mesh")
"""Beginnings of the kinds whose keys stand in several tables: services and their bindings."""

T = TypeVar("T")


class Index(Protocol):
    """Something derived from records, kept current change by change."""

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        """One record was put, replaced or removed; `old` != `new`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A registry at one position, safe from later changes. Payloads are shared, never copied."""

    meta: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, bytes]]

    def rows(self) -> Iterator[tuple[str, str, bytes]]:
        for kind, table in self.tables.items():
            for key, payload in table.items():
                yield kind, key, payload

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))


class Registry:
    """Records after applying a log up to `position`. Applying any log again gives equal state."""

    def __init__(
        self,
        *,
        keeps: Callable[[str, str], bool] | None = None,
        drops: Callable[[str, bytes], bool] | None = None,
        indexes: Sequence[Index] = (),
    ) -> None:
        """Start empty.

        Args:
            keeps: (kind, key) of what the holder of a copy needs; None keeps everything.
            drops: (kind, payload) of what is not for the holder as it stands: as if it were not
                there, until it changes.
            indexes: Told of every change.
        """
        self._keeps = keeps
        self._drops = drops
        self._indexes = list(indexes)
        self.tables: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.incarnation = ""
        self.position: Position = START
        self.h = NO_HASH
        self.log_time_ms = 0
        self.time_ms = 0
        self.format = FORMAT
        """What the log is written in."""
        self.cursors: dict[str, Cursor] = {}

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.incarnation, self.position)

    @property
    def place(self) -> Place:
        return Place(self.incarnation, self.position, self.h)

    @property
    def digest(self) -> str:
        """The state hash: equal on any two full copies at equal cursors."""
        total = sum(self.sums.values()) % (1 << SUM_BITS)
        return f"{total:032x}"

    def parts(self) -> dict[tuple[str, str], str]:
        """The hash by (kind, origin zone): what a partial copy can compare."""
        return {part: f"{value:032x}" for part, value in sorted(self.sums.items()) if value}

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))

    def add_index(self, index: Index) -> None:
        """Attach an index and tell it of everything that is held already."""
        self._indexes.append(index)
        for kind, table in self.tables.items():
            for key, payload in table.items():
                index.changed(kind, key, None, payload)

    def remove_index(self, index: Index) -> None:
        """Tell an index nothing more."""
        self._indexes.remove(index)

    def get(self, kind: str, key: str) -> bytes | None:
        table = self.tables.get(kind)
        return table.get(key) if table else None

    def table(self, kind: str) -> Mapping[str, bytes]:
        return self.tables.get(kind, {})

    def apply(self, sealed: Sealed) -> None:
        """Take in one entry that follows this state (`replica.check` says whether it does)."""
        entry = sealed.entry
        for change in entry.changes:
            self.put(*change)
        self.incarnation = entry.incarnation
        self.position = entry.position
        self.h = sealed.h
        self.log_time_ms = entry.log_time_ms
        self.time_ms = entry.time_ms
        self.format = max(self.format, sealed.format)
        self.cursors.update(entry.src)

    def freeze(self) -> Frozen:
        return Frozen(meta=self._meta(), tables=self._copied())

    def _copied(self) -> dict[str, dict[str, bytes]]:
        return {kind: table.copy() for kind, table in self.tables.items() if table}

    def _meta(self) -> dict[str, Any]:
        return {
            "incarnation": self.incarnation,
            "position": list(self.position),
            "h": self.h,
            "log_time_ms": self.log_time_ms,
            "time_ms": self.time_ms,
            "format": self.format,
            "cursors": {log: [inc, list(pos)] for log, (inc, pos) in self.cursors.items()},
            "digest": self.digest,
        }

    def frozen_after(self, sealed: Sealed) -> Frozen:
        """As of after an entry, which is not applied: it may be refused yet."""
        entry = sealed.entry
        tables = self._copied()
        total = int(self.digest, 16)
        for kind, key, payload in entry.changes:
            table = tables.setdefault(kind, {})
            old = table.pop(key, None)
            if old is not None:
                total -= record_hash(kind, key, old)
            if payload is not None:
                table[key] = payload
                total += record_hash(kind, key, payload)
        meta = {
            **self._meta(),
            "incarnation": entry.incarnation,
            "position": list(entry.position),
            "h": sealed.h,
            "log_time_ms": entry.log_time_ms,
            "time_ms": entry.time_ms,
            "format": max(self.format, sealed.format),
            "digest": f"{total % (1 << SUM_BITS):032x}",
        }
        return Frozen(meta=meta, tables=tables)

    @property
    def blank(self) -> bool:
        """Whether nothing was ever taken in."""
        return self.incarnation == "" and not any(self.tables.values())

    def empty(self) -> Registry:
        """A registry that keeps what this one keeps, holding nothing and without indexes."""
        return Registry(keeps=self._keeps, drops=self._drops)

    def verify(self, meta: Mapping[str, Any]) -> None:
        """Take the place of a snapshot whose rows were all `put`.

        Not before: whoever is broken off between rows must not stand where only all of them lead.

        Raises:
            WireError: `meta` lacks a field or has one of the wrong shape, or this full copy is not
                what the snapshot's writer held.
        """
        if self._keeps is None and meta.get("digest") != self.digest:
            raise WireError("a snapshot's rows are not those of its digest")
        self.stand(meta)

    def stand(self, meta: Mapping[str, Any]) -> None:
        """Take a place; the rows that are held must be those that lead there.

        Raises:
            WireError: `meta` lacks a field or has one of the wrong shape.
        """
        try:
            cursor = _cursor(meta["incarnation"], meta["position"])
            h = _typed(meta["h"], bytes)
            log_time_ms = _typed(meta["log_time_ms"], int)
            time_ms = _typed(meta["time_ms"], int)
            version = _typed(meta.get("format", FORMAT), int)
            cursors = {_typed(log, str): _cursor(*each) for log, each in meta["cursors"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WireError(f"malformed snapshot: {error!r}") from error
        self.incarnation, self.position = cursor
        self.h, self.cursors = h, cursors
        self.log_time_ms, self.time_ms, self.format = log_time_ms, time_ms, version

    def become(self, fresh: Registry) -> None:
        """Turn into another registry of the same filter, telling indexes only what differs."""
        if fresh is self:
            return
        # One by one: an index that looks at another record finds it as it was told of it last.
        for change in difference(self.tables, fresh.tables):
            self.put(*change)
        # Of a record that was damaged in memory, the sums here are not what `put` took them for.
        self.sums = fresh.sums
        self.incarnation, self.position, self.h = fresh.incarnation, fresh.position, fresh.h
        self.log_time_ms, self.time_ms = fresh.log_time_ms, fresh.time_ms
        self.format = fresh.format
        self.cursors = fresh.cursors

    def put(self, kind: str, key: str, payload: bytes | None) -> None:
        """Set or remove one record; for snapshots and `apply`, which alone know the order."""
        if self._keeps is not None and not self._keeps(kind, key):
            return
        if self._drops is not None and payload is not None and self._drops(kind, payload):
            payload = None
        table = self.tables[kind]
        old = table.get(key)
        if old == payload:
            return
        part = kind, zone_of(key)
        total = self.sums[part]
        if old is not None:
            total -= record_hash(kind, key, old)
        if payload is None:
            del table[key]
        else:
            if old is None and kind.startswith(_SHARED):
                # Also the key of the service, and in maps and ledgers: held once.
                key = sys.intern(key)
            table[key] = payload
            total += record_hash(kind, key, payload)
        self.sums[part] = total % (1 << SUM_BITS)
        for index in self._indexes:
            index.changed(kind, key, old, payload)


def _cursor(incarnation: Any, position: Any) -> Cursor:
    term, seq = position
    return Cursor(_typed(incarnation, str), Position(_typed(term, int), _typed(seq, int)))


def _typed(value: Any, wanted: type[T]) -> T:
    if type(value) is not wanted:  # isinstance would take true for 1
        raise TypeError(f"{value!r} is not of {wanted}")
    return value


def record_hash(kind: str, key: str, payload: bytes) -> int:
    # Lengths are not needed: neither kinds nor keys may hold a NUL, and the payload comes last.
    digest = blake2b(b"%b\0%b\0%b" % (kind.encode(), key.encode(), payload), digest_size=16)
    return int.from_bytes(digest.digest(), "big")


def difference(
    old: Mapping[str, Mapping[str, bytes]], new: Mapping[str, Mapping[str, bytes]]
) -> list[Change]:
    """The changes that turn one set of records into another: puts first, removals last.

    Removals come last so that whoever applies them in bounded pieces never shows less than both.
    """
    puts = [
        Change(kind, key, payload)
        for kind, table in new.items()
        for key, payload in table.items()
        if old.get(kind, {}).get(key) != payload
    ]
    removals = [
        Change(kind, key, None)
        for kind, table in old.items()
        for key in table
        if key not in new.get(kind, {})
    ]
    return puts + removals
