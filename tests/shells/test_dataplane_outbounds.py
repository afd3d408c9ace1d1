"""Following a zone's outbounds over real HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from tests.fake_zone import (
    FakeZone,
    delta,
    heartbeat,
    outbound,
    record,
    revision,
    snapshot,
    until,
)
from zonecp.dataplane.feed import SLICE, Feed, FeedOptions
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.outbounds import Change, Endpoint, Outbound, Outbounds
from zonecp.dataplane.resolver import Table
from zonemesh.runtime.supervise import Backoff, supervise

WEB, HTTP = "kri_msvc_default_west__web_", "kri_msvc_default_west__web_http"


class Agent:
    """A store of outbounds that follows a zone, and someone who listens."""

    def __init__(self, zone: FakeZone) -> None:
        self.outbounds = Outbounds()
        self.heard: list[Change] = []
        self.outbounds.listen(self.heard.append)
        self.state = FeedState()
        self.table = Table(["mesh"])
        self._options = FeedOptions(
            zones=(zone.url,), mesh="default", dataplane="dp-1", refused_pause_s=0.01
        )

    @property
    def ids(self) -> set[str]:
        return {each.id for each in self.outbounds}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        feed = Feed(self._options, self.table, self.state, self.outbounds)
        quick = Backoff(base_s=0.01, max_s=0.02)
        async with asyncio.TaskGroup() as group:
            group.create_task(supervise({"feed": feed.run}, quick, random.Random(1), stop=stop))
            try:
                yield
            finally:
                stop.set()


async def test_a_snapshot_brings_all_outbounds_in_pieces(zone: FakeZone) -> None:
    agent = Agent(zone)
    wanted = [outbound(f"s{n}", n % 250) for n in range(3 * SLICE)]

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record("a.mesh")], wanted))
        await until(lambda: agent.outbounds.whole)

    assert stream.request.query["outbounds"] == "true"
    assert agent.ids == {each["id"] for each in wanted}
    found = agent.outbounds.get("kri_msvc_default_west__s7_80")
    assert found is not None
    assert (found.name, found.port, found.vips[0], found.endpoints[0].port) == (
        "s7", 80, "241.0.0.7", 8080,
    )  # fmt: skip
    assert sum(len(change.put) for change in agent.heard) == 3 * SLICE


async def test_a_service_whose_ports_change_keeps_those_that_stay(zone: FakeZone) -> None:
    agent = Agent(zone)
    http, admin = outbound("web", section="http"), outbound("web", section="admin", port=81)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [], [http, admin, outbound("web2")]))
        await stream.send(
            delta(revision(1), revision(2), put_outbounds=[http], remove_outbounds=[WEB]),
            heartbeat(revision(2), lag_s=0.75),
        )
        await until(lambda: agent.state.lag_s == 0.75)

    assert agent.ids == {HTTP, "kri_msvc_default_west__web2_80"}
    assert [each.port for change in agent.heard[1:] for each in change.removed] == [81]
    assert not any(change.put for change in agent.heard[1:])


async def test_listeners_hear_only_of_what_differs(zone: FakeZone) -> None:
    agent = Agent(zone)
    moved = outbound("web", section="http", endpoints=[])

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [], [outbound("web", section="http")]))
        await until(lambda: agent.outbounds.whole)
        zone.end_streams()
        stream = await zone.streams.get()
        await stream.send(
            snapshot(revision(2), [], [outbound("web", section="http")]),
            delta(revision(2), revision(3), put_outbounds=[moved], remove_outbounds=[WEB]),
            heartbeat(revision(3), lag_s=0.75),
        )
        await until(lambda: agent.state.lag_s == 0.75)

    assert [len(change.put) for change in agent.heard] == [1, 1]
    assert agent.heard[1].put[0].endpoints == ()
    assert stream.last_event_id == revision(1)


async def test_a_snapshot_removes_the_outbounds_that_it_lacks(zone: FakeZone) -> None:
    agent = Agent(zone)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [], [outbound("web"), outbound("old")]))
        await stream.send(snapshot(revision(2), [], [outbound("web")]), heartbeat(revision(2), 0.7))
        await until(lambda: agent.state.lag_s == 0.7)

    assert agent.ids == {f"{WEB}80"}


async def test_a_map_on_disk_has_no_outbounds_so_a_snapshot_is_asked_for(zone: FakeZone) -> None:
    agent = Agent(zone)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record("a.mesh")], [outbound("web")], chunk=1))
        await until(lambda: agent.outbounds.whole)
    again = Agent(zone)
    again.state.head = agent.state.head
    async with again.following():
        stream = await zone.streams.get()

    assert stream.last_event_id is None


def test_without_endpoints_their_changes_are_none() -> None:
    outbounds, heard = Outbounds(endpoints=False), list[Change]()
    outbounds.listen(heard.append)
    first = Outbound(id=HTTP, kind="MeshService", vips=("241.0.0.1",), port=80, name="web")

    outbounds.put([first])
    outbounds.put([msgspec.structs.replace(first, endpoints=(Endpoint("10.0.0.1", 80),))])

    assert len(heard) == 1
    assert [each.endpoints for each in outbounds] == [()]
