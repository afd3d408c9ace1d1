"""Which of two revisions of a zone's map is the older one, from what a server said. Pure."""

from __future__ import annotations

from zonecp.revision import Revision
from zonemesh.errors import InputError


def is_older(offered: str, held: str) -> bool:
    """Whether `offered` is certainly before `held`: no component greater, and one less.

    Other incarnations, unknown forms and mixtures (one component greater, one less) are not: they
    are what a restored or adopted zone looks like, and its map must be taken.
    """
    new, old = parse(offered), parse(held)
    return new is not None and old is not None and new != old and new.within(old)


def own_incarnation(text: str) -> str | None:
    """The zone's own incarnation: another one has forgotten who was registered."""
    revision = parse(text)
    return None if revision is None else revision.own.incarnation


def parse(text: str) -> Revision | None:
    """Read a revision; None if it is of a form that this build does not know."""
    try:
        return Revision.parse(text)
    except InputError:
        return None
