"""Which of two maps is the older one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonecp.dataplane.revision import is_older, own_incarnation, parse

HELD = "own.3-7~glob.2-9"

positions = st.tuples(st.integers(0, 3), st.integers(0, 3))
revisions = st.builds(
    lambda own, above: f"own.{own[0]}-{own[1]}~glob.{above[0]}-{above[1]}", positions, positions
)


@pytest.mark.parametrize(
    "offered",
    [
        "own.3-6~glob.2-9",
        "own.3-7~glob.2-8",
        "own.2-99~glob.2-9",
        "own.3-6~glob.1-99",
    ],
)
def test_no_component_greater_and_one_less_is_older(offered: str) -> None:
    assert is_older(offered, HELD)


def test_maps_of_a_zone_without_a_global_are_compared_too() -> None:
    assert is_older("own.3-6~.0-0", "own.3-7~.0-0")
    assert not is_older("own.3-8~.0-0", "own.3-7~.0-0")


@pytest.mark.parametrize(
    "offered",
    [
        HELD,
        "own.3-8~glob.2-9",
        "own.4-0~glob.2-9",
        "own.3-6~glob.2-10",  # a zone that had lost a little and has read on since
        "other.1-1~glob.2-9",
        "own.1-1~other.1-1",
        "own.1-1",
        "",
        "own.1-1~glob.x",
        "own.1-1~glob.١-1",
    ],
)
def test_anything_else_is_taken(offered: str) -> None:
    assert not is_older(offered, HELD)


@given(revisions, revisions)
def test_no_two_revisions_are_each_older_than_the_other(one: str, other: str) -> None:
    assert not (is_older(one, other) and is_older(other, one))


@given(revisions, revisions, revisions)
def test_older_than_an_older_one_is_older(one: str, two: str, three: str) -> None:
    if is_older(one, two) and is_older(two, three):
        assert is_older(one, three)


def test_a_revision_names_the_incarnation_of_the_zones_own_log() -> None:
    assert own_incarnation(HELD) == "own"
    assert own_incarnation("of a later format") is None
    assert parse("of a later format") is None
