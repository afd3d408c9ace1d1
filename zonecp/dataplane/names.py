"""What the feed's follower and the copy on disk need of the names of a mesh."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Names(Protocol):
    """Entries by key, as `wire_entry` and `wire_name` make them; a `Table` is the plainest."""

    loaded: bool
    """A map has been put here, whole."""

    complete: bool
    """... and the zone has confirmed it since the start."""

    touched: set[bytes] | None
    """While not None: keys that were put or removed."""

    def __len__(self) -> int: ...

    def set_domains(self, domains: Iterable[str]) -> None: ...

    def put(self, key: bytes, entry: bytes) -> bool:
        """Returns whether that changed anything."""

    def remove(self, key: bytes) -> bool:
        """Returns whether it was there."""

    def keys(self) -> list[bytes]: ...

    def pick(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The entries of these keys; None for those that are gone."""
