"""The changes of the entry being decided, seen over the state that they will follow."""

from __future__ import annotations

import msgpack

from zonemesh.model import Change
from zonemesh.registry import Registry

_CHANGE_OVERHEAD_BYTES = 12
"""msgpack headers of one change; only bounds the size, so a guess on the safe side will do."""

COUNTER = "counter"
"""Kind of the records that numbers are drawn from."""


class Draft:
    """Net changes: a key put twice, or put back to what it was, costs at most one change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changes: dict[tuple[str, str], bytes | None] = {}
        self.bytes = 0
        """Upper bound of what `changes` will take in an entry."""

    def get(self, kind: str, key: str) -> bytes | None:
        if (kind, key) in self._changes:
            return self._changes[kind, key]
        return self._registry.get(kind, key)

    def set(self, kind: str, key: str, payload: bytes | None) -> bool:
        """Put or remove a record; False if that leaves it as it stands."""
        if self.get(kind, key) == payload:
            return False
        if self._registry.get(kind, key) == payload:
            del self._changes[kind, key]
            return True
        if (kind, key) not in self._changes:
            self.bytes += len(kind) + len(key) + _CHANGE_OVERHEAD_BYTES
        self.bytes += len(payload or b"")
        self._changes[kind, key] = payload
        return True

    def draw(self, counter: str, count: int = 1) -> int:
        """Take the next `count` numbers of a counter; answers the first. Never given twice."""
        key = f"///{counter}"
        packed = self.get(COUNTER, key)
        first: int = 1 if packed is None else msgpack.unpackb(packed)
        self.set(COUNTER, key, msgpack.packb(first + count))
        return first

    def skip(self, counter: str, number: int) -> None:
        """Let a counter go on after a number that was drawn from it before it was lost."""
        key = f"///{counter}"
        packed = self.get(COUNTER, key)
        if number >= (1 if packed is None else msgpack.unpackb(packed)):
            self.set(COUNTER, key, msgpack.packb(number + 1))

    def changes(self) -> list[Change]:
        return [Change(kind, key, payload) for (kind, key), payload in self._changes.items()]

    def touched(self, kind: str) -> list[str]:
        return [key for each, key in self._changes if each == kind]
