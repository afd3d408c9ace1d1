"""The outermost frame of a process: event loop, signals, exit codes.

Exit codes: 0 after a graceful stop, 2 for a configuration to change, 1 for anything else.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvloop

from zonemesh.errors import ConfigError, MeshError

log = structlog.get_logger(__name__)

STOP_S = 30.0
"""The longest graceful stop; then the process leaves as it is, as the log is safe against that."""

GC_THRESHOLDS = (10_000, 10, 1_000)
"""Everything is visited rarely, as what is garbage here is freed by reference counts and what lives
is much; what is new in small pieces: 100,000 objects that live on are a stall of 10 ms."""

Main = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs the process until the event is set, then stops gracefully and returns."""


def run_main(main: Main, *, stop_s: float = STOP_S) -> int:
    """Run `main` on uvloop; SIGTERM and SIGINT set its event, a second one ends it at once.

    Args:
        main: The process.
        stop_s: Its longest graceful stop.

    Returns:
        The exit code; errors have been printed on stderr.
    """
    # From the start: loading 100,000 records would be visited over and over by the collector.
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(main, stop_s))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 -- the last frame: everything becomes an exit code
        return report(error)
    return 0


def report(error: BaseException) -> int:
    """Print what ended the process: a line per fault, a traceback only for a bug.

    Returns:
        The exit code.
    """
    causes = list(_leaves(error))
    for cause in causes:
        if isinstance(cause, ConfigError):
            for fault in cause.faults:
                _print(f"error: {fault}")
        elif isinstance(cause, MeshError):
            _print(f"error: {cause}")
        else:
            traceback.print_exception(cause)
    return 2 if all(isinstance(cause, ConfigError) for cause in causes) else 1


def freeze_heap() -> None:
    """Move everything alive out of the garbage collector's sight; call once the state is loaded.

    A full collection visits every container: with 100,000 resources loaded that is a stall of
    seconds, for objects that live as long as the process.
    """
    # Not the oldest generation: visiting it is the stall that this is here to avoid. What garbage
    # it holds is kept for good; loading makes next to none.
    gc.collect(1)
    gc.freeze()


def give_back_memory() -> None:
    """Return to the system what the allocator holds and nobody uses; where it is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def _run(main: Main, stop_s: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, number, stop_s)
    try:
        await main(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _stop(stop: asyncio.Event, number: signal.Signals, stop_s: float) -> None:
    if stop.is_set():
        _leave("stop_interrupted", 128 + number)
    log.info("stopping", signal=number.name)
    stop.set()
    asyncio.get_running_loop().call_later(stop_s, _leave, "stop_timed_out", 1)


def _leave(event: str, code: int) -> None:
    _print(f"error: {event}")
    os._exit(code)  # finally-blocks had their chance; one of them is what hangs


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
