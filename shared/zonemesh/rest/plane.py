"""The half of `Backend` that both control planes have alike: writing, and waiting to read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import MeshError, UnavailableError
from zonemesh.log.leadership import Leadership
from zonemesh.log.writer import cursors_note
from zonemesh.model import Position
from zonemesh.registry import Registry
from zonemesh.rest.backend import NotLeaderError

WRITE_TIMEOUT_S = 10.0
"""Longer than a standby needs to take over: a write that waits for one is answered in time."""


class PlaneBackend:
    """Writes through whoever leads `registry`'s log in this process."""

    def __init__(self, registry: Registry, leadership: Callable[[], Leadership]) -> None:
        self._registry = registry
        self._leadership = leadership
        self._applied = asyncio.Event()

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
