"""`zonemesh status`: a state as people see it, and a control plane that goes and comes back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.commands import GLOBAL
from zonemesh.cli.status import lines, seconds


def shown(state: dict[str, Any], width: int | None = 80) -> str:
    return "\n".join(lines(state, "http://g1:5681", width))


def test_a_replica_is_shown_with_its_leader_zones_and_pools() -> None:
    text = shown(GLOBAL)

    assert "http://g2:5681" in text
    assert "gap 2" in text
    assert "MeshService of west: no block left" in text
    assert "west  OFFLINE  2 h  ?        5        1         2" in text
    assert "MeshService  west  9     1        2     4        1" in text


def test_nobody_leading_a_halt_and_a_blocked_log_cannot_be_overlooked() -> None:
    state = {**GLOBAL, "leader_url": None, "halted": "gap: after 1-2 came 1-4", "blocked_s": 61.0}

    text = shown(state)

    assert "NOBODY LEADS" in text
    assert "HALTED" in text
    assert "takes no entry since 61.0 s" in text


FORMATS = {"log": 1, "readable": [1, 2], "heldBackBy": []}
ZONE = {
    **GLOBAL,
    "zone": "west",
    "uid": "5f1e",
    "federated": True,
    "own": {"cursor": "5f1e.1-9", "digest": "0" * 32, "records": {}},
    "global": {"cursor": "8c1f.3-120", "digest": "0" * 32, "records": {}},
    "formats": {"own": 1, "global": 1, "readable": [1, 2]},
}


@pytest.mark.parametrize(
    "state, told",
    [
        (
            {"leader": True, "formats": {**FORMATS, "heldBackBy": ["zone east", "zone west"]}},
            "written in 1, this build reads 1 and 2; held back by zone east, zone west",
        ),
        ({"leader": True, "formats": FORMATS}, "raised once all have read it for a minute"),
        ({"formats": FORMATS}, "its leader says who holds it back"),
        (ZONE, "global's log is not in a later one"),
        (
            {**ZONE, "formats": {"own": 1, "global": 2, "readable": [1, 2]}},
            "another control plane of the zone holds it back",
        ),
    ],
)
def test_a_log_that_could_be_in_a_later_format_says_who_holds_it_back(
    state: dict[str, Any], told: str
) -> None:
    text = shown({**GLOBAL, **state}, None)

    assert told in text
    assert text.count("Format") == 1


def test_of_formats_nothing_is_said_while_the_newest_is_written() -> None:
    assert "Format" not in shown({**GLOBAL, "formats": {**FORMATS, "log": 2}})
    assert "Format" not in shown({**ZONE, "formats": {"own": 2, "global": 2, "readable": [1, 2]}})


def test_lines_fit_the_width() -> None:
    state = {**GLOBAL, "ready": "global's log has not been read yet " * 5}

    assert max(map(len, shown(state, 80).splitlines())) <= 80


@pytest.mark.parametrize(
    "value, text",
    [(None, "?"), (0.04, "0.0 s"), (119.0, "119.0 s"), (121.0, "2 min"), (200_000.0, "2 d")],
)
def test_ages_are_in_the_unit_that_a_person_would_use(value: float | None, text: str) -> None:
    assert seconds(value) == text
