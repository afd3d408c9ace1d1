"""What the REST layer reads from and writes to on a zone's control plane."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgpack

from zonecp.replicas import Replicas
from zonecp.state import ZoneState
from zonemesh import status
from zonemesh.agents import AgentNote
from zonemesh.hostnames import Outcome
from zonemesh.ipam import Binding, vip_kind
from zonemesh.labels import GRACE_STARTED_AT
from zonemesh.log.leadership import Leadership
from zonemesh.lostzones import as_served
from zonemesh.model import Key, Record, ServiceRef, zone_of
from zonemesh.registry import Registry
from zonemesh.resources.kind import Kind
from zonemesh.rest.backend import Found
from zonemesh.rest.document import rfc3339
from zonemesh.rest.plane import (
    PlaneBackend,
    describe_pools,
    describe_registry,
    fingerprint,
)
from zonemesh.travel import GRACE, SEEN
from zonemesh.vipmap import VipMap
from zonemesh.wire import known

DEFAULT_MESH = "default"


class ZoneBackend(PlaneBackend):
    """`rest.backend.Backend` over a zone's own registry and its copy of global's."""

    on_global = False
    deciding = ("Zone",)  # whether it is disabled

    def __init__(
        self,
        state: ZoneState,
        copy: Registry,
        vipmap: VipMap,
        leadership: Callable[[], Leadership],
        *,
        lag_s: Callable[[], float],
        uplink_refused: Callable[[], str | None],
        own_lag_s: Callable[[], float | None] = lambda: 0.0,
        replicas: Replicas | None = None,
        over_quota: Callable[[], str | None] = lambda: None,
        held_back: Callable[[], str | None] = lambda: None,
        about: Callable[[], Mapping[str, Any]] = dict,
        unread: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`replicas`: None for a control plane whose log nobody else can write; `about`: what the
        process says of itself in `GET /_state`; `unread`: see `unread`.
        """
        super().__init__(state.registry, leadership)
        self._state = state
        self._copy = copy
        self._index(copy)
        self._vipmap = vipmap
        self._lag_s = lag_s
        self._own_lag_s = own_lag_s
        self._uplink_refused = uplink_refused
        self._over_quota = over_quota
        self._held_back = held_back
        self._about = about
        self._unread = unread
        self._replicas = replicas

    @property
    def zone(self) -> str:
        return self._state.zone

    @property
    def federated(self) -> bool:
        return self._state.federated

    def get(self, kind: Kind, key: Key) -> Record | None:
        if key.zone == self.zone or not self.federated:
            packed = self._state.registry.get(kind.name, key.packed)
            return None if packed is None else self._own(key, Record.unpack(packed))
        packed = self._copy.get(kind.name, key.packed) if self._shown(kind, key.zone) else None
        if packed is None:
            return None
        effect = self._vipmap.others.effect(ServiceRef(kind.name, key.packed))
        return as_served(Record.unpack(packed), effect)

    def _own(self, key: Key, record: Record) -> Record:
        """A record of this zone's, with the label that says since when its Dataplanes are gone."""
        noted = self._state.registry.get(GRACE, key.packed)
        if noted is None:
            return record
        registry = self._state.registry
        ago_ms = registry.log_time_ms - msgpack.unpackb(noted)
        since = rfc3339(registry.time_ms - ago_ms)
        return replace(record, labels={**record.labels, GRACE_STARTED_AT: since})

    def _shown(self, kind: Kind, origin: str) -> bool:
        """Whether Kuma would have this copy in a zone's store: Dataplanes are endpoints only, and
        of a zone that an operator took out nothing is left.
        """
        if origin:
            return kind.across and not self._vipmap.others.is_out(origin)
        return kind.down

    def keys(self, kind: Kind, mesh: str | None) -> Iterator[str]:
        prefix = "" if mesh is None else f"{mesh}/"
        for key in self._state.registry.table(kind.name):
            if key.startswith(prefix):
                yield key
        for key in self._copy.table(kind.name):
            if key.startswith(prefix) and self._shown(kind, zone_of(key)):
                yield key

    def version(self, kinds: Collection[str]) -> Hashable:
        return super().version(kinds), fingerprint(self._copy, kinds)

    def origins(self, kind: Kind) -> Iterable[tuple[str, str]]:
        yield self.zone, ""
        yield "", ""
        for key in self._copy.table(SEEN):
            if zone_of(key) != self.zone:
                yield zone_of(key), ""
        yield from self._namespaces.of(kind.name)

    def unread(self) -> str | None:
        return self._unread()

    def mesh_exists(self, mesh: str) -> bool:
        if self._copy.get("Mesh", Key("", "", "", mesh).packed) is not None:
            return True
        if self._state.registry.get("Mesh", Key("", self.zone, "", mesh).packed) is not None:
            return True  # made in a zone that follows no global
        # A zone that has never heard from global takes registrations in the mesh that global
        # will most likely have; a zone without a global has it.
        known = self._copy.incarnation != ""
        return mesh == DEFAULT_MESH and not known

    def status(self, kind: Kind, found: Found) -> Mapping[str, Any] | None:
        if not kind.pool:
            return None
        ref = ServiceRef(kind.name, found.key.packed)
        own = found.key.zone == self.zone
        packed = (self._state.registry if own else self._copy).get(vip_kind(kind.name), ref.key)
        return status.of_service(
            kind.name,
            binding=None if packed is None else Binding.unpack(packed),
            outcomes=self._vipmap.outcomes(ref),
            shortage=self._shortage(found.key.zone, kind.name),
            members=lambda: self.members(found),
            matched=lambda: [Key.parse(key) for key in self._vipmap.outbounds.matched(ref)],
            agent=self.connected,
            effect=self._vipmap.others.effect(ref),
        )

    def members(self, found: Found) -> list[tuple[str, Record]]:
        return self._vipmap.outbounds.members(ServiceRef("MeshService", found.key.packed))

    def _shortage(self, zone: str, pool: str) -> str | None:
        """Why a service here waits for an address; global says it of other zones'."""
        why = self._state.shortages.get(pool) if zone == self.zone else None
        if why is None or not self.federated:
            return why
        return f"{why}; global has leased this zone no further block yet"

    def address(self, kind: Kind, key: Key, zone: str) -> int | None:
        return self._vipmap.address(ServiceRef(kind.name, key.packed))

    def insight(self, zone: str) -> None:
        return None

    def connected(self, key: str) -> AgentNote | None:
        return AgentNote.of(self._state.registry, key)

    def outcomes(self, kind: Kind, found: Found) -> Mapping[str, Sequence[Outcome]]:
        return {self.zone: self._vipmap.outcomes(ServiceRef(kind.name, found.key.packed))}

    def leader_url(self) -> str | None:
        return None if self._replicas is None else super().leader_url()

    def describe(self) -> Mapping[str, Any]:
        return {
            "zone": self.zone,
            "own": describe_registry(self._state.registry),
            "global": describe_registry(self._copy),
            "adopted": self._state.adopted,
            "lag_s": round(self._lag_s(), 3),
            "leader": self._leadership().writer is not None,
            "uplink_refused": self._uplink_refused(),
            "formats": {
                "own": self._state.registry.format,
                "global": self._copy.format,
                "readable": list(known()),
            },
            "over_quota": self._over_quota(),
            "held_back": self._held_back(),
            "term": self._state.registry.position.term,
            "uid": self._state.note.uid if self._state.note else None,
            **self._about(),
            "pools": describe_pools(self._state.ledgers, [self.zone], self._state.settings),
            "shortages": [
                {"pool": pool, "zone": self.zone, "why": why}
                for pool, why in sorted(self._state.shortages.items())
            ],
            **self._describe_replicas(),
        }

    def _describe_replicas(self) -> Mapping[str, Any]:
        if self._replicas is None:
            return {}
        return {
            "own_lag_s": self._own_lag_s(),
            "leader_url": self._leadership().leading_url,
            "replicas": self._replicas.describe(),
        }
