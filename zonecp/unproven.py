"""What is written to a zone's log before that has proven to hold all that was published of it.

A log that is an old backup, or begins anew, lacks what is known elsewhere, and what is known there
lacks what is written here from now on. No clock tells the two apart: so whatever users and agents
write is marked, a removal too, until the log has proven whole or the zone has adopted what it
lacks. Then what is marked holds, and of everything else what is known elsewhere. Marks are records:
they outlive the process.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import msgpack

from zonemesh.draft import Draft
from zonemesh.model import START, Cursor, Position
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import UNPROVEN

MARK = "written."
"""Begins the kind of a mark; its key is the record's."""


class Unproven(NamedTuple):
    """From where on a zone's log may lack something."""

    end: Position
    """The last entry from before: who knows the log up to it knows all that is not marked."""
    marked: bool
    """Whether marks were made from there on. If not, nothing is removed for being unknown."""

    @classmethod
    def of(cls, registry: Registry | Draft, zone: str) -> Self | None:
        packed = registry.get(UNPROVEN, zone_key(zone))
        if packed is None:
            return None
        term, seq, marked = msgpack.unpackb(packed)
        return cls(Position(term, seq), marked)

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb((*self.end, self.marked))
        return packed

    def known_by(self, cursor: Cursor | None, incarnation: str) -> bool:
        """Whether whoever has read this log to a cursor knows whatever is not marked."""
        if cursor is None or cursor.incarnation != incarnation:
            return False
        return self.marked and cursor.position >= self.end


class Marks:
    """One decision's view of the marks."""

    def __init__(self, draft: Draft, registry: Registry, zone: str) -> None:
        self.beyond = START
        """Older ones count no more: they are of a backup, and what they mark is known."""
        self._draft = draft
        self._registry = registry
        self._zone = zone

    def begin(self, end: Position, *, stale: bool, foreign: bool) -> None:
        """A term begins where the log ended. `stale`: that is known to lack something; `foreign`:
        as it is another one's than what is known elsewhere.
        """
        former = Unproven.of(self._draft, self._zone)
        if former is None:
            former = Unproven(end, marked=not stale)  # who knows since when it has been an old one
        self._set(former._replace(marked=former.marked and not foreign).pack())

    def proven(self) -> None:
        self._set(None)

    def _set(self, payload: bytes | None) -> None:
        self._draft.set(UNPROVEN, zone_key(self._zone), payload)

    def note(self, kind: str, key: str, *, gone: bool) -> None:
        """A user or an agent has written a record, even if nothing changed by it."""
        if self._draft.get(UNPROVEN, zone_key(self._zone)) is not None:
            term, seq = self._registry.position
            self._draft.set(MARK + kind, key, msgpack.packb((term, seq + 1, gone)))

    def is_put(self, kind: str, key: str) -> bool:
        return self._was_removed(kind, key) is False

    def is_removed(self, kind: str, key: str) -> bool:
        return self._was_removed(kind, key) is True

    def _was_removed(self, kind: str, key: str) -> bool | None:
        packed = self._draft.get(MARK + kind, key)
        if packed is None:
            return None
        term, seq, gone = msgpack.unpackb(packed)
        return bool(gone) if Position(term, seq) > self.beyond else None

    def forget(self, bytes_max: int) -> bool:
        """Remove marks that nobody needs any more, as many as fit; True if some are left."""
        if self._draft.get(UNPROVEN, zone_key(self._zone)) is not None:
            return False
        for kind, table in self._registry.tables.items():
            if kind.startswith(MARK):
                for key in table:
                    if self._draft.bytes >= bytes_max:
                        return True
                    self._draft.set(kind, key, None)
        return False
