"""What global reads in a zone's stream of the zone itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from zonemesh import formats
from zonemesh.log.port import Head
from zonemesh.model import TIME_MS_MAX, Cursor
from zonemesh.wire import Sealed

TEXT_MAX = 200
"""Characters of what a zone says of itself. It is kept in global's log and repeated there."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a zone has said of itself, and where its stream was read to."""

    cursor: Cursor
    uid: str
    time_ms: int
    lag_ms: int | None = None
    url: str = ""
    version: str = ""
    h: bytes = b""
    """Hash of the entry at the cursor."""
    as_of_s: float | None = None
    """By the leader's monotonic clock, a moment by which the entry had been made; None: no better
    is known than the moment of the decision."""
    own: Cursor | None = None
    """How far the zone's own log is in its stream by then."""
    formats: tuple[int, ...] | None = None
    """Of logs, that the zone reads; None where it has not said."""
    left: bool = False
    """It is the last that the zone says: it has been shut down."""
    lost: Cursor | None = None
    """What the zone had applied of global's log, which does not lead on from there any more."""

    @classmethod
    def of_entry(cls, sealed: Sealed, last: Self | None) -> Self:
        """By an entry; what that leaves out is as in the last report."""
        entry, note = sealed.entry, sealed.entry.note
        known = last or cls(sealed.place.cursor, "", 0)
        return cls(
            cursor=sealed.place.cursor,
            uid=_text(note.get("uid")) or known.uid,
            time_ms=_time_ms(entry.time_ms),
            lag_ms=_time_ms(note["lag_ms"]) if type(note.get("lag_ms")) is int else known.lag_ms,
            url=_text(note.get("url")) or known.url,
            version=_text(note.get("version")) or known.version,
            h=sealed.h,
            formats=formats.said(note["formats"]) if "formats" in note else known.formats,
            own=_own(entry.src) or known.own,
            left=note.get("leave") is True,
        )

    @classmethod
    def of_head(cls, head: Head, cursor: Cursor, h: bytes = b"") -> Self:
        """By a stream's head, where nothing but that was read, or a snapshot at the cursor."""
        return cls(cursor, _text(head.owner), _time_ms(head.time_ms), h=h)


def _own(src: Mapping[str, Cursor]) -> Cursor | None:
    """The one log that an up entry is made from, if its names are of bearable length."""
    for cursor in src.values():
        if _text(cursor.incarnation):
            return cursor
    return None


def _text(value: object) -> str:
    """A zone's word about itself, as far as it can be kept and shown."""
    if isinstance(value, str) and len(value) <= TEXT_MAX and value.isprintable():
        return value
    return ""


def _time_ms(ms: int) -> int:
    return min(max(ms, 0), TIME_MS_MAX)
