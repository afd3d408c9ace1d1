"""Labels as they read from every place, and what clients may set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh import labels
from zonemesh.errors import Violation
from zonemesh.model import Key, Record
from zonemesh.resources.catalogue import KINDS

SERVICE = KINDS["MeshService"]
GENERATOR = KINDS["HostnameGenerator"]
DATAPLANE = KINDS["Dataplane"]
REDIS = Key("default", "west", "", "redis")


@pytest.mark.parametrize(
    "zone, here, expected",
    [
        ("", "", "global"),
        ("west", "", "zone"),
        ("west", "west", "zone"),
        ("west", "east", "global"),
        ("", "east", "global"),
    ],
)
def test_origin_is_the_last_hop(zone: str, here: str, expected: str) -> None:
    assert labels.origin(zone, here) == expected


def test_a_service_shows_where_it_is_from() -> None:
    shown = labels.shown(SERVICE, REDIS, {"team": "a"}, "east")

    assert shown == {
        "team": "a",
        "kuma.io/display-name": "redis",
        "kuma.io/mesh": "default",
        "kuma.io/origin": "global",
        "kuma.io/zone": "west",
        "kuma.io/env": "universal",
    }


def test_what_global_made_has_no_zone_and_kinds_outside_meshes_no_mesh() -> None:
    assert labels.computed(GENERATOR, Key("", "", "", "gen"), "west") == {
        "kuma.io/display-name": "gen",
        "kuma.io/origin": "global",
    }


def test_a_kind_that_zones_cannot_make_shows_no_zone() -> None:
    shown = labels.computed(KINDS["Mesh"], Key("", "west", "", "default"), "west")

    assert "kuma.io/zone" not in shown
    assert "kuma.io/env" not in shown


def test_a_kubernetes_service_shows_its_namespace_and_environment() -> None:
    key = Key("default", "east", "redis-system", "redis")

    shown = labels.computed(SERVICE, key, "east", labels.KUBERNETES)

    assert shown["k8s.kuma.io/namespace"] == "redis-system"
    assert shown["kuma.io/env"] == "kubernetes"


def test_stored_labels_cannot_claim_another_origin() -> None:
    record = Record(
        created_ms=0,
        modified_ms=0,
        labels={"kuma.io/zone": "east", "kuma.io/origin": "global", "kuma.io/mesh": "other"},
    )

    shown = labels.of_record(SERVICE, REDIS, record, "west")

    assert shown == labels.computed(SERVICE, REDIS, "west")


@given(
    st.dictionaries(
        st.sampled_from(["team", "app", "kuma.io/env", "kuma.io/managed-by"]),
        st.sampled_from(["universal", "kubernetes", "x"]),
    )
)
def test_what_is_shown_and_put_again_is_stored_as_before(client: dict[str, str]) -> None:
    kept = labels.stored(client)

    assert labels.stored(labels.shown(SERVICE, REDIS, kept, "west")) == kept


def test_only_what_a_reader_could_not_compute_is_stored() -> None:
    universal = labels.computed(SERVICE, REDIS, "west")

    assert labels.stored(universal | {"team": "a"}) == {"team": "a"}
    assert labels.stored({"kuma.io/env": "kubernetes"}) == {"kuma.io/env": "kubernetes"}


def test_names_are_hashed_where_a_resource_was_not_made() -> None:
    key = Key("default", "zone-1", "", "redis")

    assert labels.shown_name(SERVICE, key, "zone-1") == "redis"
    assert labels.shown_name(SERVICE, key, "") == "redis-c9d954w84b8wf77z"
    assert labels.shown_name(SERVICE, key, "zone-2") == "redis-c9d954w84b8wf77z"


def test_meshes_keep_their_names_everywhere() -> None:
    assert labels.shown_name(KINDS["Mesh"], Key("", "", "", "default"), "west") == "default"


def faults(
    raw: Any, *, kind: str = "MeshService", here: str = "west", required: bool = False
) -> list[Violation]:
    key = Key("default", here, "", "redis")
    return labels.faults(raw, KINDS[kind], key, here=here, origin_required=required)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"team": "a", "example.com/team": "A_b.c-1", "empty": ""},
        {"kuma.io/zone": "west", "kuma.io/mesh": "default", "kuma.io/origin": "zone"},
        {"a" * 63: "b" * 63},
    ],
)
def test_valid_labels(raw: Any) -> None:
    assert faults(raw) == []


@pytest.mark.parametrize(
    "raw, field, reason",
    [
        ([], "labels", "must be an object"),
        ({"a": 1}, 'labels["a"]', "must be a string"),
        ({"a": None}, 'labels["a"]', "must be a string"),
        ({1: "a"}, "labels", "1 must be a string"),
        ({"a": "b" * 64}, 'labels["a"]', "must be no more than 63 characters"),
        ({"a": "-b"}, 'labels["a"]', "a valid label must be"),
        ({"a": "b\n"}, 'labels["a"]', "a valid label must be"),
        ({"": "b"}, 'labels[""]', "name part must be non-empty"),
        ({"a/": "b"}, 'labels["a/"]', "name part must be non-empty"),
        ({"/a": "b"}, 'labels["/a"]', "prefix part must be"),
        ({"a/b/c": "b"}, 'labels["a/b/c"]', "prefix part must be"),
        ({"A.b/c": "b"}, 'labels["A.b/c"]', "prefix part must be"),
        ({"a b": "b"}, 'labels["a b"]', "name part must consist of"),
        ({"a" * 64: "b"}, f'labels["{"a" * 64}"]', "no more than 63"),
        ({"kuma.io/zone": "east"}, 'labels["kuma.io/zone"]', "must be set to 'west'"),
        ({"kuma.io/mesh": "other"}, 'labels["kuma.io/mesh"]', "must be set to 'default'"),
    ],
)
def test_faulty_labels(raw: Any, field: str, reason: str) -> None:
    [fault] = faults(raw)

    assert fault.field == field
    assert reason in fault.reason


def test_every_fault_is_reported() -> None:
    found = faults({"a": 1, "-b": "-b", "kuma.io/zone": "east"}, required=True)

    assert [fault.field for fault in found] == [
        'labels["a"]',
        'labels["-b"]',
        'labels["-b"]',
        'labels["kuma.io/zone"]',
        'labels["kuma.io/origin"]',
    ]


def test_a_following_zone_asks_for_the_origin_of_kinds_with_a_spec() -> None:
    expected = Violation('labels["kuma.io/origin"]', "the origin label must be set to 'zone'")

    assert faults({}, required=True) == [expected]
    assert faults({"kuma.io/origin": "global"}, required=True) == [expected]
    assert faults({"kuma.io/origin": "zone"}, required=True) == []
    assert faults({}, kind="Dataplane", required=True) == []


def test_global_refuses_another_origin_than_its_own() -> None:
    found = faults({"kuma.io/origin": "zone"}, kind="HostnameGenerator", here="")

    assert found == [
        Violation('labels["kuma.io/origin"]', "the origin label must be set to 'global'")
    ]
    assert faults({"kuma.io/origin": "global"}, kind="HostnameGenerator", here="") == []


def test_a_workload_is_a_dns_label_and_belongs_to_zones() -> None:
    assert faults({"kuma.io/workload": "redis"}, kind="Dataplane") == []
    assert len(faults({"kuma.io/workload": "1.redis"}, kind="Dataplane")) == 1
    assert len(faults({"kuma.io/workload": "redis"}, kind="Dataplane", here="")) == 1
    assert faults({"kuma.io/workload": "1.redis"}, kind="MeshService") == []
