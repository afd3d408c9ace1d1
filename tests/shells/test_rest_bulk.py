"""`POST /_bulk`: lines in, results out, in order, whatever the pieces they come in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import FakeBackend, dataplane, mesh_service, rest_client, with_mesh
from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import ConflictError, MeshError, UnavailableError
from zonemesh.model import Key
from zonemesh.rest.api import BODY_BYTES_MAX
from zonemesh.rest.bulk import Lines


async def post(backend: FakeBackend, *documents: Any) -> list[dict[str, Any]]:
    lines = [d if isinstance(d, str) else json.dumps(d) for d in documents]
    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data="\n".join(lines))
        assert answer.status == 200
        assert answer.content_type == "application/x-ndjson"
        return [json.loads(line) for line in (await answer.text()).splitlines()]


async def test_every_line_has_one_result_in_order() -> None:
    backend = with_mesh(FakeBackend())
    backend.refuse = lambda item: ConflictError("taken") if item.key.name == "no" else None
    results = await post(
        backend,
        mesh_service("redis"),
        "{",
        mesh_service("UPPER"),
        "",
        mesh_service("no"),
        mesh_service("redis"),
        dataplane() | {"mesh": "none"},
        {"type": "Thing", "name": "x"},
        {"type": "Mesh"},
    )

    assert [(result["line"], result["status"]) for result in results] == [
        (1, 201),
        (2, 400),
        (3, 400),
        (5, 409),
        (6, 200),
        (7, 404),
        (8, 400),
        (9, 400),
    ]
    assert results[0] == {
        "line": 1,
        "type": "MeshService",
        "mesh": "default",
        "name": "redis",
        "status": 201,
        "position": "1-1",
    }
    assert results[1]["error"]["title"] == "Bad Request"
    assert results[2]["error"]["invalid_parameters"][0]["field"] == "name"
    assert results[5]["error"]["title"] == "Failed to retrieve Mesh"


async def test_a_mesh_may_be_made_by_an_earlier_line() -> None:
    backend = FakeBackend()
    results = await post(backend, {"type": "Mesh", "name": "default"}, dataplane())

    assert [result["status"] for result in results] == [201, 201]
    assert ("Dataplane", Key("default", "west", "", "redis-01")) in backend.records


async def test_kinds_written_elsewhere_are_refused_line_by_line() -> None:
    backend = with_mesh(FakeBackend(federated=True))
    results = await post(backend, {"type": "Mesh", "name": "other"}, dataplane())

    assert [result["status"] for result in results] == [405, 201]


async def test_batches_are_bounded() -> None:
    backend = with_mesh(FakeBackend())
    results = await post(backend, *(dataplane(f"dp-{number}") for number in range(1_201)))

    assert len(results) == 1_201
    assert max(backend.batches) <= 500
    assert len(backend.batches) < 20, "lines that have arrived together are written together"


async def test_a_line_that_is_too_long_costs_itself_only() -> None:
    backend = with_mesh(FakeBackend())
    long = dataplane(padding="x" * BODY_BYTES_MAX)

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(long).encode() + b"\n"
        yield json.dumps(dataplane()).encode() + b"\n"

    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data=body())
        results = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert [result["status"] for result in results] == [413, 201]


async def test_results_come_before_the_body_ends() -> None:
    backend = with_mesh(FakeBackend())
    answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(dataplane("one")).encode() + b"\n"
        await answered.wait()
        yield json.dumps(dataplane("two")).encode()

    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data=body())
        first = await answer.content.readline()
        answered.set()
        second = await answer.content.readline()

    assert json.loads(first)["name"] == "one"
    assert json.loads(second)["name"] == "two"


async def test_nobody_to_write_is_said_for_each_line() -> None:
    backend = with_mesh(FakeBackend())
    backend.failure = UnavailableError("redis: gone")
    results = await post(backend, *(dataplane(f"dp-{number}") for number in range(2_500)))

    assert {result["status"] for result in results} == {503}
    assert len(results) == 2_500
    assert results[0]["error"]["detail"] == "redis: gone"
    assert "not tried" in results[-1]["error"]["detail"]


async def test_single_failures_do_not_add_up() -> None:
    backend = with_mesh(FakeBackend())
    write = backend.write
    calls = 0
    tried = asyncio.Semaphore(0)

    async def flaky(items: Sequence[Put | Delete]) -> Sequence[Written | MeshError]:
        nonlocal calls
        calls += 1
        tried.release()
        if calls % 2:
            raise UnavailableError("redis: gone")
        return await write(items)

    backend.write = flaky  # type: ignore[method-assign]

    async def body() -> AsyncIterator[bytes]:
        for number in range(10):
            yield json.dumps(dataplane(f"dp-{number}")).encode() + b"\n"
            await tried.acquire()

    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data=body())
        results = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert [result["status"] for result in results] == [503, 201] * 5


async def test_a_client_that_leaves_keeps_what_it_sent() -> None:
    backend = with_mesh(FakeBackend())

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps(dataplane()).encode() + b"\n"
        await asyncio.sleep(60)

    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data=body())
        await answer.content.readline()
        answer.close()

    assert ("Dataplane", Key("default", "west", "", "redis-01")) in backend.records


@pytest.mark.parametrize(
    "chunks, lines",
    [
        ([b""], []),
        ([b"\n"], [(1, b"")]),
        ([b"a\nb"], [(1, b"a"), (2, b"b")]),
        ([b"a", b"b\n", b"c\n"], [(1, b"ab"), (2, b"c")]),
        ([b"12345678\n"], [(1, b"12345678")]),
        ([b"1234", b"56789", b"0\nx"], [(1, None), (2, b"x")]),
    ],
)
def test_lines_are_cut_and_numbered(
    chunks: list[bytes], lines: list[tuple[int, bytes | None]]
) -> None:
    splitter = Lines(8)
    found = [line for chunk in chunks for line in splitter.feed(chunk)]

    assert found + splitter.end() == lines


def test_a_line_that_is_too_long_is_not_kept() -> None:
    splitter = Lines(8)
    for _ in range(100):
        splitter.feed(b"x" * 7)

    assert splitter._parts == []


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"x", b"\n"))))
def test_lines_do_not_depend_on_how_they_are_cut(chunks: list[bytes]) -> None:
    whole, cut = Lines(8), Lines(8)
    expected = whole.feed(b"".join(chunks)) + whole.end()

    assert [line for chunk in chunks for line in cut.feed(chunk)] + cut.end() == expected
