"""Registering the workload's Dataplane, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fake_zone import FakeZone, fake_zone, until
from tests.patience import SLOWER
from zonecp.dataplane.config import DataplaneRuntime
from zonecp.dataplane.document import read_dataplane
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.register import Registration, explain
from zonecp.dataplane.token import Token
from zonemesh.errors import ConfigError, UnavailableError

DOCUMENT = {"type": "Dataplane", "mesh": "default", "name": "redis-01", "networking": {}}
INVALID = {
    "type": "/std-errors",
    "status": 400,
    "title": "Could not process a resource",
    "detail": "Resource is not valid",
    "invalid_parameters": [{"field": "networking.address", "reason": "must not be empty"}],
}


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


async def test_what_a_zone_may_have_taken_without_a_word_is_deleted_as_well(zone: FakeZone) -> None:
    zone.silent = True

    async with registered(Registration((zone.url,), DOCUMENT, FeedState())):
        assert await zone.requests.get() == ("PUT", "redis-01", DOCUMENT)

    assert zone.requests.get_nowait() == ("DELETE", "redis-01", None)


async def test_what_a_zone_has_refused_is_not_deleted(zone: FakeZone) -> None:
    zone.put_refusals = [(409, {"title": "Another agent"})]
    registration = Registration((zone.url,), DOCUMENT, FeedState())

    with pytest.raises(UnavailableError):
        await registration.run()
    async with aiohttp.ClientSession() as session:
        await registration._deregister(session)

    assert [zone.requests.get_nowait()[0] for _ in range(zone.requests.qsize())] == ["PUT"]


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


SERVING = {**DOCUMENT, "networking": {"address": "10.0.0.1", "inbound": [{"port": 80}]}}


def states(body: Any) -> list[str | None]:
    return [inbound.get("state") for inbound in body["networking"]["inbound"]]


async def test_a_verdict_is_told_at_once(zone: FakeZone) -> None:
    registration = Registration((zone.url,), SERVING, FeedState())

    async with registered(registration):
        _, _, first = await zone.requests.get()
        registration.set_ready({0: False})
        _, _, second = await zone.requests.get()
        registration.set_ready({0: True})
        _, _, third = await zone.requests.get()

    assert [states(body) for body in (first, second, third)] == [[None], ["NotReady"], ["Ready"]]


async def test_it_is_put_again_after_the_feed_was_opened_anew(zone: FakeZone) -> None:
    state = FeedState(connected=True)

    async with registered(Registration((zone.url,), DOCUMENT, state)):
        await zone.requests.get()
        state.ended["closed"] += 1
        method, _, _ = await zone.requests.get()

    assert method == "PUT"


async def test_draining_tells_the_zone_before_it_waits(zone: FakeZone) -> None:
    registration = Registration((zone.url,), SERVING, FeedState())

    async with registered(registration):
        await zone.requests.get()
        await until(lambda: registration.registered)
        await registration.drain(0.01)
        _, _, body = zone.requests.get_nowait()

    assert states(body) == ["NotReady"]


@pytest.mark.parametrize("document,wait_s", [(DOCUMENT, 60.0), (SERVING, 0.0)])
async def test_what_has_nothing_to_drain_does_not_wait(
    zone: FakeZone, document: dict[str, Any], wait_s: float
) -> None:
    registration = Registration((zone.url,), document, FeedState())

    async with registered(registration):
        await until(lambda: registration.registered)
        async with asyncio.timeout(SLOWER * 5):
            await registration.drain(wait_s)


async def test_it_is_withdrawn_at_the_next_zone_if_one_has_gone(zone: FakeZone) -> None:
    async with fake_zone() as gone:
        registration = Registration((gone.url, zone.url), DOCUMENT, FeedState())
        task = asyncio.create_task(registration.run())
        await until(lambda: registration.registered)
    task.cancel()
    await asyncio.wait({task})

    assert zone.requests.get_nowait() == ("DELETE", "redis-01", None)


async def test_the_first_registration_waits_for_verdicts(zone: FakeZone) -> None:
    settled = asyncio.Event()
    registration = Registration((zone.url,), SERVING, FeedState(), settled=settled)

    async with registered(registration):
        registration.set_ready({0: True})
        settled.set()
        _, _, body = await zone.requests.get()

    assert states(body) == ["Ready"]


async def test_the_token_is_read_anew_for_each_request(zone: FakeZone, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    token = Token(DataplaneRuntime(token_path=path))
    state = FeedState()

    async with registered(Registration((zone.url,), DOCUMENT, state, headers=token.headers)):
        await zone.requests.get()
        before = zone.authorizations["dataplane"]
        path.write_text("second")
        state.reincarnated.set()
        await zone.requests.get()
        after = zone.authorizations["dataplane"]
    path.unlink()

    assert (before, after) == ("Bearer first", "Bearer second")
    assert token.headers() == {"Authorization": "Bearer second"}


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff"])
def test_a_token_that_is_none_is_a_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"dataplaneRuntime\.tokenPath: "):
        Token(DataplaneRuntime(token_path=path))


async def test_a_refused_token_is_named(zone: FakeZone) -> None:
    zone.put_refusals = [(401, {"title": "Unauthorized"})]

    with pytest.raises(ConfigError, match=r"dataplaneRuntime\.tokenPath"):
        await Registration((zone.url,), DOCUMENT, FeedState()).run()


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
