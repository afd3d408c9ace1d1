"""Free ports for servers of tests: each worker of pytest has its own, and gives none twice soon.

A port that is found free is bound only later, and again after each restart of its server: of one
range, two workers would take one another's now and then.
"""

from __future__ import annotations

import os
import random

from zonemesh.cli.demo.ports import is_free

RANGE = range(10_000, 15_000)
"""Below those that Linux gives to outgoing connections, and those of `zonemesh demo`."""


def _of_worker() -> range:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = len(RANGE) // workers
    return RANGE[int(worker) * size :][:size]


class _Numbers:
    """By turns, from anywhere: another run may be under way on the same machine."""

    def __init__(self, of: range) -> None:
        self._of = of
        self._next = random.SystemRandom().randrange(len(of))

    def take(self) -> int:
        for _ in self._of:
            port = self._of[self._next]
            self._next = (self._next + 1) % len(self._of)
            if is_free(port):
                return port
        raise AssertionError(f"no port is free in {self._of}")


_NUMBERS = _Numbers(_of_worker())


def free(count: int) -> list[int]:
    """Distinct ports, free for UDP and TCP."""
    return [_NUMBERS.take() for _ in range(count)]


def free_port() -> int:
    """One of them."""
    return _NUMBERS.take()
