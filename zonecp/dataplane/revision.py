"""Which of two revisions of a zone's map is the older one. Pure.

    revision = own incarnation "." term "-" seq "~" global incarnation "." term "-" seq

It is opaque but for this: positions of the same incarnations can be compared.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from zonemesh.errors import InputError
from zonemesh.model import Cursor


class Revision(NamedTuple):
    own: Cursor
    above: Cursor
    """How far the zone has read global's log."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a revision; None if it is of a form that this build does not know."""
        own, _, above = text.partition("~")
        try:
            return cls(Cursor.parse(own), Cursor.parse(above))
        except InputError:
            return None


def is_older(offered: str, held: str) -> bool:
    """Whether `offered` is certainly before `held`: no component greater, and one less.

    Other incarnations, unknown forms and mixtures (one component greater, one less) are not: they
    are what a restored or adopted zone looks like, and its map must be taken.
    """
    new, old = Revision.parse(offered), Revision.parse(held)
    if new is None or old is None:
        return False
    if new.own.incarnation != old.own.incarnation:
        return False
    if new.above.incarnation != old.above.incarnation:
        return False
    positions = (new.own.position, new.above.position), (old.own.position, old.above.position)
    return positions[0] != positions[1] and all(a <= b for a, b in zip(*positions, strict=True))


def own_incarnation(text: str) -> str | None:
    """The zone's own incarnation: another one has forgotten who was registered."""
    revision = Revision.parse(text)
    return None if revision is None else revision.own.incarnation
