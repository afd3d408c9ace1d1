"""What a follower may say of itself: where it stands, and how old that is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from zonemesh.log import snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.memory import MemoryLog, MemoryStore
from zonemesh.model import Change, Cursor
from zonemesh.registry import Registry
from zonemesh.wire import Sealed

PARTS = 10
ROWS_PER_PART = 1_000
BACKLOG = 2_000


def now_s() -> float:
    return asyncio.get_running_loop().time()


def on_loop_time() -> Clock:
    return Clock(wall_ms=lambda: int(now_s() * 1000), mono_s=now_s)


@pytest.fixture
async def log() -> MemoryLog:
    return MemoryStore(now_s).log("global")


async def written(log: MemoryLog) -> Registry:
    """Ten thousand records."""
    registry = Registry()
    appender = Appender(log, writer="a", clock=on_loop_time())
    registry.apply(await appender.create("inc", term=1))
    for part in range(PARTS):
        rows = [Change("X", f"default/w//{part}-{n}", b"x") for n in range(ROWS_PER_PART)]
        registry.apply(await appender.commit(changes=rows))
    return registry


def ignore(entries: Sequence[Sealed]) -> None: ...


async def test_a_standby_broken_off_while_it_loads_a_snapshot_leads_with_all_of_it(
    log: MemoryLog,
) -> None:
    truth = await written(log)
    await snapshotter.write(log, truth.freeze())
    await log.trim(truth.position)
    registry = Registry()
    follower = Follower(log, registry, clock=on_loop_time(), on_entries=ignore)
    following = asyncio.ensure_future(follower.run())
    while len(registry) == 0:  # noqa: ASYNC110 -- in the very middle
        await asyncio.sleep(0)

    following.cancel()  # its lease came
    await asyncio.gather(following, return_exceptions=True)
    broken_off = len(registry), registry.incarnation
    await follower.catch_up()

    assert broken_off == (0, "")
    assert registry.digest == truth.digest
    assert registry.position == truth.position


async def test_no_backlog_hides_from_the_lag(log: MemoryLog) -> None:
    appender = Appender(log, writer="a", clock=on_loop_time())
    await appender.create("inc", term=1)
    for number in range(BACKLOG):
        await asyncio.sleep(1.0)
        await appender.commit(changes=[Change("X", f"default/w//{number}", b"x")])
    written_s = now_s()
    registry = Registry()
    wrong: list[tuple[float, float]] = []
    told: list[float] = []

    def check(entries: Sequence[Sealed]) -> None:
        lag_s = follower.lag_s
        if lag_s is not None:
            told.append(lag_s)
            behind_s = written_s - registry.time_ms / 1000
            if lag_s < behind_s - 0.01:
                wrong.append((behind_s, lag_s))

    follower = Follower(log, registry, clock=on_loop_time(), on_entries=check)
    following = asyncio.ensure_future(follower.run())
    while registry.position.seq < BACKLOG:  # noqa: ASYNC110 -- virtual time
        await asyncio.sleep(0.01)

    assert max(told) > BACKLOG / 2
    assert not wrong
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_follower_kept_busy_reads_the_head_each_second(log: MemoryLog) -> None:
    appender = Appender(log, writer="a", clock=on_loop_time())
    await appender.create("inc", term=1)
    follower = Follower(log, Registry(), clock=on_loop_time(), on_entries=ignore)
    following = asyncio.ensure_future(follower.run())
    lags: list[float] = []
    looked: list[float] = []

    for number in range(100):
        await asyncio.sleep(0.1)
        await appender.commit(changes=[Change("X", f"default/w//{number}", b"x")])
        lags.append(follower.lag_s or 0.0)
        assert follower._head_s is not None
        looked.append(now_s() - follower._head_s)

    assert max(lags) < 0.2
    assert 0.5 < max(looked) < 1.5
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_what_goes_wrong_after_a_snapshot_is_seen_by_who_takes_them(log: MemoryLog) -> None:
    async def fail(cursors: Mapping[str, Cursor]) -> None:
        raise ZeroDivisionError

    snapshots = snapshotter.Snapshotter(log, await written(log), on_snapshot=fail)
    await snapshots.take()

    with pytest.raises(ZeroDivisionError):
        await snapshots.take()
