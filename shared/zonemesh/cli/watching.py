"""A list looked at again and again, as what has changed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from zonemesh.errors import UnavailableError

EVERY_S = 1.0

Document = Mapping[str, Any]
Identity = tuple[str, str]
"""(mesh, name)"""


class Event(StrEnum):
    ADDED = "Added"
    MODIFIED = "Modified"
    DELETED = "Deleted"


def follow(
    fetch: Callable[[], Iterable[Document]],
    *,
    pause: Callable[[], None],
    tell: Callable[[str], None],
) -> Iterator[list[tuple[Event, Document]]]:
    """What has changed, each time something has, for ever; first of all everything as added.

    Args:
        fetch: The list as it is now.
        pause: Waits between two looks.
        tell: Hears once when the control plane stops answering. What it held stays known, so that
            nothing is taken for deleted meanwhile.
    """
    before: dict[Identity, Document] = {}
    silent = False
    while True:
        try:
            after = {_identity(each): each for each in fetch()}
        except UnavailableError as error:
            if not silent:
                tell(f"{error}; trying again")
            silent = True
        else:
            silent = False
            if events := changes(before, after):
                yield events
            before = after
        pause()


def changes(
    before: Mapping[Identity, Document], after: Mapping[Identity, Document]
) -> list[tuple[Event, Document]]:
    """From one look at a list to the next, in the list's order; what is gone last."""
    found = [
        (Event.MODIFIED if identity in before else Event.ADDED, document)
        for identity, document in after.items()
        if before.get(identity) != document
    ]
    found += [
        (Event.DELETED, document) for identity, document in before.items() if identity not in after
    ]
    return found


def _identity(document: Document) -> Identity:
    return str(document.get("mesh", "")), str(document.get("name", ""))
