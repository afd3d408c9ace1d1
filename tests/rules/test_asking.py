"""How `zonedp status` and `lookup` show what an agent says."""

from __future__ import annotations

from zonecp.dataplane.asking import ITEMS_MAX, _lines


def test_of_a_long_list_the_first_are_shown_a_line_each_and_the_rest_are_counted() -> None:
    rejected = [
        {"type": "listener", "name": f"outbound:241.0.0.{number}:80", "error": "no"}
        for number in range(ITEMS_MAX + 3)
    ]

    title, *lines, more = _lines({"rejected": rejected})

    assert title == "rejected"
    assert lines[0] == "  listener outbound:241.0.0.0:80 no"
    assert len(lines) == ITEMS_MAX
    assert more == "  ... and 3 more: --json"


def test_a_list_of_words_is_one_line() -> None:
    assert [*_lines({"domains": ["mesh", "mesh.local"], "looping": []})] == [
        "domains  mesh, mesh.local",
        "looping  -",
    ]
