"""Fakes and documents that several tests need."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from zonemesh.errors import MeshError
from zonemesh.model import Key, Position, Record
from zonemesh.resources import catalogue
from zonemesh.resources.kind import Kind
from zonemesh.rest.backend import Delete, Found, Put, Written
from zonemesh.rest.routes import make_app

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

    def origins(self, kind: Kind) -> Iterable[tuple[str, str]]:
        return {(key.zone, key.namespace) for name, key in self.records if name == kind.name}

    def mesh_exists(self, mesh: str) -> bool:
        return any(("Mesh", Key("", zone, "", mesh)) in self.records for zone in {"", self.zone})

    def status(self, kind: Kind, found: Found) -> Mapping[str, Any] | None:
        return None if kind.flat else self.statuses.get(found.key, {})

    def insight(self, zone: str) -> Mapping[str, Any] | None:
        return self.insights.get(zone)

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
