"""A herd of subscribers: a few get a snapshot at a time, others wait in order, within limits."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing

import pytest

from tests.feeds import Client, Served, assert_same_as_snapshot, parsed
from tests.maps import binding, service
from zonecp.admission import RETRY_S_MAX, RETRY_S_MIN, Admission
from zonecp.feed import WAITING
from zonecp.revision import Revision
from zonemesh.errors import OverloadedError
from zonemesh.reach import Reach

pytestmark = pytest.mark.looptime


async def test_places_are_given_in_the_order_in_which_subscribers_came() -> None:
    admission = Admission(places=2)
    with ExitStack() as last:
        first, second = admission.turn(), admission.turn()
        with second:
            with first:
                third = last.enter_context(admission.turn())
                fourth = last.enter_context(admission.turn())
                assert not third.granted.is_set()
                assert admission.waiting == 2

            assert third.granted.is_set()
            assert not fourth.granted.is_set()
        assert fourth.granted.is_set()
        assert not admission.idle
    assert admission.idle


async def test_who_goes_away_while_it_waits_leaves_no_gap() -> None:
    admission = Admission(places=1)
    with admission.turn():
        with admission.turn():
            pass
        with admission.turn() as waiting:
            assert admission.waiting == 1
            assert not waiting.granted.is_set()
    assert admission.idle


async def test_a_slow_subscriber_does_not_keep_the_others_waiting() -> None:
    admission = Admission(places=1, place_s=5.0)
    with admission.turn(), admission.turn() as other:
        await other.granted.wait()

        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
    assert admission.idle


async def test_too_many_are_told_when_to_come_again() -> None:
    admission = Admission(places=1, waiting_max=3, place_s=60.0)
    with ExitStack() as stack:
        for _ in range(3):
            admission.check()
            stack.enter_context(admission.turn())
        admission.check()
        stack.enter_context(admission.turn())

        with pytest.raises(OverloadedError, match="3 subscribers wait") as caught:
            admission.check()

    assert RETRY_S_MIN <= caught.value.retry_after_s <= RETRY_S_MAX
    assert admission.refused == 1
    admission.check()


async def test_how_long_to_wait_is_told_by_how_long_others_took() -> None:
    admission = Admission(places=1, waiting_max=2, place_s=60.0)
    for _ in range(60):
        with admission.turn():
            await asyncio.sleep(10)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.turn())

        with pytest.raises(OverloadedError, match="come again in 20 s"):
            admission.check()


# The feed


def _served(**limits: int) -> Served:
    served = Served(admission=Admission(**limits))
    served.own(*(each for n in range(600) for each in (service(f"s{n}"), binding(f"s{n}", n))))
    return served


async def test_whoever_waits_is_told_so_and_gets_its_snapshot_in_turn() -> None:
    served = _served(places=1)
    first, second = (
        served.feed.events("default", None, outbounds=True, heartbeat_s=1.0) for _ in range(2)
    )
    async with aclosing(first), aclosing(second):
        assert b"event: snapshot" in (await anext(first))[0]
        assert await anext(second) == [WAITING]
        assert await anext(second) == [WAITING]
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)
        assert served.feed.admission.waiting == 1

        assert b"event: heartbeat" in (await anext(first))[0]
        assert b"event: snapshot" in (await anext(second))[0]


async def test_a_herd_shares_one_snapshot_though_the_map_changes_meanwhile() -> None:
    served = _served(places=2)
    herd = [asyncio.ensure_future(Client().read(served)) for _ in range(40)]
    for number in range(30):
        served.add(f"new{number}", 1_000 + number)
        await asyncio.sleep(0)
    clients = await asyncio.gather(*herd)

    assert served.feed.snapshots_built == 1
    for client in clients:
        await assert_same_as_snapshot(await client.read(served), served)


async def test_nobody_is_sent_a_map_older_than_what_it_was_told_of() -> None:
    served = _served(places=2)
    reach: list[Reach | None] = [Reach("west", [], None)]
    early = served.feed.events("default", None, outbounds=True, heartbeat_s=1.0)
    trimmed = served.feed.events(
        "default", None, outbounds=True, heartbeat_s=1.0, reach=lambda: reach[0]
    )
    async with aclosing(early), aclosing(trimmed):
        await anext(early)  # goes on being sent its snapshot, which is kept for others
        await anext(trimmed)
        served.add("late", 999)
        assert await anext(trimmed) == []  # not for it
        (told,) = parsed(await anext(trimmed))
        assert told.name == "heartbeat"

        reach[0] = None
        (event,) = parsed(await anext(trimmed))

    assert event.name == "snapshot"
    assert not Revision.parse(told.id).ahead_of(Revision.parse(event.id))


async def test_a_stop_lets_those_go_who_wait() -> None:
    served = _served(places=1)
    first, second = (
        served.feed.events("default", None, outbounds=True, heartbeat_s=60.0) for _ in range(2)
    )
    async with aclosing(first), aclosing(second):
        await anext(first)
        ended = asyncio.ensure_future(anext(second, None))
        await asyncio.sleep(0)

        served.feed.close()

        assert await ended is None
        assert asyncio.get_running_loop().time() == 0.0


async def test_who_can_resume_is_never_refused() -> None:
    served = _served(places=1, waiting_max=0)
    feed, known = served.feed, served.revision
    await Client().read(served)
    known = served.revision
    served.add("new", 999)

    feed.check_room("default", known, trimmed=False)
    with pytest.raises(OverloadedError):
        feed.check_room("default", None, trimmed=False)
    with pytest.raises(OverloadedError):
        feed.check_room("default", known, trimmed=True)
