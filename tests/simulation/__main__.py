"""`make simulate`: seeds that were never run before, or those that one names.

make simulate                      fresh seeds for a minute
make simulate ARGS=17              one again
make simulate ARGS=5000-9000       many
make simulate ARGS='--seconds 600 --also recovery'
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import time
from collections.abc import Iterator

from tests.simulation.operations import GROUPS, KINDS, Plan, plan
from tests.simulation.shrinking import shortest
from tests.simulation.simulation import simulate

_SHRINK_S = 60.0
_FRESH = 1 << 32
"""The seeds of the test suite are below."""


def failure_of(drawn: Plan, *, shrink_s: float) -> str | None:
    """What is to be told of a plan that fails: seed, shortest plan, what happened in it."""
    outcome = simulate(drawn)
    if not outcome.failed:
        return None

    def fails(candidate: Plan) -> bool:
        again = simulate(candidate)
        return again.failed and again.broken == outcome.broken

    found = simulate(shortest(drawn, fails, limit_s=shrink_s))
    broken = ", ".join(sorted(outcome.broken)) or "no invariant"
    kept, whole = len(found.plan.operations), len(drawn.operations)
    return f"seed {drawn.seed} breaks {broken}; {kept} of its {whole} operations do:\n{found}"


def _seeds(text: str) -> Iterator[int]:
    if not text:
        return itertools.count(_FRESH + secrets.randbelow(_FRESH))
    first, dash, end = text.partition("-")
    return iter(range(int(first), int(end) if dash else int(first) + 1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("seeds", nargs="?", default="", help="17 or 5000-9000; fresh ones without")
    parser.add_argument("--seconds", type=float, help="stop after (60 with fresh seeds)")
    parser.add_argument("--also", action="append", default=[], choices=[*KINDS, *GROUPS])
    parser.add_argument("--never", action="append", default=[], choices=list(KINDS))
    options = parser.parse_args()
    seconds = options.seconds or (0.0 if options.seeds else 60.0)
    deadline_s = time.monotonic() + seconds if seconds else float("inf")
    run = failed = 0
    for seed in _seeds(options.seeds):
        if time.monotonic() > deadline_s:
            break
        told = failure_of(plan(seed, also=options.also, never=options.never), shrink_s=_SHRINK_S)
        run += 1
        failed += told is not None
        if told is not None:
            print(told, flush=True)
    print(f"{run} seeds, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
