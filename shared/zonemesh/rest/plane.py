"""The half of `Backend` that both control planes have alike: writing, and waiting to read it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import MeshError, UnavailableError
from zonemesh.ipam import Ledger
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.writer import cursors_note
from zonemesh.model import Key, Position, Record
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Kind
from zonemesh.rest.backend import NotLeaderError
from zonemesh.rest.naming import Namespaces
from zonemesh.rest.ordering import Orders

WRITE_TIMEOUT_S = 10.0
"""Longer than a standby needs to take over: a write that waits for one is answered in time."""


class PlaneBackend(ABC):
    """Writes through whoever leads `registry`'s log in this process."""

    deciding: Collection[str] = ()
    """Kinds whose records decide which keys of other kinds there are here."""

    def __init__(self, registry: Registry, leadership: Callable[[], Leadership]) -> None:
        self._registry = registry
        self._orders = Orders(lambda kind: self.keys(KINDS[kind], None), deciding=self.deciding)
        self._namespaces = Namespaces()
        self._index(registry)
        self._leadership = leadership
        self._applied = asyncio.Event()

    def _index(self, registry: Registry) -> None:
        registry.add_index(self._orders)
        registry.add_index(self._namespaces)

    @abstractmethod
    def get(self, kind: Kind, key: Key) -> Record | None: ...

    @abstractmethod
    def keys(self, kind: Kind, mesh: str | None) -> Iterable[str]: ...

    async def ordered(self, kind: Kind) -> Sequence[str]:
        return await self._orders.of(
            kind.name, lambda packed: self.get(kind, Key.parse(packed)) is not None
        )

    async def write(self, items: Sequence[Put | Delete]) -> Sequence[Written | MeshError]:
        writer = self._leadership().writer
        if writer is None:
            raise NotLeaderError("this control plane does not lead (yet); try again")
        waiting = [writer.enqueue(item) for item in items]
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                return list(await asyncio.gather(*waiting))
        except TimeoutError as error:
            raise UnavailableError(
                "the log has not taken this write in time; it may still be committed"
            ) from error

    def leader_url(self) -> str | None:
        leadership = self._leadership()
        if leadership.writer is not None:
            return None
        return leadership.leading_url or ""

    async def wait_applied(self, position: Position, *, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self._registry.position < position:
                    await self._applied.wait()
        except TimeoutError:
            return False
        return True

    def version(self, kinds: Collection[str]) -> Hashable:
        return fingerprint(self._registry, kinds)

    def applied(self) -> None:
        """Told after entries were applied: wakes whoever waits for a position."""
        applied, self._applied = self._applied, asyncio.Event()
        applied.set()


def describe_pools(ledgers: Mapping[str, Ledger], zones: Iterable[str]) -> dict[str, Any]:
    """How full pools are, by pool and zone; "" is global's own part. For `GET /_state`."""
    places = list(zones)
    return {
        pool: {
            zone: usage._asdict()
            for zone in places
            if (usage := ledger.usage(zone)).blocks or usage.used or usage.waiting
        }
        for pool, ledger in ledgers.items()
    }


def describe_reader(follower: Follower) -> dict[str, Any]:
    """What following another's log has met, for `GET /_state`."""
    return {
        "resyncs": dict(follower.resyncs),
        "halted": follower.halted,
        "mismatches": follower.agreement.mismatches,
        "mismatch": follower.agreement.unmended,
    }


def fingerprint(registry: Registry, kinds: Collection[str]) -> Hashable:
    """What any change of a record of these kinds makes another: their parts of the state hash."""
    return frozenset(part for part in registry.sums.items() if part[0][0] in kinds)


def describe_registry(registry: Registry) -> dict[str, Any]:
    """A registry's part of `GET /_state`."""
    parts: Mapping[tuple[str, str], str] = registry.parts()
    return {
        "cursor": str(registry.cursor),
        "digest": registry.digest,
        "parts": {f"{kind}/{zone}": value for (kind, zone), value in parts.items()},
        "cursors": cursors_note(registry.cursors),
        "log_time_ms": registry.log_time_ms,
        "records": {kind: len(table) for kind, table in registry.tables.items() if table},
    }
