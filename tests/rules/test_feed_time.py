"""Heartbeats by the clock, waits that end, and revisions that compare."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeds import Served, parsed
from zonecp.feed import BEHIND_WAIT_S, EARLY_S, query_revision
from zonecp.revision import Revision
from zonemesh.errors import InputError, UnavailableError
from zonemesh.model import Cursor, Position

pytestmark = pytest.mark.looptime


async def test_heartbeats_come_by_the_clock_also_while_other_things_happen() -> None:
    served = Served()
    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1.0)
    await anext(stream)
    started_s = asyncio.get_running_loop().time()
    served.lag_s = lambda: asyncio.get_running_loop().time() - started_s  # no news of others

    async def happenings() -> None:
        while True:
            await asyncio.sleep(0.3)
            served.own()

    busy = asyncio.ensure_future(happenings())
    for passed_s in (1.0, 2.0, 3.0):
        (event,) = parsed(await anext(stream))
        assert event.name == "heartbeat"
        assert event.data["lag_s"] == passed_s
        assert asyncio.get_running_loop().time() - started_s == pytest.approx(passed_s)
    busy.cancel()


async def test_a_heartbeat_comes_early_where_the_map_is_younger_than_its_reader_reckons() -> None:
    served = Served()
    served.lag_s = lambda: 3.0
    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1e9)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(2.0)
    served.lag_s = lambda: 5.0 - EARLY_S / 2  # as of a little later than it was told
    served.own()
    await asyncio.sleep(0.1)
    assert not waiting.done()

    served.lag_s = lambda: 0.1
    served.own()

    (event,) = parsed(await waiting)
    assert (event.name, event.data["lag_s"]) == ("heartbeat", 0.1)
    assert asyncio.get_running_loop().time() == pytest.approx(2.1)


async def test_who_resumes_is_told_at_once_how_old_the_map_is() -> None:
    served = Served()
    served.add("web", 1)
    await served.feed.map_json("default")
    stream = served.feed.events("default", served.revision, outbounds=True, heartbeat_s=1e9)

    (event,) = parsed(await anext(stream))

    assert event.name == "heartbeat"
    assert asyncio.get_running_loop().time() == pytest.approx(0)


async def test_a_query_returns_when_the_map_changes_and_not_before() -> None:
    served = Served()
    served.add("web", 1)
    await served.feed.map_json("default")
    known = served.revision

    waiting = asyncio.ensure_future(served.feed.wait_beyond("default", known, 30.0))
    await asyncio.sleep(5)
    served.own()
    await asyncio.sleep(5)
    assert not waiting.done()
    served.add("api", 2)

    assert await waiting
    assert asyncio.get_running_loop().time() == pytest.approx(10)


async def test_a_query_ends_when_its_time_is_over() -> None:
    served = Served()

    assert not await served.feed.wait_beyond("default", served.revision, 30.0)
    assert asyncio.get_running_loop().time() == pytest.approx(30)


async def test_a_query_from_an_unknown_revision_returns_at_once() -> None:
    served = Served()
    unknown = served.revision._replace(own=Cursor("other", Position(1, 1)))

    assert await served.feed.wait_beyond("default", unknown, 30.0)


async def test_who_is_ahead_waits_until_this_control_plane_is_not_behind() -> None:
    served = Served()
    own = served.revision.own
    wanted = served.revision._replace(own=own._replace(position=Position(1, own.position.seq + 1)))

    waiting = asyncio.ensure_future(served.feed.wait_for(wanted))
    await asyncio.sleep(1)
    assert not waiting.done()
    served.own()

    await waiting
    await served.feed.wait_for(wanted)


async def test_who_is_ahead_for_too_long_is_told() -> None:
    served = Served()
    wanted = served.revision._replace(copy=Cursor("one", Position(9, 9)))

    with pytest.raises(UnavailableError):
        await served.feed.wait_for(wanted)
    assert asyncio.get_running_loop().time() == pytest.approx(BEHIND_WAIT_S)


async def test_a_feed_that_closes_ends_streams_and_waits() -> None:
    served = Served()
    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1e9)
    await anext(stream)
    wanted = served.revision._replace(copy=Cursor("one", Position(9, 9)))
    ended = asyncio.ensure_future(anext(stream, None))
    waits = [
        asyncio.ensure_future(served.feed.wait_for(wanted)),
        asyncio.ensure_future(served.feed.wait_beyond("default", served.revision, 30.0)),
    ]
    await asyncio.sleep(0)

    served.feed.close()

    assert await ended is None
    found = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(each) for each in found] == [UnavailableError, UnavailableError]
    assert asyncio.get_running_loop().time() == pytest.approx(0)


# Revisions


POSITIONS = st.builds(Position, st.integers(0, 3), st.integers(0, 3))
CURSORS = st.builds(Cursor, st.sampled_from(["a", "b"]), POSITIONS)
REVISIONS = st.builds(Revision, CURSORS, CURSORS | st.just(Cursor("", Position(0, 0))))


@given(REVISIONS)
def test_a_revision_is_read_from_its_text(revision: Revision) -> None:
    assert Revision.parse(str(revision)) == revision
    assert query_revision(str(revision)) == revision


@given(REVISIONS, REVISIONS)
def test_a_revision_is_within_another_where_no_component_is_greater(
    one: Revision, other: Revision
) -> None:
    same = [a.incarnation == b.incarnation for a, b in zip(one, other, strict=True)]
    behind = [a.position <= b.position for a, b in zip(one, other, strict=True)]

    assert one.within(other) == (all(same) and all(behind))
    assert one.comparable(other) == all(same)
    assert one.ahead_of(other) == any(
        here and not less for here, less in zip(same, behind, strict=True)
    )


@pytest.mark.parametrize("text", ["", "a.1-1", "a.1-1~", "~a.1-1", "a~b", "a.1-1~b.1", "x" * 9000])
def test_a_revision_that_cannot_be_read_is_unknown(text: str) -> None:
    assert query_revision(text) is None
    with pytest.raises(InputError):
        Revision.parse(text)
