"""Fair shares of global's entries, and how fast a zone is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globalcp.turns import BURST_S, Allowance, Turns

KIB = 1 << 10


def served(turns: Turns, backlog: dict[str, list[int]], rounds: int) -> dict[str, int]:
    """Serve one piece at a time to whoever is first."""
    found = dict.fromkeys(backlog, 0)
    for _ in range(rounds):
        waiting = [zone for zone, pieces in backlog.items() if pieces]
        if not waiting:
            break
        zone = turns.order(waiting)[0]
        size = backlog[zone].pop(0)
        turns.serve(zone, size)
        found[zone] += size
    return found


@given(st.lists(st.integers(1, 256 * KIB), min_size=1, max_size=50), st.integers(1, 256 * KIB))
def test_who_comes_after_a_flood_is_next_whatever_was_served_and_waits(
    flood: list[int], size: int
) -> None:
    turns = Turns()
    served(turns, {"flood": list(flood)}, len(flood))

    assert turns.order(["flood", "quiet"])[0] == "quiet"
    turns.serve("quiet", size)


@given(
    st.lists(st.integers(1, 256 * KIB), min_size=200, max_size=200),
    st.lists(st.integers(1, 256 * KIB), min_size=200, max_size=200),
    st.integers(10, 150),
)
def test_two_that_always_wait_get_equal_bytes_but_for_a_piece_each(
    a: list[int], b: list[int], rounds: int
) -> None:
    found = served(Turns(), {"a": a, "b": b}, rounds)

    assert abs(found["a"] - found["b"]) <= 2 * 256 * KIB


def test_a_flood_is_not_starved_by_one_that_always_has_a_little() -> None:
    found = served(Turns(), {"flood": [200 * KIB] * 100, "little": [KIB] * 5_000}, 3_000)

    assert found["flood"] >= found["little"] - 200 * KIB


def test_who_was_idle_has_saved_nothing_up() -> None:
    turns = Turns()
    served(turns, {"busy": [64 * KIB] * 1_000}, 1_000)

    found = served(turns, {"busy": [64 * KIB] * 50, "back": [64 * KIB] * 50}, 40)

    assert found["busy"] >= 18 * 64 * KIB


def test_nothing_is_kept_of_zones_that_have_gone() -> None:
    turns = Turns()
    for number in range(1_000):
        turns.serve(f"zone-{number}", KIB)
        turns.serve("stays", 2 * KIB)

    assert len(turns._finished) <= 3


def test_a_zone_within_its_rate_never_waits() -> None:
    allowance = Allowance(entries_per_s=100, bytes_per_s=1_000, now_s=0.0)

    for second in range(100):
        assert allowance.wait_s(second) == 0.0
        allowance.take(second, entries=100, size=1_000)


@pytest.mark.parametrize("entries, size", [(1, 10_000), (1_000, 1)])
def test_a_zone_beyond_its_burst_waits_until_its_rate_has_paid_for_it(
    entries: int, size: int
) -> None:
    allowance = Allowance(entries_per_s=100, bytes_per_s=1_000, now_s=0.0)

    allowance.take(0.0, entries=entries, size=size)

    assert allowance.wait_s(0.0) == pytest.approx(10.0 - BURST_S)
    assert allowance.wait_s(5.0) == pytest.approx(1.0)
    assert allowance.wait_s(10.0 - BURST_S) == pytest.approx(0.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5_000)), max_size=60))
def test_over_any_time_no_more_than_the_rate_and_the_burst_is_read(
    steps: list[tuple[float, int]],
) -> None:
    allowance = Allowance(entries_per_s=1e9, bytes_per_s=1_000, now_s=0.0)
    now_s, read = 0.0, 0

    for passed_s, size in steps:
        now_s += passed_s
        if allowance.wait_s(now_s) == 0.0:
            allowance.take(now_s, entries=1, size=size)
            read += size
            assert read <= 1_000 * (now_s + BURST_S) + 5_000 + 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(entries_per_s=100, bytes_per_s=1_000, now_s=100.0)
    allowance.take(100.0, entries=1, size=10_000)

    waits = [allowance.wait_s(now_s) for now_s in (50.0, 40.0, 50.0)]

    assert waits[0] == pytest.approx(10.0 - BURST_S)
    assert waits[2] >= waits[0] - 10.0
