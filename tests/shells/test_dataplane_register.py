"""Registering the workload's Dataplane, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fake_zone import FakeZone, fake_zone, until
from zonecp.dataplane.feed import FeedState
from zonecp.dataplane.register import Registration, explain, read_dataplane
from zonemesh.errors import ConfigError, UnavailableError

DOCUMENT = {"type": "Dataplane", "mesh": "default", "name": "redis-01", "networking": {}}
INVALID = {
    "type": "/std-errors",
    "status": 400,
    "title": "Could not process a resource",
    "detail": "Resource is not valid",
    "invalid_parameters": [{"field": "networking.address", "reason": "must not be empty"}],
}


@pytest.fixture
async def zone() -> AsyncIterator[FakeZone]:
    async with fake_zone() as one:
        yield one


@asynccontextmanager
async def registered(registration: Registration) -> AsyncIterator[None]:
    task = asyncio.create_task(registration.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def test_a_dataplane_is_put_and_deleted_at_a_graceful_stop(zone: FakeZone) -> None:
    registration = Registration((zone.url,), DOCUMENT, FeedState())

    async with registered(registration):
        await until(lambda: registration.registered)

    assert zone.requests.get_nowait() == ("PUT", "redis-01", DOCUMENT)
    assert zone.requests.get_nowait() == ("DELETE", "redis-01", None)


async def test_it_is_put_again_where_the_zone_has_begun_a_new_log(zone: FakeZone) -> None:
    state = FeedState()

    async with registered(Registration((zone.url,), DOCUMENT, state)):
        await zone.requests.get()
        state.reincarnated.set()
        method, _, _ = await zone.requests.get()

    assert method == "PUT"


async def test_a_refused_document_is_a_fault_of_the_configuration(zone: FakeZone) -> None:
    zone.put_refusals = [(400, INVALID)]
    registration = Registration((zone.url,), DOCUMENT, FeedState())

    with pytest.raises(ConfigError) as caught:
        await registration.run()

    refused = f"{zone.url} refused the Dataplane"
    assert caught.value.faults == (
        f"{refused}: status 400: Could not process a resource: Resource is not valid",
        f"{refused}: networking.address: must not be empty",
    )


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_what_may_pass_is_tried_again_at_the_next_zone(zone: FakeZone, status: int) -> None:
    zone.put_refusals = [(status, {"title": "Later"})]
    registration = Registration((zone.url, zone.url), DOCUMENT, FeedState())

    with pytest.raises(UnavailableError, match=f"status {status}: Later"):
        await registration.run()
    async with registered(registration):
        await until(lambda: registration.registered)


async def test_a_refusal_after_a_success_does_not_end_the_agent(zone: FakeZone) -> None:
    state = FeedState()
    registration = Registration((zone.url,), DOCUMENT, state)
    task = asyncio.create_task(registration.run())
    await until(lambda: registration.registered)

    zone.put_refusals = [(404, {"title": "Failed to retrieve Mesh"})]
    state.reincarnated.set()

    with pytest.raises(UnavailableError):
        await task
    assert not registration.registered


async def test_a_zone_that_is_not_there_is_unavailable() -> None:
    registration = Registration(("http://127.0.0.1:1",), DOCUMENT, FeedState())

    with pytest.raises(UnavailableError):
        await registration.run()


async def test_a_stop_does_not_wait_for_a_zone_that_has_gone() -> None:
    async with fake_zone() as zone:
        registration = Registration((zone.url,), DOCUMENT, FeedState())
        task = asyncio.create_task(registration.run())
        await until(lambda: registration.registered)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "status,body,lines",
    [
        (502, b"<html>bad gateway", ["status 502: <html>bad gateway"]),
        (404, b"", ["status 404"]),
        (400, b"[]", ["status 400: []"]),
        (400, b'{"title": "T", "invalid_parameters": [1]}', None),
    ],
)
def test_any_error_body_is_explained(status: int, body: bytes, lines: list[str] | None) -> None:
    found = explain(status, body)

    assert found == lines if lines is not None else len(found) == 1


def test_mesh_and_name_complete_a_document(tmp_path: Path) -> None:
    path = tmp_path / "dp.yaml"
    path.write_text("networking: {address: 10.0.0.1}\n")

    document = read_dataplane(path, mesh="default", name="redis-01")

    assert document == {**DOCUMENT, "networking": {"address": "10.0.0.1"}}


@pytest.mark.parametrize(
    "text,name,fault",
    [
        ("type: Mesh\nname: a\n", None, "type: 'Mesh' is not 'Dataplane'"),
        ("mesh: other\nname: a\n", None, "mesh: 'other' is not 'default'"),
        ("name: a\n", "b", "name: 'a' is not 'b'"),
        ("networking: {}\n", None, "name: must be given here or as dataplane.name (--name)"),
    ],
)
def test_a_document_of_something_else_is_a_fault(
    tmp_path: Path, text: str, name: str | None, fault: str
) -> None:
    path = tmp_path / "dp.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_dataplane(path, mesh="default", name=name)

    assert caught.value.faults == (f"{path}: {fault}",)
