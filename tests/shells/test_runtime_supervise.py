"""Supervision on virtual time: what restarts, what ends the process, how it stops."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from zonemesh.errors import ConflictError, UnavailableError
from zonemesh.runtime.supervise import LEADER_RETRY_S, Backoff, keep, supervise

pytestmark = pytest.mark.looptime

RNG = random.Random(7)
BACKOFF = Backoff(base_s=1.0, max_s=8.0)


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def forever() -> None:
    await asyncio.Event().wait()


async def test_an_unavailable_peer_restarts_its_component_later_and_later() -> None:
    starts: list[float] = []
    told: list[str] = []

    async def flaky() -> None:
        starts.append(now_s())
        if len(starts) < 7:
            raise UnavailableError("redis: gone")

    await supervise({"flaky": flaky}, BACKOFF, RNG, restarted=told.append)

    delays = [after - before for before, after in itertools.pairwise(starts)]
    bounds = [1, 2, 4, 8, 8, 8]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    assert told == ["flaky"] * 6


async def test_a_component_that_ran_long_starts_over_with_short_delays() -> None:
    starts: list[float] = []

    async def flaky() -> None:
        starts.append(now_s())
        if len(starts) == 4:
            await asyncio.sleep(100)
        if len(starts) < 6:
            raise UnavailableError("redis: gone")

    await supervise({"flaky": flaky}, BACKOFF, RNG)

    assert starts[4] - starts[3] <= 100 + 1


@pytest.mark.parametrize("error", [ValueError("a bug"), ConflictError("not retried")])
async def test_anything_else_ends_the_others(error: Exception) -> None:
    cancelled = asyncio.Event()
    calls = 0

    async def other() -> None:
        try:
            await forever()
        finally:
            cancelled.set()

    async def broken() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)
        raise error

    with pytest.raises(ExceptionGroup) as caught:
        await supervise({"other": other, "broken": broken}, BACKOFF, RNG, stop=asyncio.Event())

    assert caught.value.exceptions == (error,)
    assert cancelled.is_set()
    assert calls == 1


async def test_stopping_ends_the_last_component_first() -> None:
    stop = asyncio.Event()
    ended: list[str] = []

    def component(name: str, takes_s: float):  # type: ignore[no-untyped-def]  # noqa: ANN202
        async def run() -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(takes_s)
                ended.append(name)

        return run

    components = {"first": component("first", 0), "last": component("last", 2)}
    asyncio.get_running_loop().call_later(3, stop.set)
    await supervise(components, BACKOFF, RNG, stop=stop)

    assert ended == ["last", "first"]
    assert now_s() == pytest.approx(5)


async def test_stopping_does_not_wait_for_a_delay() -> None:
    stop = asyncio.Event()

    async def flaky() -> None:
        stop.set()
        raise UnavailableError("redis: gone")

    await supervise({"flaky": flaky}, Backoff(base_s=1000, max_s=1000), RNG, stop=stop)

    assert now_s() < 1


async def test_a_component_that_hangs_delays_the_next_one_by_a_bound() -> None:
    stop = asyncio.Event()
    ended: dict[str, float] = {}

    async def hanging() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(60)
            ended["hanging"] = now_s()

    async def early() -> None:
        try:
            await forever()
        finally:
            ended["early"] = now_s()

    asyncio.get_running_loop().call_later(1, stop.set)
    await supervise({"early": early, "hanging": hanging}, BACKOFF, RNG, stop=stop)

    assert ended["early"] == pytest.approx(6)


async def test_it_returns_once_every_component_has() -> None:
    async def once() -> None:
        await asyncio.sleep(1)

    await supervise({"a": once, "b": once}, BACKOFF, RNG, stop=asyncio.Event())

    assert now_s() == pytest.approx(1)


def test_delays_are_bounded_however_often_it_failed() -> None:
    assert BACKOFF.delay_s(10_000, RNG) <= 8


async def test_a_trouble_is_said_once_again_when_it_lasts_or_changes_and_when_it_is_over() -> None:
    tries = 0

    async def flaky() -> None:
        nonlocal tries
        tries += 1
        if now_s() < 15:
            raise UnavailableError("redis: refused" if now_s() < 3 else "redis: loading")
        await asyncio.sleep(20)

    with capture_logs() as logs:
        task = asyncio.create_task(keep("ingest", flaky))
        await asyncio.sleep(30)
        task.cancel()

    assert tries > 15 / LEADER_RETRY_S / 2  # the pauses are drawn
    said = [(each["event"], each["component"], each.get("error")) for each in logs]
    assert said == [
        ("component_failing", "ingest", "redis: refused"),
        ("component_failing", "ingest", "redis: loading"),
        ("component_failing", "ingest", "redis: loading"),
        ("component_recovered", "ingest", None),
    ]
    assert logs[-1]["failures"] == tries - 1
    assert logs[-1]["after_s"] == pytest.approx(15, abs=0.5)


def test_a_hundred_that_fail_together_do_not_return_together() -> None:
    backoff = Backoff(base_s=0.1, max_s=5.0)
    randoms = [random.Random(seed) for seed in range(100)]

    for attempt in range(8):
        delays = sorted(backoff.delay_s(attempt, rng) for rng in randoms)
        bound_s = min(5.0, 0.1 * 2**attempt)
        assert len(set(delays)) == 100
        assert bound_s / 2 <= delays[0] <= delays[-1] <= bound_s
        # No tenth of the time in which they return has more than three tenths of them.
        slots = Counter(int(20 * delay_s / bound_s) for delay_s in delays)
        assert max(slots.values()) <= 30


async def test_leaders_that_lost_one_store_together_try_again_at_different_times() -> None:
    random.seed(11)
    tried: list[float] = []

    def component() -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            tried.append(now_s())
            raise UnavailableError("redis: gone")

        return run

    leaders = [asyncio.ensure_future(keep(f"uplink-{n}", component())) for n in range(100)]
    await asyncio.sleep(LEADER_RETRY_S * 1.5)
    for each in leaders:
        each.cancel()
    await asyncio.gather(*leaders, return_exceptions=True)

    again = tried[100:]
    assert len(again) >= 100
    assert len(set(again)) == len(again)
