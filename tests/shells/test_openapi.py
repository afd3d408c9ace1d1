"""The OpenAPI document: it says what the API does, and the API does what it says."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import product
from typing import Any

import pytest
import schemathesis
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.builders import FakeBackend, rest_client, with_mesh
from tests.docs.documents import blocks
from zonemesh.agents import AgentNote
from zonemesh.model import Key
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Scope
from zonemesh.rest.document import from_yaml, spec_of

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
"""Not whether what the schema allows is accepted: kinds refuse more than it says."""
EXAMPLES = 12
"""For each operation; the same ones every time."""

THERE = {
    "mesh": ("default",),
    "path": ("meshservices",),
    "name": ("redis", "shop", "default", "west"),
}
"""What is there: generated names never are."""


def examples() -> dict[str, dict[str, Any]]:
    """The documentation's, by kind."""
    documents = [from_yaml(block.text.encode()) for block in blocks("yaml")]
    return {document["type"]: document for document in documents}


def plane(*, on_global: bool) -> FakeBackend:
    """A control plane with something of each kind in it."""
    backend = with_mesh(FakeBackend(on_global=on_global, zone="" if on_global else "west"))
    for kind in KINDS.values():
        if not kind.read_only:
            mesh = "default" if kind.scope is Scope.MESH else ""
            key = Key(mesh, backend.zone, "", "redis")
            backend.add(kind.name, key, spec_of(kind, examples()[kind.name]), app="redis")
    backend.add("Zone", Key("", backend.zone, "", "west"), {})
    backend.insights["west"] = {"subscriptions": [{"connectTime": "2026-09-21T14:13:20Z"}]}
    backend.agents[Key("default", backend.zone, "", "redis").packed] = AgentNote(
        since_ms=1, until_ms=None, agent="a", version="0.1.0"
    )
    return backend


async def document(backend: FakeBackend) -> dict[str, Any]:
    async with rest_client(backend) as client:
        answer = await client.get("/openapi.json")

        assert answer.status == 200
        return dict(await answer.json())


async def test_every_kind_has_its_collections_and_every_page_is_there() -> None:
    paths = (await document(plane(on_global=False)))["paths"]

    assert set(paths["/meshes/{mesh}/meshservices/{name}"]) >= {"get", "put", "delete"}
    assert set(paths["/zones/_overview"]) >= {"get"}
    for kind in KINDS.values():
        inside = "/meshes/{mesh}" if kind.scope == "Mesh" else ""
        assert f"/{kind.path}" in paths
        assert f"{inside}/{kind.path}/{{name}}" in paths


@pytest.mark.parametrize(
    "on_global, path, methods",
    [
        (True, "/meshes/{mesh}/meshservices/{name}", {"get"}),
        (True, "/meshes/{name}", {"get", "put", "delete"}),
        (False, "/meshes/{mesh}/dataplane-insights/{name}", {"get"}),
        (False, "/mesh-insights/{name}", {"get"}),
    ],
)
async def test_writes_are_described_where_they_are_allowed(
    on_global: bool, path: str, methods: set[str]
) -> None:
    paths = (await document(plane(on_global=on_global)))["paths"]

    assert set(paths[path]) - {"parameters"} == methods


@pytest.mark.timeout(120)
@pytest.mark.parametrize("on_global", [True, False], ids=["global", "zone"])
async def test_the_api_answers_as_its_document_says(on_global: bool) -> None:
    backend = plane(on_global=on_global)
    async with rest_client(backend) as client:
        described = await (await client.get("/openapi.json")).json()
        assert isinstance(client.server, TestServer)
        statuses = await asyncio.to_thread(exercise, described, str(client.make_url("/")))

    read = {path for path, status in statuses if status == 200}
    gets = {path for path, operations in described["paths"].items() if "get" in operations}
    # Each was read once at least, so that its schema was compared with something.
    assert gets - read <= {"/_kri/{name}"}
    by_status: Counter[int] = Counter()
    for (_, status), count in statuses.items():
        by_status[status] += count
    assert min(by_status[status] for status in (200, 400, 404)) > 20


def exercise(described: dict[str, Any], url: str) -> Counter[tuple[str, int]]:
    """Call every operation with generated parameters and bodies.

    Returns:
        How often each (path, status) was seen.
    """
    schema = schemathesis.openapi.from_dict(described)
    statuses: Counter[tuple[str, int]] = Counter()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if operation.path == "/_bulk":
            continue  # a stream of lines: no schema says what is on them

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def call(case: schemathesis.Case[Any]) -> None:
            answer = case.call_and_validate(base_url=url, checks=CHECKS)
            statuses[case.path, answer.status_code] += 1

        call()
        if operation.method == "get":
            for known in product(*(THERE[each.name] for each in operation.path_parameters)):
                names = [each.name for each in operation.path_parameters]
                case = operation.Case(path_parameters=dict(zip(names, known, strict=True)))
                answer = case.call_and_validate(base_url=url, checks=CHECKS)
                statuses[case.path, answer.status_code] += 1
    return statuses
