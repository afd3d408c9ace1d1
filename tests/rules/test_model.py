"""What entries are made of."""

from __future__ import annotations

from zonemesh.model import Change, in_parts


def test_parts_go_beyond_their_size_by_one_change_at_most_and_lose_none() -> None:
    changes = [Change("Mesh", f"///m{number}", bytes(40)) for number in range(10)]

    parts = list(in_parts(changes, 3 * changes[0].size - 1))

    assert [len(part) for part in parts] == [3, 3, 3, 1]
    assert [change for part in parts for change in part] == changes
    assert list(in_parts((), 100)) == []
