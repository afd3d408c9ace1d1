"""Fakes and documents that several tests need."""

from __future__ import annotations

import gc
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from zonemesh.agents import AgentNote
from zonemesh.deciding import Decide, Decision, Delete, Now, Put, Written
from zonemesh.errors import MeshError
from zonemesh.hostnames import Outcome
from zonemesh.members import Members, selected
from zonemesh.model import Change, Cursor, Key, Position, Record
from zonemesh.registry import Registry
from zonemesh.replica import follows
from zonemesh.resources import catalogue
from zonemesh.resources.kind import Kind
from zonemesh.rest import ordering
from zonemesh.rest.backend import Found
from zonemesh.rest.routes import make_app
from zonemesh.wire import ENTRY_BYTES_MAX, Entry, Place, Sealed, decode, seal

NOW_MS = 1_790_000_000_000
"""2026-09-21T14:13:20Z."""


@dataclass
class FakeBackend:
    """A control plane in a dict. Writes happen at once, or as the test says."""

    on_global: bool = False
    zone: str = "west"
    federated: bool = False
    records: dict[tuple[str, Key], Record] = field(default_factory=dict)
    statuses: dict[Key, dict[str, Any]] = field(default_factory=dict)
    insights: dict[str, dict[str, Any]] = field(default_factory=dict)
    agents: dict[str, AgentNote] = field(default_factory=dict)
    """By a Dataplane's packed key."""
    named: dict[Key, Sequence[Outcome]] = field(default_factory=dict)
    """Outcomes of services, by their key; looked at on a zone."""
    unbound: set[Key] = field(default_factory=set)
    """Services that have no address; all others have one."""
    unknown: str | None = None
    """Why not all is known."""
    leader: str | None = None
    """What `leader_url` answers."""
    refuse: Callable[[Put | Delete], MeshError | None] = lambda _: None
    """The outcome of an item that is not written."""
    failure: MeshError | None = None
    """Raised by `write`, instead of anything else."""
    follows: FakeBackend | None = None
    """Whose records `wait_applied` copies: this one is a replica of that."""
    batches: list[int] = field(default_factory=list)
    """How many items each call of `write` had."""
    waited: list[Position] = field(default_factory=list)
    applies: bool = True
    seq: int = 0

    def add(self, kind: str, key: Key, spec: Mapping[str, Any], **labels: str) -> None:
        self.records[kind, key] = Record(
            created_ms=NOW_MS, modified_ms=NOW_MS + 500, labels=labels, spec=spec
        )

    def get(self, kind: Kind, key: Key) -> Record | None:
        return self.records.get((kind.name, key))

    def keys(self, kind: Kind, mesh: str | None) -> Iterable[str]:
        return (
            key.packed
            for name, key in self.records
            if name == kind.name and mesh in (None, key.mesh)
        )

    async def ordered(self, kind: Kind) -> Sequence[str]:
        return await ordering.ordered(self.keys(kind, None))

    def version(self, kinds: Collection[str]) -> Hashable:
        return object()  # always another: tests put what they like

    def origins(self, kind: Kind) -> Iterable[tuple[str, str]]:
        return {(key.zone, key.namespace) for name, key in self.records if name == kind.name}

    def unread(self) -> str | None:
        return self.unknown

    def mesh_exists(self, mesh: str) -> bool:
        return any(("Mesh", Key("", zone, "", mesh)) in self.records for zone in {"", self.zone})

    def status(self, kind: Kind, found: Found) -> Mapping[str, Any] | None:
        return None if kind.flat else self.statuses.get(found.key, {})

    def address(self, kind: Kind, key: Key, zone: str) -> int | None:
        return None if key in self.unbound else 241 << 24

    def members(self, found: Found) -> Iterable[tuple[str, Record]]:
        table = {
            key.packed: record.pack()
            for (kind, key), record in self.records.items()
            if kind == "Dataplane"
        }
        index = Members()
        for packed, payload in table.items():
            index.changed("Dataplane", packed, None, payload)
        selector = found.record.spec.get("selector") or {}
        return selected(found.key.packed, selector, index, table)

    def insight(self, zone: str) -> Mapping[str, Any] | None:
        return self.insights.get(zone)

    def connected(self, key: str) -> AgentNote | None:
        return self.agents.get(key)

    def outcomes(self, kind: Kind, found: Found) -> Mapping[str, Sequence[Outcome]]:
        return {self.zone: self.named.get(found.key, ())}

    async def write(self, items: Sequence[Put | Delete]) -> Sequence[Written | MeshError]:
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(items))
        return [self._written(item) for item in items]

    def _written(self, item: Put | Delete) -> Written | MeshError:
        if (error := self.refuse(item)) is not None:
            return error
        at = (item.kind, item.key)
        created = at not in self.records
        if isinstance(item, Put):
            self.records[at] = Record(
                created_ms=NOW_MS, modified_ms=NOW_MS, labels=item.labels, spec=item.spec
            )
        else:
            del self.records[at]
        self.seq += 1
        return Written(created, Position(1, self.seq))

    def leader_url(self) -> str | None:
        return self.leader

    async def wait_applied(self, position: Position, *, timeout_s: float) -> bool:
        assert timeout_s > 0
        self.waited.append(position)
        if self.follows is not None:
            self.records = dict(self.follows.records)
        return self.applies

    def describe(self) -> Mapping[str, Any]:
        return {"position": str(Position(1, self.seq))}


def dataplane(name: str = "redis-01", mesh: str = "default", **labels: str) -> dict[str, Any]:
    """A small valid Dataplane."""
    return {
        "type": "Dataplane",
        "mesh": mesh,
        "name": name,
        "labels": {"app": "redis", **labels},
        "networking": {"address": "10.0.0.1", "inbound": [{"port": 6379, "name": "main"}]},
    }


def mesh_service(name: str = "redis", mesh: str = "default", **labels: str) -> dict[str, Any]:
    """A small valid MeshService."""
    return {
        "type": "MeshService",
        "mesh": mesh,
        "name": name,
        "labels": labels,
        "spec": {
            "selector": {"dataplaneLabels": {"matchLabels": {"app": "redis"}}},
            "ports": [{"port": 6379, "targetPort": 6379}],
        },
    }


@asynccontextmanager
async def rest_client(backend: FakeBackend, **options: Any) -> AsyncGenerator[TestClient[Any, Any]]:
    """The API over a real socket."""
    app = make_app(
        backend,
        catalogue=options.pop("catalogue", catalogue.KINDS),
        config_dump=options.pop("config_dump", {"mode": "zone"}),
        version="0.1.0",
        **options,
    )
    async with TestClient(TestServer(app)) as client:
        yield client


def with_mesh(backend: FakeBackend, mesh: str = "default") -> FakeBackend:
    """The backend, a mesh in it."""
    zone = "" if backend.federated else backend.zone
    backend.add("Mesh", Key("", zone, "", mesh), {})
    return backend


class Chain:
    """A log in a list, and the registry that it is applied to."""

    def __init__(self, registry: Registry | None = None, *, incarnation: str = "one") -> None:
        self.registry = Registry() if registry is None else registry
        self.incarnation = incarnation
        self.entries: list[Sealed] = []

    def commit(
        self,
        *changes: Change,
        src: Mapping[str, Cursor] | None = None,
        note: Mapping[str, Any] | None = None,
        after_ms: int = 0,
        bytes_max: int = ENTRY_BYTES_MAX,
    ) -> Sealed:
        """Append and apply an entry, `after_ms` of log time after the one before."""
        registry = self.registry
        term, seq = registry.position
        entry = Entry(
            incarnation=self.incarnation,
            position=Position(term, seq + 1) if registry.incarnation else Position(1, 0),
            previous=registry.position,
            writer="writer",
            time_ms=NOW_MS + registry.log_time_ms + after_ms,
            mono_delta_ms=after_ms,
            log_time_ms=registry.log_time_ms + after_ms,
            src=src or {},
            note=note or {},
            changes=changes,
        )
        sealed = seal(entry, registry.h, bytes_max=bytes_max)
        registry.apply(sealed)
        self.entries.append(sealed)
        return sealed


def replayed(entries: Sequence[Sealed], into: Registry | None = None) -> Registry:
    """What a reader has after these bytes: decoded, checked and applied."""
    registry = Registry() if into is None else into
    for each in entries:
        place = Place(registry.incarnation, registry.position, registry.h)
        sealed, chained = decode(each.data, place.h)
        if follows(place, sealed, chained=chained):
            registry.apply(sealed)
    return registry


class Leader:
    """What `log.writer` does, at once and without a store: decide, append, apply."""

    def __init__(
        self, registry: Registry, decide: Decide, *, bytes_max: int = ENTRY_BYTES_MAX
    ) -> None:
        self.decide = decide
        self.chain = Chain(registry)
        self.bytes_max = bytes_max
        self.wait(0)

    def step(self, *inputs: Any) -> Decision:
        """One decision and its entry, if there is one."""
        registry = self.chain.registry
        passed_ms = registry.log_time_ms
        now = Now(wall_ms=NOW_MS + passed_ms, log_time_ms=passed_ms, mono_s=passed_ms / 1000)
        decision = self.decide(inputs, now)
        assert len({(each.kind, each.key) for each in decision.changes}) == len(decision.changes)
        if not decision.empty:
            self.chain.commit(
                *decision.changes,
                src=decision.src,
                note=decision.note,
                bytes_max=self.bytes_max,
            )
        return decision

    def submit(self, *inputs: Any) -> list[Any]:
        """The outcomes, once everything that follows from the inputs is decided as well."""
        waiting, outcomes, more = list(inputs), [], False
        while waiting or more:
            decision = self.step(*waiting)
            outcomes += decision.outcomes
            del waiting[: decision.consumed]
            more = decision.more
        return outcomes

    def wait(self, ms: int) -> None:
        """Log time passes."""
        self.chain.commit(after_ms=ms)


def put_dataplane(
    name: str,
    *services: str,
    workload: str | None = None,
    port: int = 80,
    ready: bool = True,
    zone: str = "west",
) -> Put:
    """A Dataplane with an inbound for each service that it names by tag, or one without tags."""
    state = "Ready" if ready else "NotReady"
    inbound: list[dict[str, Any]] = [
        {"port": port + number, "state": state, "tags": {"kuma.io/service": service}}
        for number, service in enumerate(services)
    ] or [{"port": port, "state": state}]
    return Put(
        "Dataplane",
        Key("default", zone, "", name),
        {} if workload is None else {"kuma.io/workload": workload},
        {"networking": {"address": "10.0.0.1", "inbound": inbound}},
    )


def put_service(name: str, *, zone: str = "west", **tags: str) -> Put:
    """A MeshService as a user writes it; it selects by the tags given, else by its own name."""
    return Put(
        "MeshService",
        Key("default", zone, "", name),
        {},
        {
            "selector": {"dataplaneTags": tags or {"kuma.io/service": name}},
            "ports": [{"port": 80, "targetPort": 80, "appProtocol": "tcp"}],
        },
    )


def left_to_the_collector(act: Callable[[], Any]) -> int:
    """How many objects only the garbage collector can free after a call; its result is dropped."""
    gc.collect()
    gc.disable()
    try:
        act()
        return gc.collect()
    finally:
        gc.enable()
