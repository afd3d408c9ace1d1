"""The leader's write path: many waiting inputs become one entry (group commit).

Order of things, in this one place: decide, append, apply, publish, answer. Nothing that was not
appended is ever seen by a reader, and nothing is decided twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from zonemesh.deciding import Decide, Now
from zonemesh.errors import MeshError, RefusedError, UnavailableError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Lease
from zonemesh.model import Cursor
from zonemesh.registry import Registry
from zonemesh.wire import Sealed

_INPUTS_MAX = 2_000
"""More never fit into one entry; a long queue is not copied for each."""
QUEUE_MAX = 20_000
"""Inputs that may wait. At 20,000 a client would wait over a second: better told at once."""


@dataclass(slots=True)
class _Waiting:
    input: Any
    done: asyncio.Future[Any]


class Writer:
    """Turns inputs into entries while it leads; dies of `RefusedError` when it does not."""

    def __init__(
        self,
        appender: Appender,
        registry: Registry,
        decide: Decide,
        *,
        clock: Clock,
        on_committed: Callable[[Sequence[Sealed]], None],
    ) -> None:
        self._appender = appender
        self._registry = registry
        self._decide = decide
        self._clock = clock
        self._on_committed = on_committed
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._deposed: str | None = None
        self._committing = asyncio.Lock()

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def blocked_s(self) -> float:
        """How long the store has refused to take the present entry; 0 while it does."""
        since = self._appender.blocked_since_s
        return 0.0 if since is None else self._clock.mono_s() - since

    @property
    def format(self) -> int:
        """What entries are written in."""
        return self._appender.format

    def raise_format(self, version: int) -> bool:
        """Write from the next entry on in a later format; whether it is one."""
        if version <= self._appender.format:
            return False
        self._appender.format = version
        return True

    async def submit(self, item: Any) -> Any:
        """Have one of the leader's own inputs decided and committed; answer its outcome.

        Raises:
            UnavailableError: This writer was deposed; the input may have been committed or not.
            MeshError: Its outcome was an error.
        """
        outcome = await self._add(item)
        if isinstance(outcome, MeshError):
            raise outcome
        return outcome

    def enqueue(self, item: Any) -> asyncio.Future[Any]:
        """Like `submit`, but errors that are outcomes come as values, and there is a limit.

        The limit is for clients: a leader whose heartbeat found no room would stop leading.

        Raises:
            UnavailableError: Too much waits already, or as in `submit`.
        """
        if len(self._queue) >= QUEUE_MAX:
            raise UnavailableError(f"{QUEUE_MAX} writes are waiting; try again")
        return self._add(item)

    def _add(self, item: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise UnavailableError("this control plane has just stopped leading; try again")
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, done))
        self._wake.set()
        return done

    async def run(self) -> None:
        """Commit what is submitted until the log refuses.

        Raises:
            RefusedError: Another writer leads.
        """
        try:
            more = False
            while True:
                if not (self._queue or more or self._deposed):
                    self._idle.set()
                    self._wake.clear()
                    await self._wake.wait()
                    self._idle.clear()
                if self._deposed is not None:
                    raise RefusedError(self._deposed)
                async with self._committing:
                    more = await self._commit()
        finally:
            self.close()

    async def _commit(self) -> bool:
        registry = self._registry
        now = Now(
            wall_ms=self._clock.wall_ms(),
            log_time_ms=registry.log_time_ms,
            mono_s=self._clock.mono_s(),
        )
        inputs = [each.input for each in islice(self._queue, _INPUTS_MAX)]
        decision = self._decide(inputs, now)
        # Taken out before anything is awaited: `close` may empty the queue meanwhile.
        taken = [self._queue.popleft() for _ in range(decision.consumed)]
        try:
            if not decision.empty:
                sealed = self._appender.next(
                    src=decision.src, note=decision.note, changes=decision.changes
                )
                await self._appender.send(sealed)
                registry.apply(sealed)
                self._on_committed([sealed])
        except BaseException:
            _lose(taken)
            raise
        for each, outcome in zip(taken, decision.outcomes, strict=True):
            if not each.done.done():
                each.done.set_result(outcome)
        # A decision without an entry does not await: without this, a busy queue starves the loop.
        if decision.empty:
            await asyncio.sleep(0)
        return decision.more

    def depose(self, why: str) -> None:
        """End this leadership: what it decides by is not what the log says."""
        self._deposed = why
        self._wake.set()

    async def drain(self, timeout_s: float) -> None:
        """Until everything submitted so far is committed, or the time has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return

    async def resign(self, lease: Lease) -> None:
        """Append the entry that ends this leadership; nothing is taken after it."""
        self.close()
        await self._committing.acquire()
        await self._appender.resign(lease)

    def close(self) -> None:
        """Take no more inputs; those waiting learn that their fate is not known."""
        self._closed = True
        _lose(self._queue)
        self._queue.clear()


def _lose(waiting: Iterable[_Waiting]) -> None:
    for each in waiting:
        if not each.done.done():
            each.done.set_exception(
                UnavailableError("leadership ended before this write was acknowledged")
            )
            each.done.exception()  # nobody may be waiting any more: not worth a report


def cursors_note(cursors: Mapping[str, Cursor]) -> dict[str, list[Any]]:
    """Cursors in the shape that heartbeats carry them."""
    return {log: cursor.told() for log, cursor in cursors.items()}
