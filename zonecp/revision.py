"""How far a zone's map goes: a place in each of the two logs that it is made of. Pure.

    revision = own incarnation "." term "-" seq "~" global incarnation "." term "-" seq

Opaque to clients but for this: places of the same incarnations can be compared. A zone that has
read nothing of a global has an empty incarnation there (`.0-0`).
"""

from __future__ import annotations

from typing import NamedTuple

from zonemesh.errors import InputError
from zonemesh.model import Cursor


class Revision(NamedTuple):
    """Where both registries stood: opaque to clients, ordered for us."""

    own: Cursor
    copy: Cursor

    def __str__(self) -> str:
        return f"{self.own}~{self.copy}"

    @classmethod
    def parse(cls, text: str) -> Revision:
        own, tilde, copy = text.partition("~")
        if not tilde:
            raise InputError(f"{text!r} is not a revision")
        return cls(Cursor.parse(own), _cursor(copy))

    def ahead_of(self, other: Revision) -> bool:
        """Whether a component is beyond the other's, in the same incarnation."""
        return any(
            mine.incarnation == theirs.incarnation and mine.position > theirs.position
            for mine, theirs in zip(self, other, strict=True)
        )

    def within(self, other: Revision) -> bool:
        """Whether whoever has applied the other has applied all of this."""
        return self.comparable(other) and not self.ahead_of(other)

    def comparable(self, other: Revision) -> bool:
        return all(
            mine.incarnation == theirs.incarnation for mine, theirs in zip(self, other, strict=True)
        )


def _cursor(text: str) -> Cursor:
    # A zone that follows no global has an empty incarnation there: ".0-0".
    if text.startswith("."):
        return Cursor("", Cursor.parse("x" + text).position)
    return Cursor.parse(text)
