"""Where objects of a kind are read from: a table of the log, or what others' records amount to.

Handlers ask `source` and never care which. A kind that is computed has a line in `_COMPUTED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zonemesh.model import Key, Record
from zonemesh.resources.kind import Kind
from zonemesh.rest import insights, naming, ordering
from zonemesh.rest.api import Api
from zonemesh.rest.backend import Backend, Found
from zonemesh.runtime.slicing import RECORDS_SLICE, slices


class Source(Protocol):
    """Objects of one kind. Between `keys` and `read` some may go."""

    async def keys(self, mesh: str | None) -> Sequence[str]:
        """Packed keys in the order of lists; of every mesh if None."""

    async def read(self, keys: Sequence[Key]) -> Sequence[Found]:
        """Those that are there still, in this order."""

    def resolve(self, mesh: str, name: str) -> Key | None:
        """The key of what is called so here, if that can be; `read` says whether it is there."""


def source(api: Api, kind: Kind) -> Source:
    make = _COMPUTED.get(kind.name)
    return Stored(api.backend, kind) if make is None else make(api)


@dataclass(frozen=True, slots=True)
class Stored:
    """A table."""

    backend: Backend
    kind: Kind

    async def keys(self, mesh: str | None) -> Sequence[str]:
        keys = await self.backend.ordered(self.kind)
        return keys if mesh is None else ordering.of_mesh(keys, mesh)

    async def read(self, keys: Sequence[Key]) -> Sequence[Found]:
        records = ((key, self.backend.get(self.kind, key)) for key in keys)
        return [Found(key, record) for key, record in records if record is not None]

    def resolve(self, mesh: str, name: str) -> Key | None:
        return naming.resolve(self.backend, self.kind, mesh, name)


@dataclass(frozen=True, slots=True)
class PerObject:
    """One object for each object of another kind that something is known of, under its key."""

    of: Stored
    about: Callable[[Key], Mapping[str, Any] | None]

    async def keys(self, mesh: str | None) -> Sequence[str]:
        known: list[str] = []
        async for part in slices(await self.of.keys(mesh), RECORDS_SLICE):
            known += [packed for packed in part if self.about(Key.parse(packed)) is not None]
        return known

    async def read(self, keys: Sequence[Key]) -> Sequence[Found]:
        known = ((each, self.about(each.key)) for each in await self.of.read(keys))
        return [_made_of(each, spec) for each, spec in known if spec is not None]

    def resolve(self, mesh: str, name: str) -> Key | None:
        return self.of.resolve(mesh, name)


@dataclass(frozen=True, slots=True)
class MeshInsights:
    """One for each mesh."""

    api: Api

    async def keys(self, mesh: str | None) -> Sequence[str]:
        return await self._meshes().keys(mesh)

    async def read(self, keys: Sequence[Key]) -> Sequence[Found]:
        return [
            _made_of(each, await self._about(each.key.name))
            for each in await self._meshes().read(keys)
        ]

    def resolve(self, mesh: str, name: str) -> Key | None:
        return self._meshes().resolve(mesh, name)

    def _meshes(self) -> Stored:
        return Stored(self.api.backend, self.api.kinds["Mesh"])

    async def _about(self, mesh: str) -> dict[str, Any]:
        tallies = await self.api.counting.dataplanes()
        tally = tallies.get(mesh) or insights.Tally()
        return insights.mesh(tally, await self.api.counting.resources(mesh))


@dataclass(frozen=True, slots=True)
class ServiceInsights:
    """One for each `kuma.io/service` that Dataplanes of a mesh name, of whatever zone."""

    api: Api

    async def keys(self, mesh: str | None) -> Sequence[str]:
        tallies = await self.api.counting.dataplanes()
        found: list[str] = []
        for each in tallies if mesh is None else {mesh} & tallies.keys():
            async for names in slices(list(tallies[each].services)):
                found += [Key(each, "", "", name).packed for name in names if "/" not in name]
        return await ordering.ordered(found)

    async def read(self, keys: Sequence[Key]) -> Sequence[Found]:
        tallies = await self.api.counting.dataplanes()
        services = (
            (key, tallies[key.mesh].services.get(key.name) if key.mesh in tallies else None)
            for key in keys
        )
        return [
            Found(
                key,
                Record(
                    created_ms=service.created_ms,
                    modified_ms=service.modified_ms,
                    spec=insights.service(key.name, service),
                ),
            )
            for key, service in services
            if service is not None
        ]

    def resolve(self, mesh: str, name: str) -> Key | None:
        return Key(mesh, "", "", name)


def _made_of(base: Found, spec: Mapping[str, Any]) -> Found:
    """An object that came and changes with another one."""
    record = base.record
    return Found(
        base.key, Record(created_ms=record.created_ms, modified_ms=record.modified_ms, spec=spec)
    )


def _zone_insights(api: Api) -> Source:
    zones = Stored(api.backend, api.kinds["Zone"])
    return PerObject(zones, lambda key: api.backend.insight(key.name))


def _dataplane_insights(api: Api) -> Source:
    def about(key: Key) -> Mapping[str, Any] | None:
        agent = api.backend.connected(key.packed)
        return None if agent is None else insights.dataplane(agent)

    return PerObject(Stored(api.backend, api.kinds["Dataplane"]), about)


_COMPUTED: Mapping[str, Callable[[Api], Source]] = {
    "ZoneInsight": _zone_insights,
    "DataplaneInsight": _dataplane_insights,
    "MeshInsight": MeshInsights,
    "ServiceInsight": ServiceInsights,
}
"""Kinds that no log has, by name."""
