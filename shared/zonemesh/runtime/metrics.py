"""Metrics registries, made per process and passed in, and the stall meter of the event loop."""

from __future__ import annotations

import asyncio

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST

TICK_S = 0.05
WINDOW_S = 15.0
"""Prometheus' usual scrape interval: a stall is in the gauge for one to two windows after it."""


def new_registry() -> CollectorRegistry:
    """A registry with the process's own metrics (memory, CPU, descriptors).

    Without the library's garbage collector metrics: their callback runs inside every collection.
    """
    # A second series per counter that nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text exposition format, to be sent as `CONTENT_TYPE`."""
    return generate_latest(registry)


class LoopStall:
    """Measures how late the event loop serves a tick: what a blocking call costs everyone else."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._delay = Histogram(
            "zonemesh_loop_stall_seconds",
            "How late the event loop served a 50 ms tick.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self._max = Gauge(
            "zonemesh_loop_stall_max_seconds",
            "Longest stall of the last 15 to 30 seconds.",
            registry=registry,
        )
        self._max.set_function(lambda: max(self._previous_s, self._current_s))
        self._previous_s = 0.0
        self._current_s = 0.0

    async def run(self) -> None:
        """Tick for ever; a component for `supervise`."""
        clock = asyncio.get_running_loop().time
        window_ends_s = clock() + WINDOW_S
        while True:
            started_s = clock()
            await asyncio.sleep(TICK_S)
            now_s = clock()
            stall_s = max(0.0, now_s - started_s - TICK_S)
            self._delay.observe(stall_s)
            self._current_s = max(self._current_s, stall_s)
            if now_s >= window_ends_s:
                self._previous_s, self._current_s = self._current_s, 0.0
                window_ends_s = now_s + WINDOW_S
