"""Which Dataplanes a MeshService selects: found by an index, as by asking each."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zonemesh.members import Members, place, selected, selects
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
