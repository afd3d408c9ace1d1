"""What entries are made of."""

from __future__ import annotations

import pytest

from zonemesh.model import SEQ_MAX, Change, Cursor, Position, in_parts


def test_parts_go_beyond_their_size_by_one_change_at_most_and_lose_none() -> None:
    changes = [Change("Mesh", f"///m{number}", bytes(40)) for number in range(10)]

    parts = list(in_parts(changes, 3 * changes[0].size - 1))

    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [change for part in parts for change in part] == changes
    assert list(in_parts((), 100)) == []


@pytest.mark.parametrize("position", [Position(7, 0), Position(SEQ_MAX, SEQ_MAX)])
def test_a_cursor_that_a_note_tells_is_heard(position: Position) -> None:
    cursor = Cursor("one", position)

    assert Cursor.heard(cursor.told()) == cursor


@pytest.mark.parametrize(
    "value",
    [
        None,
        "one.7-4",
        ["one"],
        ["one", [7]],
        ["one", ["7", 4]],
        ["", [7, 4]],
        ["o\nne", [7, 4]],
        ["o" * 201, [7, 4]],
        ["one", [7, -1]],
        ["one", [SEQ_MAX + 1, 4]],
    ],
)
def test_what_a_note_tells_else_is_no_cursor(value: object) -> None:
    assert Cursor.heard(value) is None
