"""How many there are of everything: counted once for as long as nothing of it changes.

100,000 Dataplanes take a second to count, and dashboards ask every few.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from zonemesh.agents import AGENT
from zonemesh.members import DATAPLANE
from zonemesh.model import Key
from zonemesh.resources.kind import Kind, Scope
from zonemesh.rest import insights
from zonemesh.rest.backend import Backend
from zonemesh.runtime.slicing import RECORDS_SLICE, slices

T = TypeVar("T")

Tallies = Mapping[str, insights.Tally]
"""By mesh; a mesh without Dataplanes may have none."""
Totals = Mapping[str, Mapping[str, int]]
"""By kind and mesh; kinds outside of meshes under ""."""


class Latest(Generic[T]):
    """A value made of the state, kept until the state that it was made of has changed.

    Made by one asker at a time; others wait, and take what was made if it is of their state.
    """

    def __init__(self) -> None:
        self._making = asyncio.Lock()
        self._kept: tuple[Hashable, T] | None = None

    async def get(self, version: Callable[[], Hashable], make: Callable[[], Awaitable[T]]) -> T:
        async with self._making:
            now = version()
            if self._kept is None or self._kept[0] != now:
                self._kept = None  # not twice in memory
                # What changes meanwhile may be in it or not, and makes another version.
                self._kept = now, await make()
            return self._kept[1]


class Counting:
    """What is counted of one control plane's state."""

    def __init__(self, backend: Backend, kinds: Sequence[Kind]) -> None:
        self._backend = backend
        self._kinds = [kind for kind in kinds if not kind.read_only]
        self._names = frozenset(kind.name for kind in self._kinds)
        self._tallies: Latest[Tallies] = Latest()
        self._totals: Latest[Totals] = Latest()

    async def dataplanes(self) -> Tallies:
        """Every Dataplane that is shown here."""
        about = frozenset((DATAPLANE, AGENT))
        return await self._tallies.get(lambda: self._backend.version(about), self._tally)

    async def resources(self, mesh: str | None) -> dict[str, int]:
        """How many of each stored kind there are; in a mesh, of those that are in meshes."""
        totals = await self._totals.get(lambda: self._backend.version(self._names), self._total)
        return {
            kind.name: sum(totals[kind.name].values()) if mesh is None else totals[kind.name][mesh]
            for kind in self._kinds
            if mesh is None or kind.scope is Scope.MESH
        }

    async def _tally(self) -> Tallies:
        backend = self._backend
        kind = next(kind for kind in self._kinds if kind.name == DATAPLANE)
        found: defaultdict[str, insights.Tally] = defaultdict(insights.Tally)
        async for part in slices(list(backend.keys(kind, None)), RECORDS_SLICE):
            for packed in part:
                key = Key.parse(packed)
                record = backend.get(kind, key)
                if record is not None:
                    found[key.mesh].add(key, record, backend.connected(packed))
        for tally in found.values():
            async for services in slices(list(tally.services.values())):
                for service in services:
                    tally.service_states[service.type].add(service.state)
        return dict(found)

    async def _total(self) -> Totals:
        found: dict[str, Counter[str]] = {}
        for kind in self._kinds:
            found[kind.name] = Counter()
            async for part in slices(list(self._backend.keys(kind, None))):
                found[kind.name].update(packed[: packed.index("/")] for packed in part)
        return found
