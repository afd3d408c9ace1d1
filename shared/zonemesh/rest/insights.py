"""What is said of zones, meshes, services and Dataplanes as a whole: pure counting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zonemesh.agents import AgentNote
from zonemesh.members import inbound_ready, inbounds, service_tags
from zonemesh.model import Key, Record
from zonemesh.rest.document import rfc3339

STANDARD = "standard"
GATEWAY_DELEGATED = "gatewayDelegated"
GATEWAY_BUILTIN = "gatewayBuiltin"

_SERVICE_TYPES: Mapping[str, str] = {
    STANDARD: "internal",
    GATEWAY_DELEGATED: "gateway_delegated",
    GATEWAY_BUILTIN: "gateway_builtin",
}
_SERVICE_PORT = 80
"""Of a service that is called by its tag: Kuma's `<service>.mesh:80`."""


@dataclass(slots=True)
class Count:
    """How many there are, by how they are; each in one state only."""

    online: int = 0
    offline: int = 0
    degraded: int = 0

    @property
    def total(self) -> int:
        return self.online + self.offline + self.degraded

    def shown(self) -> dict[str, int]:
        return {
            "total": self.total,
            "online": self.online,
            "offline": self.offline,
            "partiallyDegraded": self.degraded,
        }

    def add(self, state: str) -> None:
        """Count one more: `online`, `offline` or `degraded`."""
        setattr(self, state, getattr(self, state) + 1)


def together(counts: Iterable[Count]) -> Count:
    """The sum."""
    found = list(counts)
    return Count(*(sum(getattr(each, name) for each in found) for name in Count.__slots__))


def dataplane_state(record: Record, agent: AgentNote | None) -> str:
    """`online`, `offline`, or `degraded` if an agent is there and not every inbound is ready."""
    if agent is None or not agent.online:
        return "offline"
    ready = [inbound_ready(inbound) for inbound in inbounds(record)]
    if all(ready):
        return "online"
    return "degraded" if any(ready) else "offline"


def gateway_type(record: Record) -> str:
    """Which of Kuma's types a Dataplane is of."""
    gateway = (record.spec.get("networking") or {}).get("gateway")
    if gateway is None:
        return STANDARD
    return GATEWAY_BUILTIN if gateway.get("type") == "BUILTIN" else GATEWAY_DELEGATED


@dataclass(slots=True, kw_only=True)
class Service:
    """A `kuma.io/service` of one mesh, by the Dataplanes that name it."""

    type: str
    created_ms: int
    """When the first of them was."""
    modified_ms: int
    count: Count = field(default_factory=Count)

    @property
    def state(self) -> str:
        if self.count.online == self.count.total:
            return "online"
        return "offline" if self.count.offline == self.count.total else "degraded"


@dataclass(slots=True)
class Tally:
    """The Dataplanes of a mesh, counted in one pass."""

    all: Count = field(default_factory=Count)
    types: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    versions: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    """By version of the agent; those that never had one are not in it."""
    services: dict[str, Service] = field(default_factory=dict)
    service_states: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    """Services by the type of their Dataplanes; for whoever made the tally to fill in."""

    def add(self, key: Key, record: Record, agent: AgentNote | None) -> None:
        state, kind = dataplane_state(record, agent), gateway_type(record)
        self.all.add(state)
        self.types[kind].add(state)
        if agent is not None:
            self.versions[agent.version].add(state)
        names = set(service_tags(record))
        if kind != STANDARD:
            tags = record.spec["networking"]["gateway"].get("tags") or {}
            names |= {tags["kuma.io/service"]} if tags.get("kuma.io/service") else set()
        for name in names:
            service = self.services.setdefault(
                name,
                Service(type=kind, created_ms=record.created_ms, modified_ms=record.modified_ms),
            )
            service.created_ms = min(service.created_ms, record.created_ms)
            service.modified_ms = max(service.modified_ms, record.modified_ms)
            service.count.add(state)


def dataplane(agent: AgentNote) -> dict[str, Any]:
    """`dataplaneInsight`, and what a DataplaneInsight says beside its metadata."""
    updated = agent.since_ms if agent.until_ms is None else agent.until_ms
    subscription: dict[str, Any] = {
        "id": agent.agent,
        "connectTime": rfc3339(agent.since_ms),
        "status": {
            "lastUpdateTime": rfc3339(updated),
            "total": {},
            "cds": {},
            "eds": {},
            "lds": {},
            "rds": {},
        },
        "version": {"kumaDp": {"version": agent.version, "kumaCpCompatible": True}},
    }
    if agent.until_ms is not None:
        subscription["disconnectTime"] = rfc3339(agent.until_ms)
    return {"subscriptions": [subscription]}


def mesh(tally: Tally, resources: Mapping[str, int]) -> dict[str, Any]:
    """What a MeshInsight says. kumactl 2 needs every section to be there, empty or not."""
    gateways = [tally.types[kind] for kind in (GATEWAY_BUILTIN, GATEWAY_DELEGATED)]
    return {
        "dataplanes": tally.all.shown(),
        "dataplanesByType": {
            STANDARD: tally.types[STANDARD].shown(),
            "gateway": together(gateways).shown(),
            GATEWAY_BUILTIN: tally.types[GATEWAY_BUILTIN].shown(),
            GATEWAY_DELEGATED: tally.types[GATEWAY_DELEGATED].shown(),
        },
        "policies": {},
        "dpVersions": {
            "kumaDp": {name: tally.versions[name].shown() for name in sorted(tally.versions)},
            "envoy": {},
        },
        "mTLS": {"issuedBackends": {}, "supportedBackends": {}},
        "services": {"total": len(tally.services), "internal": len(tally.services), "external": 0},
        "resources": _totals(resources),
    }


def service(name: str, of: Service) -> dict[str, Any]:
    """What a ServiceInsight says."""
    state = "partially_degraded" if of.state == "degraded" else of.state
    return {
        "serviceType": _SERVICE_TYPES[of.type],
        "status": state,
        "addressPort": f"{name}.mesh:{_SERVICE_PORT}",
        "dataplanes": {
            "total": of.count.total,
            "online": of.count.online,
            "offline": of.count.total - of.count.online,
        },
        "issuedBackends": {},
    }


def everything(
    tallies: Collection[Tally], resources: Mapping[str, int], *, now_ms: int, zones_online: int
) -> dict[str, Any]:
    """`/global-insight`.

    Args:
        tallies: One for each mesh.
        resources: How many of each kind there are.
        now_ms: Wall time.
        zones_online: How many zones are connected right now.
    """
    kinds = (STANDARD, GATEWAY_BUILTIN, GATEWAY_DELEGATED)
    dataplanes = {kind: together(each.types[kind] for each in tallies) for kind in kinds}
    services = {
        "internal" if kind == STANDARD else kind: together(
            each.service_states[kind] for each in tallies
        ).shown()
        for kind in kinds
    }
    return {
        "createdAt": rfc3339(now_ms),
        "dataplanes": {kind: count.shown() for kind, count in dataplanes.items()},
        "meshes": {"total": resources.get("Mesh", 0)},
        "policies": {"total": 0},
        "resources": _totals(resources),
        "services": {**services, "external": {"total": resources.get("MeshExternalService", 0)}},
        "zones": {
            "controlPlanes": {"online": zones_online, "total": resources.get("Zone", 0)},
            "zoneIngresses": {"online": 0, "total": 0},
            "zoneEgresses": {"online": 0, "total": 0},
        },
    }


def totals(resources: Mapping[str, int], *, now_ms: int) -> dict[str, Any]:
    """`/global-insights`."""
    return {
        "type": "GlobalInsights",
        "creationTime": rfc3339(now_ms),
        "resources": _totals(resources),
    }


def _totals(resources: Mapping[str, int]) -> dict[str, dict[str, int]]:
    return {kind: {"total": resources[kind]} for kind in sorted(resources) if resources[kind]}
