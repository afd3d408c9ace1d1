"""Keeps components running: restarts what the network broke, never what a bug broke."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from zonemesh.errors import UnavailableError

log = structlog.get_logger(__name__)

Component = Callable[[], Awaitable[None]]

LEADER_RETRY_S = 0.25
"""Between two tries of a leader's component, on average: half of it to half as much again. Leaders
of all zones lose one Redis at the same moment."""

REMIND_S = 10.0
"""How often a trouble that lasts is said again: each try would be four lines a second."""

SOUND_S = 5.0
"""What runs for so long after it failed has recovered; a try that waits in vain is shorter."""

STOP_S = 5.0
"""How long one component may take to end once cancelled before the next one is told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential, bounded, jittered: replicas that fail together do not return together."""

    base_s: float = 0.1
    max_s: float = 2.0
    """A store that is back is read again within this: what it has lost is found so soon."""

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """Seconds before restart `attempt` (from 0): between half and all of the bound."""
        bound_s = min(self.max_s, self.base_s * 2.0 ** min(attempt, 32))
        return bound_s * rng.uniform(0.5, 1.0)


async def supervise(
    components: Mapping[str, Component],
    backoff: Backoff,
    rng: random.Random,
    *,
    stop: asyncio.Event | None = None,
    restarted: Callable[[str], None] = lambda _: None,
) -> None:
    """Run every component until all return, one fails for good, or `stop` is set.

    Stopping cancels them one by one, the last one first: what was started later may use what was
    started earlier.

    Args:
        components: In order of start. Each may be called again after it raised.
        backoff: Delays between an `UnavailableError` and the next call.
        rng: For the jitter.
        stop: Set from outside for a graceful end.
        restarted: Told the name of a component each time it will be called again (a metric).

    Raises:
        ExceptionGroup: What ended the process, once the other components were cancelled.
    """
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(_keep(name, component, backoff, rng, restarted), name=name)
            for name, component in components.items()
        }
        if stop is not None:
            stopper = group.create_task(_stop(stop, tasks), name="stop")
            await asyncio.wait(tasks.values())
            if not stop.is_set():
                stopper.cancel()


def check_cancelled() -> None:
    """Raise CancelledError if this task is to end.

    For whoever runs again what failed: before Python 3.13, a TaskGroup whose child fails in the
    very turn in which it is cancelled raises the child's error alone, and the end is forgotten.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _stop(stop: asyncio.Event, tasks: Mapping[str, asyncio.Task[None]]) -> None:
    await stop.wait()
    for name, task in reversed(list(tasks.items())):
        if task.cancel():
            _, pending = await asyncio.wait({task}, timeout=STOP_S)
            if pending:
                log.warning("component_slow_to_stop", component=name, waited_s=STOP_S)


async def _keep(
    name: str,
    component: Component,
    backoff: Backoff,
    rng: random.Random,
    restarted: Callable[[str], None],
) -> None:
    clock = asyncio.get_running_loop().time
    attempt = 0
    trouble = _Trouble(name)
    while True:
        started_s = clock()
        try:
            with trouble.watched():
                await component()
        except UnavailableError as error:
            check_cancelled()
            if clock() - started_s > backoff.max_s:
                attempt = 0
            delay_s = backoff.delay_s(attempt, rng)
            attempt += 1
            trouble.failed(error)
            restarted(name)
            await asyncio.sleep(delay_s)
        else:
            return


async def keep(name: str, component: Component) -> None:
    """Run a leader's component again after what the store's absence ended: leading outlasts it."""
    trouble = _Trouble(name)
    while True:
        try:
            with trouble.watched():
                await component()
        except UnavailableError as error:
            check_cancelled()
            trouble.failed(error)
            await asyncio.sleep(LEADER_RETRY_S * random.uniform(0.5, 1.5))


class _Trouble:
    """Says of a component that it fails, why, and when it is over; not each single time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clock = asyncio.get_running_loop().time
        self._since_s: float | None = None
        self._said_s = 0.0
        self._why = ""
        self._failures = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """One run of it: over once it has lasted."""
        sound = None
        if self._since_s is not None:
            sound = asyncio.get_running_loop().call_later(SOUND_S, self._recovered)
        try:
            yield
        finally:
            if sound is not None:
                sound.cancel()

    def failed(self, error: UnavailableError) -> None:
        now_s, why = self._clock(), str(error)
        if self._since_s is None:
            self._since_s = now_s
        self._failures += 1
        if why == self._why and now_s - self._said_s < REMIND_S:
            return
        self._why, self._said_s = why, now_s
        log.warning(
            "component_failing",
            component=self._name,
            error=why,
            failures=self._failures,
            for_s=round(now_s - self._since_s, 1),
        )

    def _recovered(self) -> None:
        assert self._since_s is not None
        log.info(
            "component_recovered",
            component=self._name,
            failures=self._failures,
            after_s=round(self._clock() - SOUND_S - self._since_s, 1),
        )
        self._since_s, self._why, self._failures = None, "", 0
