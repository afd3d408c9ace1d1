"""Ages of what is read of a log, by monotonic clocks alone."""

from __future__ import annotations

import pytest

from zonemesh.freshness import Freshness, paused_ms


def known() -> Freshness:
    """Of an entry at log time 1 s that was 2 s old at 100 s."""
    found = Freshness()
    found.guess(2.0, 1_000, 100.0)
    return found


def test_an_age_grows_and_a_later_entry_is_younger_by_what_log_time_has_advanced() -> None:
    age = known()
    assert age.age_s(103.0) == pytest.approx(5.0)

    age.applied(4_000, 103.0)

    assert age.age_s(103.0) == pytest.approx(2.0)


def test_a_pause_that_log_time_does_not_count_makes_an_entry_younger_as_well() -> None:
    age = known()

    age.applied(1_500, 130.0, paused_ms=30_000)

    assert age.age_s(130.0) == pytest.approx(1.5)


def test_an_entry_is_no_older_than_the_one_before_was_new() -> None:
    age = known()
    age.read_all(109.9)

    age.applied(1_000, 110.0)
    assert age.age_s(110.0) == pytest.approx(12.0)  # it may have waited for the store all the time
    age.applied(2_000, 111.0)

    assert age.age_s(111.0) == pytest.approx(0.1)


def test_what_had_waited_for_the_store_is_as_old_as_that_took_and_the_next_is_not() -> None:
    age = known()
    age.read_all(109.9)  # made at 99.5 s, taken at 110 s

    age.applied(2_500, 110.0)
    assert age.age_s(110.0) == pytest.approx(10.5)
    age.applied(2_500 + 5_000, 110.1, paused_ms=5_500)

    assert age.age_s(110.1) == pytest.approx(0.1)


def test_what_log_time_does_not_tell_counts_from_when_the_entry_before_was_taken() -> None:
    age = known()
    age.read_all(109.9)
    age.applied(2_500, 110.0)
    age.read_all(112.0)

    age.applied(2_500 + 5_000, 112.1)  # 10.5 s have passed: beyond what log time counts

    assert age.age_s(112.1) == pytest.approx(2.2)


def test_no_age_is_negative_whatever_an_entry_says() -> None:
    age = known()

    age.applied(1_000, 101.0, paused_ms=10**9)

    assert age.age_s(101.0) == 0.0


@pytest.mark.parametrize("told", [None, "7", -7, 7.5, True, [7]])
def test_a_pause_of_another_shape_is_none(told: object) -> None:
    assert paused_ms({"paused_ms": told}) == 0
    assert paused_ms({}) == 0
