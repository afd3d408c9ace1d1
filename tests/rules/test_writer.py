"""The write path: inputs become entries in order, and everyone who waits is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.builders import Chain
from zonemesh.deciding import Decision, Now
from zonemesh.errors import InputError, RefusedError, UnavailableError
from zonemesh.log.appender import Appender
from zonemesh.log.tail import Tail
from zonemesh.log.writer import Writer
from zonemesh.model import START, Change, Cursor, Position
from zonemesh.registry import Registry
from zonemesh.wire import Sealed

pytestmark = pytest.mark.looptime


class Clock:
    def wall_ms(self) -> int:
        return 1_790_000_000_000 + round(self.mono_s() * 1000)

    def mono_s(self) -> float:
        return asyncio.get_running_loop().time()


class SlowLog:
    """Takes an entry when it is let to, or refuses it."""

    name = "slow"

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.refuses = False
        self.taken: list[Sealed] = []

    async def append(self, sealed: Sealed, *, owner: str | None = None) -> None:
        await self.open.wait()
        if self.refuses:
            raise RefusedError("deposed")
        self.taken.append(sealed)


def decide(inputs: Sequence[Any], now: Now) -> Decision:
    """One entry for at most two inputs."""
    decision = Decision()
    for item in inputs[:2]:
        decision.consumed += 1
        if item == "bad":
            decision.outcomes.append(InputError("bad"))
            continue
        decision.outcomes.append(f"wrote {item}")
        decision.changes.append(Change("kind", f"default///{item}", b""))
    return decision


class Leading:
    def __init__(self) -> None:
        self.log = SlowLog()
        self.registry = Registry()
        self.seen: list[Sealed] = []
        clock: Any = Clock()
        target: Any = self.log
        self.writer = Writer(
            Appender(target, writer="w", clock=clock),
            self.registry,
            decide,
            clock=clock,
            on_committed=self.seen.extend,
        )
        self.running = asyncio.ensure_future(self.writer.run())

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


async def test_inputs_that_wait_together_are_committed_together_and_answered_each() -> None:
    leading = Leading()
    leading.log.open.set()

    found = await asyncio.gather(
        *(leading.writer.submit(item) for item in ("a", "bad", "b")), return_exceptions=True
    )

    assert [str(each) for each in found] == ["wrote a", "bad", "wrote b"]
    assert isinstance(found[1], InputError)
    assert [len(sealed.entry.changes) for sealed in leading.log.taken] == [1, 1]
    assert leading.seen == leading.log.taken
    await leading.stop()


async def test_nothing_is_applied_or_shown_before_it_is_appended() -> None:
    leading = Leading()
    waiting = leading.writer.enqueue("a")
    await asyncio.sleep(1)

    assert not waiting.done()
    assert len(leading.registry) == len(leading.seen) == 0
    leading.log.open.set()
    assert await waiting == "wrote a"
    assert len(leading.registry) == len(leading.seen) == 1
    await leading.stop()


async def test_a_write_in_flight_is_answered_when_its_writer_closes_and_the_others_are_told() -> (
    None
):
    leading = Leading()
    inputs = [leading.writer.enqueue(item) for item in ("a", "b", "c")]
    await asyncio.sleep(1)

    leading.writer.close()
    leading.log.open.set()

    assert [await each for each in inputs[:2]] == ["wrote a", "wrote b"]
    with pytest.raises(UnavailableError):
        await inputs[2]
    with pytest.raises(UnavailableError):
        await leading.writer.enqueue("d")
    await leading.stop()


async def test_who_waits_for_a_deposed_writer_is_told() -> None:
    leading = Leading()
    inputs = [leading.writer.enqueue(item) for item in ("a", "b", "c")]
    leading.log.refuses = True
    leading.log.open.set()

    with pytest.raises(RefusedError):
        await leading.running

    found = await asyncio.gather(*inputs, return_exceptions=True)
    assert [type(each) for each in found] == [UnavailableError] * 3
    assert len(leading.registry) == 0


# The tail


def test_a_tail_answers_what_follows_a_cursor_it_covers() -> None:
    chain = Chain()
    tail = Tail()
    for _ in range(5):
        tail.push(chain.commit())

    def after(seq: int) -> list[int] | None:
        found = tail.after(Cursor("one", Position(1, seq)))
        return None if found is None else [each.entry.position.seq for each in found]

    assert tail.after(Cursor("one", START)) == chain.entries
    assert after(2) == [3, 4]
    assert after(4) == after(9) == []
    assert tail.after(Cursor("two", Position(1, 2))) is None


def test_a_tail_is_bounded_and_knows_what_it_has_let_go() -> None:
    chain = Chain()
    for _ in range(5):
        chain.commit(Change("kind", "default///a", bytes(100)))
    tail = Tail(bytes_max=3 * len(chain.entries[1].data))
    for sealed in chain.entries:
        tail.push(sealed)

    assert tail.after(Cursor("one", Position(1, 0))) is None
    assert tail.after(Cursor("one", Position(1, 1))) == chain.entries[2:]


def test_a_tail_forgets_what_an_entry_does_not_continue() -> None:
    chain, other = Chain(), Chain(incarnation="two")
    tail = Tail()
    tail.push(chain.commit())

    tail.push(other.commit())

    assert tail.after(Cursor("one", START)) is None
    assert tail.after(Cursor("two", START)) == other.entries


def test_an_empty_tail_covers_nothing() -> None:
    assert Tail().after(Cursor("one", START)) is None


async def test_who_follows_a_tail_wakes_at_news() -> None:
    tail = Tail()
    waiting = asyncio.ensure_future(tail.wait(10.0))
    await asyncio.sleep(1)
    assert not waiting.done()

    tail.push(Chain().commit())

    await waiting
    await tail.wait(3.0)
    assert asyncio.get_running_loop().time() == pytest.approx(4)
