"""Writes to a replica that does not lead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, unused_port

from tests.builders import FakeBackend, dataplane, mesh_service, rest_client, with_mesh
from zonemesh.model import Key, Position
from zonemesh.rest import proxy
from zonemesh.rest.backend import NotLeaderError

ITEM = "/meshes/default/meshservices/redis"


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[FakeBackend, FakeBackend, TestClient[Any, Any]]]:
    """A leader, a follower of it, and a client of the follower."""
    leader = with_mesh(FakeBackend())
    async with rest_client(leader) as direct:
        follower = with_mesh(FakeBackend(follows=leader, leader=str(direct.make_url(""))))
        async with rest_client(follower) as client:
            yield leader, follower, client


async def test_a_followers_put_is_readable_there_once_answered() -> None:
    async with pair() as (leader, follower, client):
        put = await client.put(ITEM, json=mesh_service())
        get = await client.get(ITEM)

        assert (put.status, await put.text(), get.status) == (201, "{}\n", 200)
        assert put.headers["Content-Type"] == "application/json"
        assert follower.waited == [Position(1, 1)]
        assert ("MeshService", Key("default", "west", "", "redis")) in leader.records


async def test_a_followers_delete_reaches_the_leader() -> None:
    async with pair() as (leader, _, client):
        await client.put(ITEM, json=mesh_service())
        first = await client.delete(ITEM)
        second = await client.delete(ITEM)

        assert (first.status, second.status) == (200, 404)
        assert len(leader.records) == 1


async def test_the_leaders_refusals_are_passed_on() -> None:
    async with pair() as (_, follower, client):
        answer = await client.put(ITEM, json=mesh_service("other"))

        assert answer.status == 400
        assert (await answer.json())["invalid_parameters"][0]["field"] == "name"
        assert follower.waited == []


async def test_a_followers_bulk_is_streamed_and_its_end_awaited() -> None:
    async with pair() as (_, follower, client):
        more = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            for number in range(700):
                yield json.dumps(dataplane(f"dp-{number}")).encode() + b"\n"
            await more.wait()
            yield json.dumps(dataplane("last")).encode()

        answer = await client.post("/_bulk", data=body())
        first = json.loads(await answer.content.readline())
        more.set()
        rest = [json.loads(line) async for line in answer.content]

        assert answer.status == 200
        assert [result["line"] for result in [first, *rest]] == list(range(1, 702))
        assert follower.waited == [Position(1, 701)]
        assert ("Dataplane", Key("default", "west", "", "last")) in follower.records


async def test_a_request_is_handed_on_once() -> None:
    async with pair() as (leader, follower, client):
        leader.leader = str(client.make_url(""))  # each takes the other for the leader
        follower.leader = leader.leader
        answer = await client.put(ITEM, json=mesh_service(), headers={proxy.PROXIED_BY: "other"})
        bulk = await client.post("/_bulk", data=b"", headers={proxy.PROXIED_BY: "other"})

        assert (answer.status, bulk.status) == (503, 503)
        assert answer.headers[proxy.NOT_LEADER] == "1"


async def test_nobody_leads_is_said_after_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "LEADER_WAIT_S", 0.1)
    async with rest_client(with_mesh(FakeBackend(leader=""))) as client:
        answer = await client.put(ITEM, json=mesh_service())
        bulk = await client.post("/_bulk", data=b"")

        assert (answer.status, bulk.status) == (503, 503)
        assert "nobody leads" in (await answer.json())["detail"]


async def test_a_new_leader_is_waited_for() -> None:
    async with pair() as (_, follower, client):
        new, follower.leader = follower.leader, ""
        pending = asyncio.ensure_future(client.put(ITEM, json=mesh_service()))
        await asyncio.sleep(0.1)
        assert not pending.done()
        follower.leader = new

        assert (await pending).status == 201


async def test_a_dead_leader_is_given_up_for_its_successor() -> None:
    async with pair() as (_, follower, client):
        new, follower.leader = follower.leader, f"http://127.0.0.1:{unused_port()}"
        pending = asyncio.ensure_future(client.put(ITEM, json=mesh_service()))
        await asyncio.sleep(0.1)
        follower.leader = new

        assert (await pending).status == 201


async def test_a_replica_that_leads_no_more_is_given_up_for_its_successor() -> None:
    async with pair() as (_, follower, client), rest_client(FakeBackend(leader="")) as deposed:
        new, follower.leader = follower.leader, str(deposed.make_url(""))
        pending = asyncio.ensure_future(client.put(ITEM, json=mesh_service()))
        await asyncio.sleep(0.1)
        assert not pending.done()
        follower.leader = new

        assert (await pending).status == 201


async def test_a_leader_deposed_during_the_write_hands_it_on() -> None:
    async with pair() as (_, follower, client):
        new, follower.leader = follower.leader, None
        follower.failure = NotLeaderError("deposed")
        follower.leader_url = iter([None, new, new]).__next__  # type: ignore[method-assign]
        answer = await client.put(ITEM, json=mesh_service())

        assert answer.status == 201


async def test_a_durable_write_is_answered_although_it_is_not_seen_here() -> None:
    async with pair() as (_, follower, client):
        follower.applies = False
        answer = await client.put(ITEM, json=mesh_service())

        assert answer.status == 201
