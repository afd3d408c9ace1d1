"""A thousand seeds of everything that can go wrong, and what a failure of one looks like.

`make simulate ARGS=5000-9000` runs others, `make simulate ARGS=17` one again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.__main__ import failure_of
from tests.simulation.operations import GROUPS, KINDS, Operation, plan
from tests.simulation.shrinking import shortest
from tests.simulation.simulation import Simulation, simulate

SEEDS = 1_000
BATCH = 20
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_happens_nothing_is_lost_and_all_agree_afterwards(first: int) -> None:
    for seed in range(first, first + BATCH):
        told = failure_of(plan(seed), shrink_s=30.0)
        assert told is None, told


def test_every_kind_of_operation_has_its_doer_and_is_drawn() -> None:
    drawn = {each.kind for seed in range(400) for each in plan(seed, also=GROUPS).operations}
    composed = {"swizzle", "flap", "outage", "own_outage", "pause"}

    assert all(hasattr(Simulation, f"do_{kind}") for kind in drawn)
    assert KINDS.keys() - composed <= drawn


def test_a_seed_is_the_same_run_each_time_whatever_the_hash_seed() -> None:
    def digest(hash_seed: str) -> str:
        code = (
            "from hashlib import sha256\n"
            "from tests.simulation.operations import plan\n"
            "from tests.simulation.simulation import simulate\n"
            "told = ''.join(simulate(plan(seed)).digest for seed in range(5))\n"
            "print(sha256(told.encode()).hexdigest())"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert digest("1") == digest("2")


def test_a_failing_plan_is_cut_down_to_the_operations_that_matter() -> None:
    """Here a plan "fails" if it has both of two operations, in order."""
    first, second = Operation("cut_store"), Operation("heal_store")
    noise = plan(3, never=("outage",)).operations
    whole = replace(plan(3), operations=(*noise[:5], first, *noise[5:], second))

    def fails(candidate: object) -> bool:
        kept = [each for each in candidate.operations if each in (first, second)]  # type: ignore[attr-defined]
        return kept == [first, second]

    assert shortest(whole, fails, limit_s=10.0).operations == (first, second)


def test_what_is_left_of_a_plan_can_still_be_carried_out() -> None:
    whole = plan(5, also=("disks", "store"))

    for start in range(0, len(whole.operations), 4):
        rest = replace(whole, operations=whole.operations[start::3])
        assert not simulate(rest).failed
