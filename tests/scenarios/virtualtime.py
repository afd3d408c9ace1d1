"""An event loop whose time is virtual and whose tasks belong to simulated processes.

Not looptime: work in threads (a snapshot is compressed in one) would let real time into virtual
time there, so that a seed would not repeat; it idles 42 turns before each step of time; and it
knows no processes. Here a thread's work is done in place, time moves once nobody has anything to
do, and a process can be frozen as SIGSTOP freezes it, or killed between any two of its steps.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

START_S = 1_000.0
"""A monotonic clock does not begin at 0 either."""
_TURNS_MAX = 100_000
"""Turns without any time passing: something spins."""


class Process:
    """What runs together and is frozen or killed together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = 0
        """Callbacks run so far: the places between which a process can die."""
        self.dead = False
        self.frozen = False
        self._held: deque[asyncio.Handle] = deque()
        self._fatal_step: int | None = None
        self._on_death: Callable[[], None] = lambda: None
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine, and every task that it makes, in this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context, name=self.name)

    def freeze(self) -> None:
        """SIGSTOP: clocks go on, nothing is run."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: everything that came due meanwhile runs now, in order."""
        self.frozen = False
        held, self._held = self._held, deque()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.ready(held)

    def die(self) -> None:
        """SIGKILL: not even a `finally` is run (but by `bury`, after the test)."""
        if not self.dead:
            self.dead = True
            self.freeze()
            self._on_death()

    def die_after(self, steps: int, then: Callable[[], None]) -> None:
        """Die once so many more callbacks have run; `then` is called at that moment."""
        self._fatal_step = self.steps + steps
        self._on_death = then
        self._look_at_death()

    def spare(self) -> None:
        """Forget about `die_after`."""
        self._fatal_step = None

    def takes(self, handle: asyncio.Handle) -> bool:
        """Whether a callback is to be run now; else it is kept until `thaw`."""
        if self.frozen:
            self._held.append(handle)
            return False
        self.steps += 1
        return True

    def ran(self) -> None:
        self._look_at_death()

    def _look_at_death(self) -> None:
        if self._fatal_step is not None and self.steps >= self._fatal_step:
            self._fatal_step = None
            self.die()


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current() -> str:
    """The name of the process that runs; "test" outside of any."""
    process = _PROCESS.get()
    return "test" if process is None else process.name


def now_s() -> float:
    """Of the running loop; 0 where none runs."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


class _Numbered(asyncio.Task[Any]):
    """A task that sets hold in the same order in every run: task groups cancel out of one."""

    _numbers = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        _Numbered._numbers += 1
        self._number = _Numbered._numbers
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class _NoSelector:
    def select(self, timeout: float | None) -> list[Any]:
        raise NotImplementedError


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio without files, sockets, threads or real time."""

    # asyncio's own, which its type stubs leave out.
    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = START_S
        self._turns = 0
        _Numbered._numbers = 0
        self.set_task_factory(lambda loop, work, **options: _Numbered(work, loop=loop, **options))
        self._selector = _NoSelector()  # looptime's plugin asks every loop for one

    def time(self) -> float:
        return self._now

    def ready(self, handles: deque[asyncio.Handle]) -> None:
        self._ready.extend(handles)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do a thread's work at once: the awaiting task still gives others a turn."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            done.set_exception(error)
        return done

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """There is none."""

    def _run_once(self) -> None:
        self._pass_time()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_PROCESS)
            if process is None:
                handle._run()
            elif process.takes(handle):
                handle._run()
                process.ran()

    def _pass_time(self) -> None:
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if self._ready or self._stopping:
            self._turns += 1
            if self._turns > _TURNS_MAX:
                raise RuntimeError(f"something spins at {self._now}: {asyncio.all_tasks(self)}")
        elif not timers:
            raise RuntimeError(f"nothing will ever happen after {self._now}")
        else:
            self._turns = 0
            self._now = max(self._now, timers[0]._when)
        while timers and timers[0]._when <= self._now:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""
