"""The digests of copies that hold parts of a state, by whoever holds all of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from zonemesh.model import zone_of
from zonemesh.registry import SUM_BITS, Registry, record_hash


class Parts:
    """An index of a whole state: the digests of copies that keep parts of it."""

    def __init__(self, registry: Registry, drops: Callable[[str, bytes], bool]) -> None:
        """`drops`: as of the copies; what they hold as if it were not there."""
        self._registry = registry
        self._drops = drops
        self._dropped: defaultdict[tuple[str, str], int] = defaultdict(int)
        registry.add_index(self)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        for payload, sign in ((old, -1), (new, 1)):
            if payload is not None and self._drops(kind, payload):
                self._dropped[kind, zone_of(key)] += sign * record_hash(kind, key, payload)

    def digest(self, keeps: Callable[[str, str], bool]) -> str:
        """Of a copy that keeps a kind and zone wholly or not at all."""
        total = sum(
            value - self._dropped.get((kind, zone), 0)
            for (kind, zone), value in self._registry.sums.items()
            if value and keeps(kind, f"/{zone}//")
        )
        return f"{total % (1 << SUM_BITS):032x}"
