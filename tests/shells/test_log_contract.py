"""One contract over every log there is: in memory, in a file, on a real Redis, on fakeredis.

Most of it is a list of accidents that XADD alone lets happen: holes, two winners of one term, a
deleted log that a deposed writer makes again, and snapshots, trims and leases of the deposed.
Where fakeredis differs from a real server, that is said in `FAKEREDIS_DIFFERS`, strictly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fakeredis
import pytest

from tests.chains import entry, grow, head_of, raws, snapshot_of
from zonemesh.errors import (
    FateUnknownError,
    InputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from zonemesh.log.memory import MemoryStore
from zonemesh.log.port import Lease, Log, Raw, Store
from zonemesh.log.redis import RedisStore
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import START, Position
from zonemesh.wire import decode

A = Lease(writer="writer-a", url="http://a:5681")
B = Lease(writer="writer-b", url="http://b:5681")

_ERR = "pcall's error table has bytes as `err` in Lua (userdata), where a server has a string"
FAKEREDIS_DIFFERS = {
    "test_an_entry_whose_position_is_not_above_the_head_is_refused": _ERR,
    "test_a_new_incarnation_needs_a_higher_term": _ERR,
    "test_a_deposed_writer_cannot_announce_behind_its_successor": _ERR,
    "test_what_a_logs_entries_take_is_known_and_falls_with_a_trim": "knows no MEMORY USAGE",
}
"""Name of a test → how fakeredis 2.40 differs from a real server in it."""


@dataclass(frozen=True, slots=True)
class World:
    """One log, and a second process's way to the same log."""

    log: Log
    other: Log


@pytest.fixture(params=["memory", "redis", "fakeredis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    stores = _stores(request, request.param)
    yield stores[0]
    for one in stores:
        await one.close()


@pytest.fixture(params=["memory", "sqlite", "redis", "fakeredis"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    closing: Sequence[Log | Store]
    if request.param == "sqlite":
        closing = logs = [SqliteLog(tmp_path / "own.db", "global") for _ in range(2)]
        yield World(*logs)
    else:
        closing = stores = _stores(request, request.param)
        yield World(*(one.log("global") for one in stores))
    for one in closing:
        await one.close()


def _stores(request: pytest.FixtureRequest, kind: str) -> Sequence[Store]:
    """Two clients of one store."""
    if kind == "memory":
        memory = MemoryStore(asyncio.get_running_loop().time)
        return memory, memory.peer()
    if kind == "redis":
        url = request.getfixturevalue("redis_url")
        return RedisStore(url), RedisStore(url)
    if (reason := FAKEREDIS_DIFFERS.get(request.node.originalname)) is not None:
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    server = fakeredis.FakeServer()
    clients = [fakeredis.FakeAsyncRedis(server=server, protocol=2) for _ in range(2)]
    return [RedisStore("redis://fake", pool=client.connection_pool) for client in clients]


async def whole(log: Log) -> list[Raw]:
    return list(await log.read(START))


# ── append ──


async def test_a_log_that_does_not_exist_has_no_head_and_no_entries(world: World) -> None:
    assert await world.log.head() is None
    assert await whole(world.log) == []


async def test_entries_come_back_as_written_and_the_head_is_the_newest(world: World) -> None:
    chain = await grow(world.log, 3)

    assert await whole(world.other) == raws(chain)
    assert await world.other.head() == head_of(chain[-1])


async def test_entries_are_any_bytes(world: World) -> None:
    first = entry((1, 0), None, payload=bytes(range(256)) * 16)
    second = entry((1, 1), first, payload=b"\r\n$-1\r\n\x00" * 1000)
    await world.log.create(first)
    await world.log.append(second)

    read = await whole(world.log)

    assert read == raws([first, second])
    assert decode(read[1].data, first.h)[1]


async def test_an_entry_that_does_not_follow_the_head_is_refused(world: World) -> None:
    # 1a: a candidate read 1-0; the old leader's 1-1 came between; its 2-0 would leave a hole.
    chain = await grow(world.log, 2)
    candidate = entry((2, 0), chain[0], writer="writer-b")

    with pytest.raises(RefusedError, match=r"1-1"):
        await world.other.append(candidate)

    assert await whole(world.log) == raws(chain)
    assert await world.log.head() == head_of(chain[-1])


async def test_an_entry_onto_another_history_of_the_same_position_is_refused(world: World) -> None:
    # 1b and 19: the positions match, the hash does not.
    chain = await grow(world.log, 2)
    elsewhere = entry((1, 1), chain[0], payload=b"what another master took")

    with pytest.raises(RefusedError):
        await world.log.append(entry((1, 2), elsewhere))

    assert await whole(world.log) == raws(chain)


async def test_an_entry_of_another_incarnation_is_refused(world: World) -> None:
    chain = await grow(world.log, 2)

    with pytest.raises(RefusedError):
        await world.log.append(entry((1, 2), chain[-1], incarnation="inc-2"))


async def test_an_entry_after_one_that_never_arrived_is_refused(world: World) -> None:
    # 1c: of two appends in flight the first failed.
    chain = await grow(world.log, 2)
    lost = entry((1, 2), chain[-1])

    with pytest.raises(RefusedError):
        await world.log.append(entry((1, 3), lost))

    await world.log.append(lost)
    assert await whole(world.log) == raws([*chain, lost])


async def test_an_entry_whose_position_is_not_above_the_head_is_refused(world: World) -> None:
    chain = await grow(world.log, 3)
    backwards = entry((1, 1), chain[-1])

    with pytest.raises(RefusedError):
        await world.log.append(backwards)

    assert await whole(world.log) == raws(chain)
    assert await world.log.head() == head_of(chain[-1])


async def test_the_same_bytes_again_are_a_success_and_are_stored_once(world: World) -> None:
    chain = await grow(world.log, 2)

    await world.other.append(chain[-1])

    assert await whole(world.log) == raws(chain)


async def test_the_same_bytes_again_are_refused_once_others_followed(world: World) -> None:
    chain = await grow(world.log, 3)

    with pytest.raises(RefusedError):
        await world.log.append(chain[1])


async def test_of_two_candidates_at_the_same_time_one_wins_and_knows_it(world: World) -> None:
    # 2: same term, same clock, no changes of their own: only the writer tells them apart.
    chain = await grow(world.log, 2)
    candidates = [entry((2, 0), chain[-1], writer=writer) for writer in ("a", "b")]

    outcomes = await asyncio.gather(
        world.log.append(candidates[0]), world.other.append(candidates[1]), return_exceptions=True
    )

    won = [one for one, outcome in zip(candidates, outcomes, strict=True) if outcome is None]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "RefusedError"]
    assert await world.log.head() == head_of(won[0])
    with pytest.raises(RefusedError):
        await world.log.append(next(one for one in candidates if one is not won[0]))


async def test_lost_entries_can_be_put_back_with_the_same_bytes(world: World) -> None:
    # 3: what a store lost is replayed from memory or disk; readers notice nothing.
    chain = await grow(world.log, 2)
    lost = [entry((1, 2), chain[-1])]
    lost.append(entry((2, 0), lost[-1], writer="writer-b"))

    for sealed in lost:
        await world.other.append(sealed)

    assert await whole(world.log) == raws([*chain, *lost])


async def test_the_owner_stays_until_another_is_given(world: World) -> None:
    first = entry((1, 0), None)
    second = entry((1, 1), first)
    third = entry((2, 0), second, writer="writer-b")

    await world.log.create(first, owner="uid-1")
    await world.log.append(second)
    assert await world.log.head() == head_of(second, "uid-1")
    await world.log.append(third, owner="uid-2")
    assert await world.log.head() == head_of(third, "uid-2")


# ── create ──


async def test_an_append_never_makes_a_log(world: World) -> None:
    # 3: the store was emptied under a writer that goes on.
    first = entry((5, 100), None)

    with pytest.raises(RefusedError, match="no log"):
        await world.log.append(entry((5, 101), first))

    assert await world.log.head() is None
    assert await whole(world.log) == []


async def test_a_log_that_exists_is_not_made_again(world: World) -> None:
    chain = await grow(world.log, 2)

    with pytest.raises(RefusedError):
        await world.other.create(entry((7, 0), None, writer="writer-b", incarnation="inc-2"))

    assert await whole(world.log) == raws(chain)


async def test_the_same_first_entry_again_is_a_success(world: World) -> None:
    first = entry((1, 0), None)
    await world.log.create(first, owner="uid-1")

    await world.log.create(first, owner="uid-1")

    assert await whole(world.log) == raws([first])
    assert await world.log.head() == head_of(first, "uid-1")


async def test_a_log_gives_way_to_a_new_incarnation_only_if_it_is_the_one_that_was_seen(
    world: World,
) -> None:
    chain = await grow(world.log, 3)
    anew = entry((4, 0), None, incarnation="inc-2")

    with pytest.raises(RefusedError):
        await world.log.create(anew, replacing=head_of(chain[1]))
    await world.log.create(anew, owner="uid-2", replacing=head_of(chain[-1]))
    await world.log.create(anew, owner="uid-2", replacing=head_of(chain[-1]))  # a retry

    assert await whole(world.log) == raws([anew])
    assert await world.log.head() == head_of(anew, "uid-2")
    with pytest.raises(RefusedError):
        await world.other.append(entry((1, 3), chain[-1]))


async def test_a_new_incarnation_needs_a_higher_term(world: World) -> None:
    chain = await grow(world.log, 3)

    with pytest.raises(RefusedError):
        await world.log.create(
            entry((1, 0), None, incarnation="inc-2"), replacing=head_of(chain[-1])
        )

    assert await whole(world.log) == raws(chain)


# ── read ──


async def test_a_read_answers_what_follows_a_position_in_order_and_no_more_than_asked(
    world: World,
) -> None:
    chain = await grow(world.log, 12)

    assert list(await world.log.read(Position(1, 3), count=4)) == raws(chain[4:8])
    assert list(await world.log.read(Position(1, 11))) == []
    assert list(await world.log.read(Position(0, 99))) == raws(chain)


async def test_a_read_waits_for_the_first_entry_and_then_wakes(world: World) -> None:
    chain = await grow(world.log, 1)
    later = entry((1, 1), chain[-1])

    async with asyncio.timeout(15):  # less than it waits for
        reading = asyncio.ensure_future(world.log.read(Position(1, 0), block_s=30))
        await _others_run()
        await world.log.append(later)
        assert list(await reading) == raws([later])


async def test_a_read_that_waits_in_vain_answers_nothing(world: World) -> None:
    await grow(world.log, 1)
    clock = asyncio.get_running_loop().time
    started_s = clock()

    assert list(await world.log.read(Position(1, 0), block_s=0.05)) == []
    assert clock() - started_s >= 0.045


async def test_trimmed_entries_are_skipped_in_silence(world: World) -> None:
    # Why readers check `previous` of each entry: the read alone proves nothing.
    chain = await grow(world.log, 6)

    assert await world.log.trim(Position(1, 4)) == 4

    assert list(await world.log.read(Position(1, 0))) == raws(chain[4:])


@pytest.mark.parametrize("before", [Position(1, 5), Position(1, 6), Position(99, 0)])
async def test_a_trim_never_takes_the_newest_entry(world: World, before: Position) -> None:
    chain = await grow(world.log, 6)

    assert await world.log.trim(before) == 5

    assert await whole(world.log) == raws(chain[-1:])
    await world.log.append(entry((1, 6), chain[-1]))


async def test_a_trim_before_everything_or_of_nothing_takes_nothing(world: World) -> None:
    assert await world.log.trim(Position(9, 9)) == 0
    chain = await grow(world.log, 2)
    assert await world.log.trim(Position(1, 0)) == 0
    assert await whole(world.log) == raws(chain)


async def test_positions_are_exact_beyond_what_a_double_holds(world: World) -> None:
    big = 2**53
    first = entry((big, 0), None)
    chain = [first, entry((big, big), first)]
    chain.append(entry((big, big + 1), chain[-1]))
    await world.log.create(first)
    for sealed in chain[1:]:
        await world.log.append(sealed)

    assert list(await world.log.read(Position(big, big))) == raws(chain[-1:])
    assert await world.log.trim(Position(big, big + 1)) == 2
    assert await world.log.head() == head_of(chain[-1])


async def test_a_cancelled_read_leaves_the_log_usable(world: World) -> None:
    chain = await grow(world.log, 1)

    for _ in range(3):
        reading = asyncio.ensure_future(world.log.read(Position(1, 0), block_s=30))
        await _others_run()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    head, entries = await asyncio.gather(world.log.head(), whole(world.log))

    assert head == head_of(chain[0])
    assert entries == raws(chain)


async def _others_run() -> None:
    """Let a call under way get as far as it can without us."""
    for _ in range(20):
        await asyncio.sleep(0.001)


# ── snapshots ──


async def test_a_snapshot_is_loaded_as_it_was_put(world: World) -> None:
    chain = await grow(world.log, 2)
    info = snapshot_of(chain[-1], chunks=20)
    chunks = [bytes([i]) * (i + 1) for i in range(20)]

    await world.log.put_snapshot(info, chunks)

    assert list(await world.other.snapshots()) == [info]
    assert list(await world.other.load_snapshot(info)) == chunks


async def test_the_two_newest_snapshots_are_kept_and_older_ones_go_with_their_chunks(
    world: World,
) -> None:
    chain = await grow(world.log, 5)
    infos = [snapshot_of(sealed, 2) for sealed in chain]

    for info in infos:
        await world.log.put_snapshot(info, [b"first", b"second"])

    assert list(await world.log.snapshots()) == [infos[4], infos[3]]
    assert list(await world.log.load_snapshot(infos[3])) == [b"first", b"second"]
    with pytest.raises(NotFoundError):
        await world.log.load_snapshot(infos[2])


async def test_a_deposed_writer_cannot_announce_behind_its_successor(world: World) -> None:
    # 4: it paused before its announcement; its successor announced, and wiped its chunks.
    chain = await grow(world.log, 3)
    newest = snapshot_of(chain[-1], 2)
    await world.log.put_snapshot(newest, [b"new", b"new"])

    with pytest.raises(RefusedError):
        await world.other.put_snapshot(snapshot_of(chain[1], 2), [b"old", b"old"])

    assert list(await world.log.snapshots()) == [newest]
    assert list(await world.log.load_snapshot(newest)) == [b"new", b"new"]


async def test_a_snapshot_of_a_history_that_the_log_does_not_have_is_refused(world: World) -> None:
    # A leader that outlived a failover to a stale replica: its state never was.
    chain = await grow(world.log, 2)
    beyond = entry((1, 2), chain[-1])
    other_history = entry((1, 1), chain[0], payload=b"another")

    for wrong in (beyond, other_history, replace(chain[1], h=b"mismatch")):
        with pytest.raises(RefusedError):
            await world.log.put_snapshot(snapshot_of(wrong, 2), [b"a", b"b"])

    assert list(await world.log.snapshots()) == []


async def test_the_same_state_again_is_a_success_and_changes_nothing(world: World) -> None:
    # A retry, or a deposed writer at the very same position, whose chunks may be cut otherwise.
    chain = await grow(world.log, 1)
    info = snapshot_of(chain[0], 2)
    await world.log.put_snapshot(info, [b"a", b"b"])

    await world.other.put_snapshot(replace(info, chunks=1), [b"ab"])

    assert list(await world.log.snapshots()) == [info]
    assert list(await world.log.load_snapshot(info)) == [b"a", b"b"]


async def test_a_snapshot_can_be_put_before_its_log_exists(world: World) -> None:
    # A restore: who comes early must find the state before the log that goes on from it.
    first = entry((4, 0), None)

    await world.log.put_snapshot(snapshot_of(first, 2), [b"a", b"b"])
    await world.log.create(first)

    assert list(await world.log.snapshots()) == [snapshot_of(first, 2)]


async def test_snapshots_of_a_former_incarnation_go(world: World) -> None:
    chain = await grow(world.log, 2)
    for sealed in chain:
        await world.log.put_snapshot(snapshot_of(sealed, 2), [b"a", b"b"])
    anew = entry((4, 0), None, incarnation="inc-2")
    await world.log.create(anew, replacing=head_of(chain[-1]))

    await world.log.put_snapshot(snapshot_of(anew, 2), [b"c", b"d"])

    assert list(await world.log.snapshots()) == [snapshot_of(anew, 2)]


async def test_a_snapshot_that_is_not_announced_cannot_be_loaded(world: World) -> None:
    chain = await grow(world.log, 1)

    with pytest.raises(NotFoundError):
        await world.log.load_snapshot(snapshot_of(chain[0], 2))


# ── lease ──


async def test_one_holds_the_lease_and_everybody_sees_who(world: World) -> None:
    assert await world.log.holder() is None

    assert await world.log.acquire(A)
    assert not await world.other.acquire(B)

    assert await world.other.holder() == A
    assert await world.log.acquire(A), "the holder's own attempt succeeds"


async def test_only_the_holder_renews_and_releases(world: World) -> None:
    # 4: renewal by SET XX stole the lease, release by DEL removed another's.
    await world.log.acquire(A)

    assert await world.log.renew(A)
    assert not await world.other.renew(B)
    await world.other.release(B)
    assert await world.log.holder() == A

    await world.log.release(A)
    assert await world.log.holder() is None
    assert not await world.log.renew(A), "what was given up is not renewed"
    assert await world.other.acquire(B)


async def test_a_writer_is_no_other_whose_name_begins_alike(world: World) -> None:
    await world.log.acquire(A)

    assert not await world.other.acquire(Lease(writer="writer", url=A.url))


async def test_resigning_appends_and_frees_the_lease(world: World) -> None:
    chain = await grow(world.log, 1)
    await world.log.acquire(A)
    last = entry((1, 1), chain[-1])

    await world.log.resign(last, A)

    assert await whole(world.log) == raws([*chain, last])
    assert await world.other.acquire(B)


async def test_resigning_again_leaves_the_successors_lease_alone(world: World) -> None:
    chain = await grow(world.log, 1)
    await world.log.acquire(A)
    last = entry((1, 1), chain[-1])
    await world.log.resign(last, A)
    await world.other.acquire(B)

    await world.log.resign(last, A)  # a retry: the answer to the first was lost

    assert await world.log.holder() == B


async def test_a_resignation_that_is_refused_keeps_the_lease(world: World) -> None:
    chain = await grow(world.log, 2)
    await world.log.acquire(A)

    with pytest.raises(RefusedError):
        await world.log.resign(entry((1, 1), chain[0], payload=b"another"), A)

    assert await world.log.holder() == A


# ── stores of several logs ──


async def test_several_logs_are_read_at_once(store: Store) -> None:
    west, east = store.log("zone:west:up"), store.log("zone:east:up")
    chain = await grow(west, 3)
    other = await grow(east, 2)

    read = await store.read_many(
        {west.name: Position(1, 0), east.name: START, "zone:gone:up": START}, block_s=0
    )

    assert {name: list(found) for name, found in read.items()} == {
        west.name: raws(chain[1:]),
        east.name: raws(other),
    }


async def test_a_read_of_several_logs_wakes_for_the_first_entry_of_any(store: Store) -> None:
    first = entry((1, 0), None)

    async with asyncio.timeout(15):  # less than it waits for
        reading = asyncio.ensure_future(
            store.read_many({"zone:west:up": START, "zone:east:up": START}, block_s=30)
        )
        await _others_run()
        await store.log("zone:east:up").create(first)
        read = await reading

    assert {name: list(found) for name, found in read.items()} == {"zone:east:up": raws([first])}


async def test_a_read_of_no_logs_waits_and_answers_nothing(store: Store) -> None:
    assert not await store.read_many({}, block_s=0.01)


async def test_zones_are_announced_and_forgotten_with_all_that_is_theirs(store: Store) -> None:
    await store.announce("west")
    await store.announce("west")
    await store.announce("west-2")
    infos = {}
    for zone in ("west", "west-2"):
        log = store.log(f"zone:{zone}:up")
        infos[zone] = snapshot_of((await grow(log, 2))[-1], 2)
        await log.put_snapshot(infos[zone], [b"a", b"b"])
        await log.acquire(A)

    await store.forget("west")

    gone, kept = store.log("zone:west:up"), store.log("zone:west-2:up")
    assert await store.zones() == {"west-2"}
    assert await gone.head() is None
    assert not await gone.snapshots()
    assert await gone.holder() is None
    assert await whole(gone) == []
    assert await kept.head() is not None
    assert await kept.load_snapshot(infos["west-2"])


async def test_what_a_logs_entries_take_is_known_and_falls_with_a_trim(store: Store) -> None:
    log = store.log("zone:west:up")
    written = await grow(log, 500)

    full = await store.sizes(["zone:west:up", "zone:east:up"])
    await log.trim(written[-1].entry.position)
    trimmed = await store.sizes(["zone:west:up"])

    assert full["zone:west:up"] > sum(len(each.data) for each in written) / 2
    assert full["zone:east:up"] == 0
    assert trimmed["zone:west:up"] < full["zone:west:up"] / 2
    assert await store.sizes([]) == {}


async def test_replicas_are_known_by_what_they_last_said(store: Store) -> None:
    await store.present("global", "writer-a", b"\x00old")
    await store.present("global", "writer-a", b"\x00new")
    await store.present("global", "writer-b", b"b")
    await store.present("zone:west:up", "writer-c", b"c")

    assert await store.replicas("global") == {"writer-a": b"\x00new", "writer-b": b"b"}
    assert await store.replicas("zone:east:up") == {}


async def test_what_one_writer_said_of_several_logs_is_asked_for_at_once(store: Store) -> None:
    logs = ["zone:west:up", "zone:east:up", "zone:south:up"]
    await store.present(logs[0], "claim", b"w")
    await store.present(logs[1], "claim", b"e")
    await store.present(logs[2], "other", b"o")

    assert await store.said("claim", logs) == {logs[0]: b"w", logs[1]: b"e"}
    assert await store.said("claim", []) == {}


@pytest.mark.parametrize("name", ["", "zone:west", "zone:a:b:up", "zone:we}st:up", "globals"])
async def test_what_is_no_logs_name_reaches_no_key(store: Store, name: str) -> None:
    with pytest.raises(InputError):
        store.log(name)


def test_every_fate_unknown_is_an_unavailability() -> None:
    # `_until_known` of a writer catches the one, supervision the other.
    assert issubclass(FateUnknownError, UnavailableError)
