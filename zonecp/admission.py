"""Who is sent a snapshot now, and who waits: a few at a time, in the order in which they came.

A thousand agents that come at once are served no sooner by being served at once: each write takes
its turn of the event loop, and every delta, heartbeat and write of the zone would wait for a round
of all of them. Waiting costs a subscriber nothing: it is told so, and answers from the map it has.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zonemesh.errors import OverloadedError

PLACES = 8
"""Snapshots under way at once: pieces of 128 KiB, some 100 us each to write, so that a round of all
takes the loop about a millisecond."""
WAITING_MAX = 2_000
"""Subscribers that wait; more are told to come again. Each is a connection of some 30 KiB."""
PLACE_S = 5.0
"""How long one keeps its place. Whoever takes longer is slow itself: its snapshot goes on beside
the others, which it delays little, and must not keep the queue waiting."""
RETRY_S_MIN = 1
RETRY_S_MAX = 60
_TAKEN_WEIGHT = 0.1
_FIRST_GUESS_S = 0.1


class Turn:
    """One subscriber's: granted in order, given back once."""

    def __init__(self) -> None:
        self.granted = asyncio.Event()
        self.granted_s: float | None = None
        """By the loop's clock."""
        self.limit: asyncio.TimerHandle | None = None

    @property
    def dismissed(self) -> bool:
        """Whether it was let go without a place."""
        return self.granted.is_set() and self.granted_s is None

    async def within(self, timeout_s: float) -> bool:
        """Wait for the grant; False if it has not come in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.granted.wait()
        return self.granted.is_set()


class Admission:
    """The places and the queue of one process."""

    def __init__(
        self, *, places: int = PLACES, waiting_max: int = WAITING_MAX, place_s: float = PLACE_S
    ) -> None:
        self._places = places
        self._waiting_max = waiting_max
        self._place_s = place_s
        self._queue: deque[Turn] = deque()
        self._held: set[Turn] = set()
        self._taken_s = _FIRST_GUESS_S
        self.refused = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nobody is being sent a snapshot or waits for one."""
        return not (self._queue or self._held)

    def check(self) -> None:
        """Refuse who would have to wait behind too many.

        Raises:
            OverloadedError: It says when there may be room.
        """
        if len(self._queue) < self._waiting_max:
            return
        self.refused += 1
        wait_s = math.ceil(len(self._queue) / self._places * self._taken_s)
        retry_s = max(RETRY_S_MIN, min(RETRY_S_MAX, wait_s))
        raise OverloadedError(
            f"{len(self._queue)} subscribers wait for a snapshot; come again in {retry_s} s",
            retry_after_s=retry_s,
        )

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A place, or one in the queue until `granted` is set; given up at the end."""
        turn = Turn()
        self._queue.append(turn)
        self._grant()
        try:
            yield turn
        finally:
            self._leave(turn)

    def close(self) -> None:
        """Let everybody go who waits: the process stops."""
        for turn in self._queue:
            turn.granted.set()

    def _grant(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and len(self._held) < self._places:
            turn = self._queue.popleft()
            self._held.add(turn)
            turn.granted_s = loop.time()
            turn.limit = loop.call_later(self._place_s, self._leave, turn)
            turn.granted.set()

    def _leave(self, turn: Turn) -> None:
        if turn in self._held:
            self._held.remove(turn)
            assert turn.limit is not None
            assert turn.granted_s is not None
            turn.limit.cancel()
            taken_s = asyncio.get_running_loop().time() - turn.granted_s
            self._taken_s += _TAKEN_WEIGHT * (taken_s - self._taken_s)
        elif turn.granted_s is None:
            self._queue.remove(turn)
        self._grant()
