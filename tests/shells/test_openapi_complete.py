"""The OpenAPI document of both control planes: every route is in it, and specs have schemas."""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from globalcp import app as globalcp
from globalcp.config import GlobalConfig
from tests.docs.documents import Block, blocks
from tests.fake_zone import until
from zonecp import app as zonecp
from zonecp.config import ZoneConfig
from zonecp.zone import Zone
from zonemesh.errors import ValidationError
from zonemesh.log.clock import Clock
from zonemesh.log.memory import MemoryLog, MemoryStore
from zonemesh.log.port import Lease
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Kind
from zonemesh.resources.schema import Schema, schema_of
from zonemesh.rest.api import API
from zonemesh.rest.document import from_yaml, spec_of
from zonemesh.rest.openapi import document
from zonemesh.rest.pages import PAGES
from zonemesh.runtime.plane import run_until
from zonemesh.travel import GLOBAL_LOG, own_log

EXAMPLES = blocks("yaml")
IN_ROUTES = {"mesh": "default", "path": "meshservices", "name": "n"}


class Disk(MemoryLog):
    """Where a copy would be kept; nothing is."""


def make_zone() -> tuple[Zone, MemoryLog]:
    config = ZoneConfig()
    log = MemoryLog(MemoryStore(time.monotonic), own_log(config.name))
    url = "http://127.0.0.1:5681"
    zone = Zone(config, log, store=None, disk=None, clock=Clock(), url=url)
    return zone, log


def applications() -> Iterator[web.Application]:
    store = MemoryStore(time.monotonic)
    config = GlobalConfig()
    replica = globalcp.Replica(
        config,
        store,
        Disk(store, GLOBAL_LOG),  # type: ignore[arg-type]  # it is not run
        clock=Clock(),
        url="http://127.0.0.1:5681",
    )
    yield globalcp.rest(replica, config, {})
    yield zonecp.rest(make_zone()[0], ZoneConfig(), {})


@pytest.fixture(params=["globalcp", "zonecp"])
def application(request: pytest.FixtureRequest) -> web.Application:
    return dict(zip(("globalcp", "zonecp"), applications(), strict=True))[request.param]


def described(application: web.Application) -> dict[str, Any]:
    pages = application[PAGES]
    return document(application[API], pages)


def registered(application: web.Application) -> set[tuple[str, str]]:
    """(method, path) of every route, those for all kinds taken apart by kind."""
    api = application[API]
    found = set()
    for route in application.router.routes():
        assert route.resource is not None
        canonical = route.resource.canonical
        found |= {
            (route.method, path)
            for path, kind in _paths(application, canonical)
            if kind is None or route.method in ("GET", "HEAD") or api.writable(kind)
        }
    return {(method, path) for method, path in found if method != "HEAD"}


def _paths(application: web.Application, canonical: str) -> Iterator[tuple[str, Kind | None]]:
    generic = re.fullmatch(r"(/meshes/\{mesh\})?/\{path\}(/\{name\})?", canonical)
    if generic is None:
        yield canonical, None
        return
    in_mesh, item = generic.groups()
    for path, kind in application[API].paths.items():
        scope = "Mesh" if in_mesh else "Global"
        # Lists of what is in meshes are there across meshes too.
        if kind.scope == scope or not (in_mesh or item):
            yield canonical.replace("{path}", path), kind


def test_every_route_is_described_and_every_description_is_a_route(
    application: web.Application,
) -> None:
    paths = described(application)["paths"]
    told = {
        (method.upper(), path)
        for path, operations in paths.items()
        for method in set(operations) - {"parameters"}
    }

    assert told == registered(application)


def test_the_document_is_openapi(application: web.Application) -> None:
    for name, schema in described(application)["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name


# Specs


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_examples_of_resources_are_valid_by_their_schemas(block: Block) -> None:
    example = from_yaml(block.text.encode())
    kind = KINDS[example["type"]]

    assert schema_faults(schema_of(kind), spec_of(kind, example)) == []


def test_every_kind_that_is_written_has_a_schema() -> None:
    written = [kind for kind in KINDS.values() if not kind.read_only]

    assert all(schema_of(kind)["properties"] for kind in written)


OTHERS = ("text", 7, True, {"a": 1}, [1], 1.5)
"""One value of each of JSON's types."""


def altered(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A document with, in turn, each of its values replaced by one of another type."""
    if path:
        yield from ((path, other) for other in OTHERS if type(other) is not type(value))
    parts: Mapping[Any, Any] = {}
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list):
        parts = dict(enumerate(value))
    for name, inner in parts.items():
        for where, other in altered(inner, f"{path}/{name}"):
            whole = copy.copy(value)
            whole[name] = other
            yield where, whole


MORE: Mapping[str, dict[str, Any]] = {
    "Dataplane": {
        "networking": {
            "address": "10.0.0.1",
            "gateway": {"type": "DELEGATED", "tags": {"kuma.io/service": "edge"}},
            "outbound": [
                {"port": 1, "backendRef": {"kind": "MeshService", "name": "a", "port": 2}},
                {"port": 2, "tags": {"kuma.io/service": "a"}},
            ],
            "transparentProxying": {
                "redirectPortInbound": 15006,
                "directAccessServices": ["a"],
                "reachableBackends": {
                    "refs": [{"kind": "MeshService", "labels": {"a": "b"}, "port": 1}]
                },
            },
        }
    },
    "Mesh": {"networking": {"outbound": {"passthrough": True}}, "mtls": {}},
    "MeshService": {
        "state": "Available",
        "selector": {"dataplaneRef": {"name": "a"}},
        "ports": [{"port": 1, "targetPort": "main", "name": "main"}],
        "identities": [{"type": "SpiffeID", "value": "a"}],
    },
    "ZoneIngress": {
        "networking": {"address": "10.0.0.1", "port": 1, "admin": {"port": 2}},
        "availableServices": [{"tags": {"kuma.io/service": "a"}, "instances": 1, "mesh": "m"}],
    },
}
"""Specs with what the examples do not have."""

SPECS = [
    *((kind, spec_of(KINDS[kind], each)) for each in [from_yaml(b.text.encode()) for b in EXAMPLES]
      for kind in [each["type"]]),
    *MORE.items(),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, spec", SPECS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(SPECS)]
)
def test_what_is_of_a_wrong_type_is_refused_by_the_schema_as_by_the_kind(
    name: str, spec: dict[str, Any]
) -> None:
    kind = KINDS[name]
    schema = schema_of(kind)
    differing = []
    for where, each in altered(spec):
        wrong_type = any("must be a" in reason for reason in reasons(kind, each))
        if wrong_type and not schema_faults(schema, each):
            differing.append(f"{where}: {each!r} is refused, and not by the schema")
        if schema_faults(schema, each) and not reasons(kind, each):
            differing.append(f"{where}: {each!r} is refused by the schema alone")

    assert differing == []


def reasons(kind: Kind, spec: dict[str, Any]) -> list[str]:
    try:
        kind.validate(spec, "name")
    except ValidationError as error:
        return [violation.reason for violation in error.violations]
    return []


def schema_faults(schema: Schema, value: Any) -> list[str]:
    return [str(error) for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(value)]


# Pages of a zone


@asynccontextmanager
async def running_zone() -> AsyncIterator[TestClient[Any, Any]]:
    """A zone on its own, in memory, over a real socket."""
    zone, log = make_zone()
    assert await log.acquire(Lease(writer=zone.writer_id, url=""))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_until(zone.components(), stop, zone.leadership))
        async with TestClient(TestServer(zonecp.rest(zone, ZoneConfig(), {}))) as client:
            await until(lambda: zone.readiness.ready() is None)
            yield client
        stop.set()


async def test_a_zones_own_pages_answer_as_described() -> None:
    async with running_zone() as client:
        for block in EXAMPLES:
            example = from_yaml(block.text.encode())
            kind = KINDS[example["type"]]
            place = f"/meshes/{example['mesh']}" if "mesh" in example else ""
            if kind.name != "Zone":
                url = f"{place}/{kind.path}/{example['name']}"
                assert (await client.put(url, json=example)).status in (200, 201), block
        paths = (await (await client.get("/openapi.json")).json())["paths"]

        for path, query in [
            ("/meshes/{mesh}/_vips", ""),
            ("/meshes/{mesh}/_explain", "?name=shop.svc.mesh.local"),
            ("/meshes/{mesh}/_explain", "?name=shop.mesh&dataplane=shop-1"),
            ("/meshes/{mesh}/_explain", "?name=nobody.mesh.local"),
        ]:
            answer = await client.get(path.format(mesh="default") + query)
            assert answer.status == 200
            content = paths[path]["get"]["responses"]["200"]["content"]
            schema = content["application/json"]["schema"]
            assert schema_faults(schema, await answer.json()) == []
