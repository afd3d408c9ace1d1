"""Labels that generated services take over from their Dataplanes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.builders import put_dataplane
from tests.zones import Zone
from zonecp.inputs import Begin
from zonecp.propagation import propagated
from zonemesh.model import Record
from zonemesh.settings import Settings


def members(*labels: Mapping[str, str]) -> list[tuple[str, Record]]:
    """Dataplanes with these labels, the newest last."""
    return [
        (f"default/west//d-{age}", Record(created_ms=age, modified_ms=age, labels=each))
        for age, each in enumerate(labels)
    ]


def shown(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if not name.startswith("kuma.io/pkey-")}


@pytest.mark.parametrize(
    "dataplanes, expected",
    [
        ([{"v": "1"}, {"v": "2"}, {"v": "1"}], {"v": "1"}),
        ([{"v": "1"}, {"v": "2"}], {"v": "2"}),  # as many: the newest's
        ([{"v": "1", "w": "x"}, {"v": "1"}], {"v": "1", "w": "x"}),
        ([{"kuma.io/zone": "a", "k8s.kuma.io/namespace": "n"}], {}),
        ([], {}),
    ],
    ids=["majority", "tie", "some have it", "the system's", "nobody"],
)
def test_the_value_of_most_dataplanes_is_taken_over(
    dataplanes: list[dict[str, str]], expected: dict[str, str]
) -> None:
    assert shown(propagated({}, members(*dataplanes), ())) == expected


def test_of_equals_of_one_age_the_lesser_is_taken() -> None:
    same = [("a", Record(created_ms=1, modified_ms=1, labels={"v": value})) for value in "ba"]

    assert shown(propagated({}, same, ())) == {"v": "a"}


def test_only_allowed_labels_are_taken_over() -> None:
    assert shown(propagated({}, members({"a": "1", "b": "2"}), ("b", "c"))) == {"b": "2"}


def test_what_a_user_has_set_stays_and_what_came_from_dataplanes_goes_with_them() -> None:
    once = propagated({"mine": "x"}, members({"mine": "y", "theirs": "1", "both": "1"}), ())
    assert shown(once) == {"mine": "x", "theirs": "1", "both": "1"}

    again = propagated(once, members({"both": "2"}), ())

    assert shown(again) == {"mine": "x", "both": "2"}
    assert propagated(again, members({"both": "2"}), None) == {"mine": "x"}


@pytest.mark.parametrize("keys, expected", [(None, {}), ((), {"app": "web"}), (("v",), {})])
def test_a_zone_takes_labels_over_as_it_is_told_to(
    keys: tuple[str, ...] | None, expected: dict[str, str]
) -> None:
    zone = Zone()
    zone.submit(Begin("uid", Settings(propagate=keys), adopted=True))
    dataplane = put_dataplane("web-1", "web")

    zone.submit(type(dataplane)(dataplane.kind, dataplane.key, {"app": "web"}, dataplane.spec))

    record = zone.record("web")
    assert record is not None
    labels = dict(shown(record.labels))
    assert labels.pop("kuma.io/managed-by") == "meshservice-generator"
    assert labels == expected
