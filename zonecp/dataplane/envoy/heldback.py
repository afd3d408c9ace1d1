"""The names of the feed, of which a table answers only those that are not held back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zonecp.dataplane.resolver import Table


class HeldBack:
    """Stands for the table before the follower and the copy on disk: for them nothing is held back.

    Of a name that is answered and gets other addresses, the former ones are answered meanwhile.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.touched: set[bytes] | None = None
        self.held: dict[bytes, bytes] = {}
        """What is not in the table yet."""

        self.gate: Callable[[bytes, bytes], bool] = lambda _key, _entry: False
        """Asked of each key and entry that is put whether to hold it back."""

    @property
    def loaded(self) -> bool:
        return self.table.loaded

    @loaded.setter
    def loaded(self, loaded: bool) -> None:
        self.table.loaded = loaded

    @property
    def complete(self) -> bool:
        return self.table.complete

    @complete.setter
    def complete(self, complete: bool) -> None:
        self.table.complete = complete

    def __len__(self) -> int:
        return len(self.table) + sum(self.table.get(key) is None for key in self.held)

    def set_domains(self, domains: Iterable[str]) -> None:
        self.table.set_domains(domains)

    def put(self, key: bytes, entry: bytes) -> bool:
        if self.held.get(key, self.table.get(key)) == entry:
            return False
        if self.touched is not None:
            self.touched.add(key)
        if entry != self.table.get(key) and self.gate(key, entry):
            self.held[key] = entry
        else:
            self.held.pop(key, None)
            self.table.put(key, entry)
        return True

    def release(self, key: bytes) -> None:
        """Answer what was held back."""
        self.table.put(key, self.held.pop(key))

    def remove(self, key: bytes) -> bool:
        if self.touched is not None:
            self.touched.add(key)
        held = self.held.pop(key, None) is not None
        return self.table.remove(key) or held

    def keys(self) -> list[bytes]:
        return [*self.table.keys(), *(key for key in self.held if self.table.get(key) is None)]

    def pick(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        return {key: self.held.get(key, self.table.get(key)) for key in keys}
