"""Following a zone's feed over real HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_zone import FakeZone, delta, fake_zone, heartbeat, record, revision, snapshot, until
from zonecp.dataplane.events import Reader
from zonecp.dataplane.feed import SLICE, Feed, FeedOptions, StreamEndError
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.resolver import Table
from zonemesh.errors import WireError
from zonemesh.maphash import name_hash
from zonemesh.runtime.supervise import Backoff, supervise

QUICK = Backoff(base_s=0.01, max_s=0.02)


class Agent:
    """A table that follows a zone."""

    def __init__(self, *zones: str, silence_s: float = 5.0, drop_patience_s: float = 60.0) -> None:
        self.state = FeedState()
        self.table = Table(["mesh"])
        self.options = FeedOptions(
            zones=zones,
            mesh="default",
            dataplane="dp-1",
            silence_s=silence_s,
            drop_patience_s=drop_patience_s,
            refused_pause_s=0.01,
        )

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.table.items()}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        feed = Feed(self.options, self.table, self.state)
        async with asyncio.TaskGroup() as group:
            group.create_task(supervise({"feed": feed.run}, QUICK, random.Random(1), stop=stop))
            try:
                yield
            finally:
                stop.set()


@pytest.mark.parametrize("compress", [False, True])
async def test_a_snapshot_is_applied_in_pieces(zone: FakeZone, compress: bool) -> None:
    zone.compress = compress
    agent = Agent(zone.url)
    wanted = {f"s{i}.svc.mesh.local" for i in range(1_000)}

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(7), [record(name) for name in wanted]))
        await until(lambda: agent.table.loaded)

    assert agent.names == wanted
    assert agent.state.head is not None
    assert agent.state.head.revision == revision(7)
    assert agent.state.head.zone_uid == "uid"
    assert agent.state.changed.is_set()
    assert stream.request.query == {"watch": "true", "dataplane": "dp-1", "outbounds": "false"}
    assert stream.last_event_id is None


async def test_deltas_change_what_they_name(zone: FakeZone) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record("a.mesh"), record("b.mesh")]))
        await stream.send(delta(revision(1), revision(2), [record("c.mesh", 3)], ["a.mesh"]))
        await stream.send(heartbeat(revision(3), lag_s=0.75))
        await until(lambda: agent.state.lag_s == 0.75)

    assert agent.names == {"b.mesh", "c.mesh"}
    assert agent.state.head is not None
    assert agent.state.head.revision == revision(3)


async def test_a_stream_is_resumed_after_what_was_applied(zone: FakeZone) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(1), [record("a.mesh")]))
        await first.send(delta(revision(1), revision(2), [record("b.mesh")]))
        await until(lambda: len(agent.table) == 2)
        zone.end_streams()
        second = await zone.streams.get()
        await second.send(delta(revision(2), revision(3), [record("c.mesh")]))
        await until(lambda: len(agent.table) == 3)

    assert second.last_event_id == revision(2)
    assert agent.state.ended == {"closed": 1}


async def test_a_snapshot_cut_in_the_middle_removes_nothing_and_is_not_resumed(
    zone: FakeZone,
) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(1), [record("a.mesh"), record("b.mesh")]))
        await until(lambda: agent.table.loaded)
        whole = snapshot(revision(2), [record("c.mesh"), record("d.mesh")], chunk=1)
        await first.send(whole[: whole.index("d.mesh")])
        await until(lambda: len(agent.table) == 3)
        half = agent.state.whole
        zone.end_streams()
        second = await zone.streams.get()
        await second.send(snapshot(revision(2), [record("c.mesh"), record("d.mesh")]))
        await until(lambda: agent.names == {"c.mesh", "d.mesh"})

    assert not half
    assert agent.state.whole
    assert second.last_event_id is None


async def test_an_older_map_is_refused_and_another_incarnations_taken(zone: FakeZone) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(5), [record("a.mesh")]))
        await until(lambda: agent.table.loaded)
        await first.send(snapshot(revision(4), [record("old.mesh")]))
        second = await zone.streams.get()
        kept = agent.names
        reincarnated = agent.state.reincarnated.is_set()
        await second.send(snapshot(revision(1, own="new"), [record("new.mesh")]))
        await until(lambda: agent.names == {"new.mesh"})

    assert kept == {"a.mesh"}
    assert agent.state.ended["older"] == 1
    assert not reincarnated
    assert agent.state.reincarnated.is_set()


async def test_a_delta_that_does_not_follow_asks_for_a_snapshot(zone: FakeZone) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(1), [record("a.mesh")]))
        await first.send(delta(revision(2), revision(3), [record("b.mesh")]))
        second = await zone.streams.get()

    assert agent.names == {"a.mesh"}
    assert agent.state.ended == {"gap": 1}
    assert second.last_event_id is None


async def test_most_names_are_not_dropped_at_once_unless_the_zone_insists(zone: FakeZone) -> None:
    agent = Agent(zone.url, drop_patience_s=0.3)
    many = [record(f"s{i}.mesh") for i in range(100)]

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(1), many))
        await until(lambda: agent.table.loaded)
        await first.send(snapshot(revision(2), [*many[:10], record("new.mesh")]))
        second = await zone.streams.get()
        kept = agent.names
        await second.send(snapshot(revision(3), many[:60]))
        await until(lambda: len(agent.table) == 60)
        await second.send(snapshot(revision(4), many[:10]))
        while len(agent.table) != 10:
            stream = await zone.streams.get()
            await stream.send(snapshot(revision(4), many[:10]))
            await asyncio.sleep(0.02)

    assert len(kept) == 101
    assert agent.state.ended["drop"] >= 2


async def test_a_bad_record_is_rejected_and_the_rest_is_served(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    bad = [record("a..mesh"), {**record("b.mesh"), "ips": ["241.0.0"]}, record("ö.mesh")]

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [*bad, record("good.mesh")]))
        await stream.send(delta(revision(1), revision(2), remove=["a..mesh"]))
        await until(lambda: agent.state.records_rejected == 4)

    assert agent.names == {"good.mesh"}


@pytest.mark.parametrize(
    "sent,reason",
    [
        ("event: delta\ndata: {\n\n", "malformed"),
        ("event: snapshot\ndata: []\n\n", "malformed"),
        (snapshot(revision(2), [], mesh="other"), "other_mesh"),
    ],
)
async def test_what_cannot_be_read_ends_the_stream_and_changes_nothing(
    zone: FakeZone, sent: str, reason: str
) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        first = await zone.streams.get()
        await first.send(snapshot(revision(1), [record("a.mesh")]), sent)
        await zone.streams.get()

    assert agent.names == {"a.mesh"}
    assert agent.state.ended == {reason: 1}


async def test_events_of_a_later_protocol_and_comments_are_passed_over(zone: FakeZone) -> None:
    agent = Agent(zone.url)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(": hello\r\n\r\nevent: news\ndata: {}\n\nevent: delta\n\n")
        await stream.send(heartbeat(revision(1)), snapshot(revision(1), []))
        await until(lambda: agent.table.loaded)

    assert agent.state.ended == {}


async def test_a_snapshot_in_one_piece_is_read_too(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    lines = snapshot(revision(1), [record("a.mesh")]).replace("\ndata: ", "")

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(lines.replace("event: snapshot", "event: snapshot\ndata: "))
        await until(lambda: agent.names == {"a.mesh"})


async def test_silence_means_dead_and_the_next_zone_is_tried(zone: FakeZone) -> None:
    async with fake_zone() as other:
        agent = Agent(zone.url, other.url, silence_s=0.1)

        async with agent.following():
            await zone.streams.get()
            stream = await other.streams.get()
            await stream.send(snapshot(revision(1), [record("a.mesh")]))
            await until(lambda: agent.table.loaded)

    assert agent.state.ended["silent"] >= 1


async def test_a_zone_that_is_not_ready_or_not_there_is_tried_again(zone: FakeZone) -> None:
    zone.feed_refusals = [
        web.Response(status=503, headers={"Retry-After": "0.01"}, text="behind"),
        web.Response(status=503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        web.Response(status=404),
    ]
    agent = Agent(zone.url, "http://127.0.0.1:1")

    async with agent.following():
        await zone.streams.get()
        await until(lambda: agent.state.connected)

    assert agent.state.ended == {"not_ready": 2, "status": 1, "unreachable": 3}
    assert not agent.state.connected


async def test_queries_are_answered_while_a_big_map_is_applied(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    turns = 0

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record(f"s{i}.mesh") for i in range(5_000)]))
        while not agent.table.loaded:
            await asyncio.sleep(0)
            turns += 1

    assert turns >= 5_000 / SLICE


async def test_one_run_is_one_stream() -> None:
    agent = Agent("http://127.0.0.1:1")

    with pytest.raises(StreamEndError) as caught:
        await Feed(agent.options, agent.table, agent.state).run()

    assert caught.value.reason == "unreachable"
    assert agent.state.age_s(1.0) is None


lines = st.one_of(
    st.sampled_from(
        [
            b"", b"event: snapshot", b"event: delta", b"data: {}", b'data: {"records":[',
            b'data: {"revision":"1","mesh":"m","records":[', b'data: {"name":"a","ips":[]},',
            b'data: ],"outbounds":[', b"data: ]}", b"data: x", b"data", b": comment",
        ]
    ),
    st.binary(max_size=20),
)  # fmt: skip


@given(st.lists(lines, max_size=20))
def test_any_lines_are_read_or_refused(given_lines: list[bytes]) -> None:
    reader = Reader()

    for line in given_lines:
        try:
            reader.line(line)
        except WireError:
            return


async def test_names_can_have_another_ttl_than_the_zone_says(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    agent.options = dataclasses.replace(agent.options, ttl_s=5)

    async with agent.following():
        stream = await zone.streams.get()
        await stream.send(snapshot(revision(1), [record("a.mesh")]))
        await until(lambda: agent.table.loaded)
    again = Agent(zone.url)
    again.state.head = agent.state.head
    async with again.following():
        other = await zone.streams.get()

    assert [ttl_s for _, _, ttl_s in agent.table.items()] == [5]
    assert other.last_event_id is None  # what is held has the TTLs of before


def digest_of(*names: str) -> str:
    found = 0
    for name in names:
        found ^= name_hash(name, *map(packed, record(name)["ips"]))
    return f"{found:016x}"


def packed(ip: str) -> bytes:
    return ip_address(ip).packed


async def test_a_map_that_is_not_the_zones_is_fetched_anew_and_counted(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    whole = snapshot(revision(1), [record("a.mesh"), record("b.mesh")])
    beat = heartbeat(revision(1), lag_s=0.1, digest=digest_of("a.mesh", "b.mesh"))

    async with agent.following():
        first = await zone.streams.get()
        await first.send(whole)
        await first.beat_until(lambda: agent.state.agreement.comparisons == 1, beat)
        agreed = agent.state.agreement.mismatches
        await first.send(whole)
        await until(lambda: agent.state.lag_s == 0.25)
        agent.table.remove(b"\1a\4mesh\0")  # as no event ever asked for
        # The zone's side of the stream learns of its end later than the agent.
        with suppress(ConnectionResetError):
            await first.beat_until(lambda: not zone.streams.empty(), beat)
        second = await zone.streams.get()
        await second.send(whole)
        await second.beat_until(lambda: agent.state.agreement.comparisons == 3, beat)
        names = agent.names

    assert agreed == 0
    assert second.last_event_id is None
    assert names == {"a.mesh", "b.mesh"}
    assert agent.state.ended["mismatch"] == 1
    assert (agent.state.agreement.mismatches, agent.state.agreement.unmended) == (1, None)


async def test_a_map_that_never_agrees_is_kept_and_said(zone: FakeZone) -> None:
    agent = Agent(zone.url)
    agreement, beat = agent.state.agreement, heartbeat(revision(1), lag_s=0.1, digest="0" * 16)

    async with agent.following():
        for _ in range(4):
            before = agreement.comparisons
            stream = await zone.streams.get()
            await stream.send(snapshot(revision(1), [record("a.mesh")]))
            with suppress(ConnectionResetError):
                await stream.beat_until(lambda: agreement.comparisons > before, beat)  # noqa: B023 -- awaited here
        await until(lambda: agreement.unmended is not None)

    assert agent.state.ended["mismatch"] == 3
    assert agent.names == {"a.mesh"}
