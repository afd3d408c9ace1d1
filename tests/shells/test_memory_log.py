"""The simulated Redis brings about what a real one permits, and only that, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from tests.chains import entry, grow, snapshot_of
from zonemesh.errors import FateUnknownError, NotFoundError, RefusedError, UnavailableError
from zonemesh.log.memory import Effect, MemoryStore
from zonemesh.log.port import Head, Lease, Raw
from zonemesh.model import START, Position
from zonemesh.wire import Sealed

A = Lease(writer="writer-a", url="http://a:5681")
B = Lease(writer="writer-b", url="http://b:5681")

pytestmark = pytest.mark.looptime


def raw(sealed: Sealed) -> Raw:
    return Raw(sealed.entry.position, sealed.data)


def position_of(head: Head | None) -> Position | None:
    return None if head is None else head.position


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(lambda: asyncio.get_running_loop().time())


async def test_a_raw_xadd_may_leave_a_hole_that_readers_get_without_a_word(
    store: MemoryStore,
) -> None:
    chain = await grow(store.log("global"), 2)
    beyond = entry((7, 6), entry((7, 5), chain[-1]))

    store.raw_xadd("global", raw(beyond))

    assert list(await store.log("global").read(Position(1, 0))) == [raw(chain[1]), raw(beyond)]
    assert position_of(await store.log("global").head()) == Position(1, 1)


async def test_a_raw_xadd_makes_a_deleted_stream_again_from_anywhere(store: MemoryStore) -> None:
    await grow(store.log("global"), 2)
    store.flush()
    deposed = entry((5, 101), None)

    store.raw_xadd("global", raw(deposed))

    assert await store.log("global").head() is None
    assert list(await store.log("global").read(START)) == [raw(deposed)]


async def test_a_stream_remembers_its_highest_position_when_it_is_trimmed(
    store: MemoryStore,
) -> None:
    chain = await grow(store.log("global"), 3)
    store.trim_to("global", 0)

    with pytest.raises(RefusedError):
        store.raw_xadd("global", raw(chain[1]))
    with pytest.raises(RefusedError):
        store.raw_xadd("global", raw(chain[2]))


async def test_a_trim_past_a_reader_skips_in_silence(store: MemoryStore) -> None:
    chain = await grow(store.log("global"), 5)

    store.trim_to("global", 2)

    assert list(await store.log("global").read(Position(1, 0))) == [raw(one) for one in chain[3:]]


async def test_a_roll_back_takes_the_head_along_and_a_live_leader_is_refused(
    store: MemoryStore,
) -> None:
    log = store.log("global")
    chain = await grow(log, 5)

    store.roll_back("global", 3)

    assert position_of(await log.head()) == Position(1, 2)
    with pytest.raises(RefusedError):
        await log.append(entry((1, 5), chain[-1]))
    await log.append(chain[3])
    await log.append(chain[4])


async def test_a_roll_back_may_lose_the_head(store: MemoryStore) -> None:
    log = store.log("global")
    chain = await grow(log, 3)

    store.roll_back("global", 2, head="lost")

    assert await log.head() is None
    with pytest.raises(RefusedError):
        await log.append(chain[2])


async def test_a_roll_back_may_leave_the_head_ahead_of_its_stream(store: MemoryStore) -> None:
    # No Redis does this by itself, someone's XDEL does: the next append leaves a hole.
    log = store.log("global")
    chain = await grow(log, 3)
    after = entry((1, 3), chain[-1])

    store.roll_back("global", 2, head="stays")
    await log.append(after)

    assert list(await log.read(Position(1, 0))) == [raw(chain[1]), raw(after)]


async def test_a_lost_stream_under_its_head_is_not_made_again(store: MemoryStore) -> None:
    log = store.log("global")
    chain = await grow(log, 2)

    store.delete_key("global", "log")

    with pytest.raises(RefusedError):
        await log.append(entry((1, 2), chain[-1]))


async def test_a_stale_failover_swaps_histories_of_the_same_positions(store: MemoryStore) -> None:
    log = store.log("global")
    chain = await grow(log, 2)
    stale = store.clone()
    mine = entry((1, 2), chain[-1])
    await log.append(mine)

    store.restore(stale)
    theirs = entry((2, 0), chain[-1])
    await log.append(theirs)

    with pytest.raises(RefusedError):
        await log.append(entry((1, 3), mine))
    assert list(await log.read(Position(1, 1))) == [raw(theirs)]
    store.restore(stale)
    assert position_of(await log.head()) == Position(1, 1), "a clone does not change by its use"


@pytest.mark.parametrize("effect, length", [("before", 1), ("after", 2)])
async def test_an_answer_is_lost_before_or_after_the_append_took_effect(
    store: MemoryStore, effect: Effect, length: int
) -> None:
    log = store.log("global")
    chain = await grow(log, 1)
    second = entry((1, 1), chain[0])

    store.fail_next_append(effect)
    with pytest.raises(FateUnknownError):
        await log.append(second)

    assert len(await log.read(START)) == length
    await log.append(second)
    assert len(await log.read(START)) == 2


async def test_everything_fails_while_the_store_is_cut_and_waiting_reads_at_once(
    store: MemoryStore,
) -> None:
    clock = asyncio.get_running_loop().time
    log = store.log("global")
    chain = await grow(log, 1)
    reading = asyncio.ensure_future(log.read(Position(1, 0), block_s=30))
    await asyncio.sleep(1)

    store.cut(everyone=True)
    with pytest.raises(UnavailableError):
        await reading
    assert clock() < 2
    with pytest.raises(FateUnknownError):
        await store.peer().log("global").append(entry((1, 1), chain[0]))
    with pytest.raises(UnavailableError):
        await store.zones()

    store.heal(everyone=True)
    assert position_of(await log.head()) == Position(1, 0)


async def test_one_client_is_cut_off_while_another_goes_on(store: MemoryStore) -> None:
    peer = store.peer()
    chain = await grow(store.log("global"), 1)

    store.cut()
    await peer.log("global").append(entry((1, 1), chain[0]))

    with pytest.raises(UnavailableError):
        await store.log("global").head()
    store.heal()
    assert position_of(await store.log("global").head()) == Position(1, 1)


async def test_a_cut_while_the_answer_travels_is_fate_unknown(store: MemoryStore) -> None:
    slow = MemoryStore(asyncio.get_running_loop().time, delay_s=lambda: 0.1)
    creating = asyncio.ensure_future(slow.log("global").create(entry((1, 0), None)))
    await asyncio.sleep(0.15)

    slow.cut()
    with pytest.raises(FateUnknownError):
        await creating

    slow.heal()
    assert position_of(await slow.log("global").head()) == Position(1, 0)


async def test_leases_and_presence_expire_by_the_given_clock() -> None:
    now = [100.0]
    store = MemoryStore(lambda: now[0])
    log = store.log("global")
    await log.acquire(A)
    await store.present("global", "writer-a", b"x")

    now[0] += 1.9
    assert await log.renew(A)
    now[0] += 1.9
    assert await log.holder() == A
    assert await store.replicas("global") == {"writer-a": b"x"}
    now[0] += 2.0
    assert await log.holder() is None
    assert not await log.renew(A)
    assert await log.acquire(B)
    assert await store.replicas("global") == {}


async def test_a_lease_can_be_dropped_under_its_holder(store: MemoryStore) -> None:
    log = store.log("global")
    await log.acquire(A)

    store.delete_key("global", "leader")

    assert not await log.renew(A)
    assert await log.acquire(B)


async def test_an_announced_snapshot_may_have_lost_its_chunks(store: MemoryStore) -> None:
    log = store.log("global")
    chain = await grow(log, 1)
    await log.put_snapshot(snapshot_of(chain[0]), [b"chunk"])

    store.delete_key("global", "chunks")

    with pytest.raises(NotFoundError):
        await log.load_snapshot(snapshot_of(chain[0]))


async def test_waiting_takes_virtual_time_only(store: MemoryStore) -> None:
    clock = asyncio.get_running_loop().time

    assert not await store.log("global").read(START, block_s=3_600)

    assert clock() == pytest.approx(3_600, abs=0.01)


async def test_a_link_cut_one_way_loses_requests_or_answers_only(store: MemoryStore) -> None:
    log = store.log("global")
    first = entry((1, 0), None)
    store.cut(way="back")
    with pytest.raises(FateUnknownError):
        await log.create(first)
    store.heal()
    assert position_of(await log.head()) == Position(1, 0)  # it took effect

    store.cut(way="there")
    with pytest.raises(FateUnknownError):
        await log.append(entry((1, 1), first))
    store.heal()
    assert position_of(await log.head()) == Position(1, 0)


async def test_an_append_that_arrives_once_more_is_refused_or_a_retry(store: MemoryStore) -> None:
    log, other = store.log("global"), store.peer().log("global")
    chain = await grow(log, 2)
    store.redeliver()
    chain.append(entry((1, 2), chain[-1]))
    await other.append(chain[-1])
    store.redeliver()

    assert await log.read(START) == [raw(each) for each in chain]


async def test_a_read_can_answer_again_what_was_read_before(store: MemoryStore) -> None:
    log = store.log("global")
    chain = await grow(log, 2)
    store.read_again(5)

    assert await log.read(Position(1, 1)) == [raw(each) for each in chain]
    assert not await log.read(Position(1, 1))
