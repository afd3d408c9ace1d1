"""Which Dataplanes a MeshService selects: found by an index, as by asking each."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zonemesh.members import Members, UserServices, place, selected, selects
from zonemesh.model import Record

SERVICE = "kuma.io/service"
WORKLOAD = "kuma.io/workload"
VALUES = st.sampled_from(["a", "b", "é"])
PAIRS = st.dictionaries(st.sampled_from([SERVICE, WORKLOAD, "app"]), VALUES, max_size=2)
SELECTORS = st.one_of(
    st.just({}),
    st.builds(lambda name: {"dataplaneRef": {"name": name}}, VALUES),
    st.builds(lambda pairs: {"dataplaneLabels": {"matchLabels": pairs}}, PAIRS),
    st.just({"dataplaneLabels": {}}),
    st.builds(lambda pairs: {"dataplaneTags": pairs}, PAIRS),
)
KEYS = st.sampled_from(["m/z//a", "m/z//b", "m/z/ns/a", "m/other//a", "n/z//a"])
DATAPLANES = st.dictionaries(KEYS, st.tuples(PAIRS, st.lists(PAIRS, max_size=2)))


@given(SELECTORS, DATAPLANES)
def test_all_that_a_selector_matches_within_its_place_are_found_and_no_others(
    selector: dict[str, Any],
    dataplanes: dict[str, tuple[dict[str, str], list[dict[str, str]]]],
) -> None:
    members, table = Members(), {}
    for key, (labels, inbounds) in dataplanes.items():
        spec = {"networking": {"inbound": [{"port": 1, "tags": tags} for tags in inbounds]}}
        table[key] = Record(created_ms=1, modified_ms=1, labels=labels, spec=spec).pack()
        members.changed("Dataplane", key, None, table[key])

    found = {key for key, _ in selected("m/z//service", selector, members, table)}

    assert found == {
        key
        for key, packed in table.items()
        if place(key) == "m/z/" and selects(selector, key.split("/")[3], Record.unpack(packed))
    }


@given(SELECTORS, KEYS, PAIRS, st.lists(PAIRS, max_size=2))
def test_a_users_service_is_found_by_every_dataplane_that_it_selects(
    selector: dict[str, Any],
    key: str,
    labels: dict[str, str],
    inbounds: list[dict[str, str]],
) -> None:
    spec = {"networking": {"inbound": [{"port": 1, "tags": tags} for tags in inbounds]}}
    dataplane = Record(created_ms=1, modified_ms=1, labels=labels, spec=spec)
    made = Record(created_ms=1, modified_ms=1, spec={"selector": selector}).pack()
    service = "m/z//service"
    index = UserServices()

    index.changed("MeshService", service, None, made)
    found = index.selecting(key, None, dataplane)

    if place(key) == place(service) and selects(selector, key.rpartition("/")[2], dataplane):
        assert found == {service}
    assert found <= {service}
    assert list(index) == [service]
    index.changed("MeshService", service, made, None)
    assert not index.selecting(key, dataplane)
    assert list(index) == []


def test_a_dataplane_is_compared_with_no_service_of_a_user_that_wants_something_else() -> None:
    index = UserServices()
    for name in ("redis", "web"):
        selector = {"dataplaneLabels": {"matchLabels": {"app": name}}}
        made = Record(created_ms=1, modified_ms=1, spec={"selector": selector}).pack()
        index.changed("MeshService", f"m/z//{name}", None, made)
    dataplane = Record(created_ms=1, modified_ms=1, labels={"app": "web"}, spec={})

    assert index.selecting("m/z//web-1", dataplane) == {"m/z//web"}
