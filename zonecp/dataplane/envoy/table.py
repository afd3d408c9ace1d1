"""A table whose new entries can be held back: kept, and not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zonecp.dataplane.resolver import Table


class GatedTable(Table):
    """What is held back counts as put for the one who follows the feed or keeps a copy on disk.

    Of a name that is answered and gets other addresses, the former ones are answered meanwhile.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[bytes, bytes] = {}
        self.generation = 0
        """Counts changes of what is answered."""

        self.gate: Callable[[bytes, bytes], bool] = lambda _key, _entry: False
        """Asked of each name and entry that is put whether to hold it back."""

    def put(self, key: bytes, entry: bytes) -> bool:
        if self.held.get(key) == entry:
            return False
        if self._entries.get(key) == entry and key not in self.held:
            return False
        if not self.gate(key, entry):
            self.held.pop(key, None)
            return self._serve(key, entry)
        self.held[key] = entry
        if self.touched is not None:
            self.touched.add(key)
        return True

    def release(self, key: bytes) -> None:
        """Answer what was held back."""
        self._serve(key, self.held.pop(key))

    def remove(self, key: bytes) -> bool:
        held = self.held.pop(key, None) is not None
        removed = super().remove(key)
        self.generation += removed
        return removed or held

    def _serve(self, key: bytes, entry: bytes) -> bool:
        changed = super().put(key, entry)
        self.generation += changed
        return changed

    def keys(self) -> list[bytes]:
        return [*super().keys(), *(key for key in self.held if key not in self._entries)]

    def pick(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        return {key: self.held.get(key, self._entries.get(key)) for key in keys}
