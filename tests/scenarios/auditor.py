"""What no control plane may ever do with an address."""

from __future__ import annotations

from collections.abc import Callable

from zonemesh.ipam import Binding, ipv4_text, pool_of
from zonemesh.registry import Index, Registry


class Auditor:
    """An index on every registry there is: a key has one address for ever, and it alone has it.

    For ever, since the usual quarantine is longer than any scenario.
    """

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._address_of: dict[tuple[str, str], int] = {}
        self._holder_of: dict[int, tuple[str, str]] = {}
        self.reuse = False
        """The scenario's quarantine ends: addresses may find other keys."""

    def of(self, name: str, registry: Registry) -> Index:
        """The index for one registry of a node."""
        del name, registry
        return self

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        pool = pool_of(kind)
        if pool is None or new is None or self.reuse:
            return
        binding = Binding.unpack(new)
        if binding.address is None:
            return
        place = pool, key
        address = self._address_of.setdefault(place, binding.address)
        if address != binding.address:
            self._fail(f"{key} moved from {ipv4_text(address)} to {ipv4_text(binding.address)}")
        holder = self._holder_of.setdefault(binding.address, place)
        if holder != place:
            self._fail(f"{ipv4_text(binding.address)} of {holder[1]} was given to {key}")
