"""The shortest plan that still fails: delta debugging over a plan's operations.

After Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (IEEE Transactions on
Software Engineering 28(2), 2002), whose `ddmin` this is without its test of the kept parts alone:
whole halves are tried first by taking halves out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.operations import Plan


def shortest(plan: Plan, fails: Callable[[Plan], bool], *, limit_s: float) -> Plan:
    """A plan of as few of the operations as found within a time; `plan` itself must fail.

    Args:
        plan: What failed.
        fails: Whether a plan fails in the same way.
        limit_s: Real time after which the shortest so far has to do.
    """
    deadline_s = time.monotonic() + limit_s
    size = max(1, len(plan.operations) // 2)
    while time.monotonic() < deadline_s:
        smaller = _without(plan, size, fails, deadline_s)
        if smaller is not None:
            plan = smaller
            size = max(1, min(size, len(plan.operations) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    return plan


def _without(
    plan: Plan, size: int, fails: Callable[[Plan], bool], deadline_s: float
) -> Plan | None:
    """The plan without one run of so many operations, if that fails too; the last ones first."""
    operations = plan.operations
    for end in range(len(operations), 0, -size):
        if time.monotonic() > deadline_s:
            return None
        start = max(0, end - size)
        candidate = replace(plan, operations=operations[:start] + operations[end:])
        if fails(candidate):
            return candidate
    return None
