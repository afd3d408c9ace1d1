"""Which services a label selector matches, however the two came and went."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.labels import DISPLAY_NAME
from zonemesh.multizone import Labels, Matches

SERVICES = ("m/west//a", "m/east//a", "m/east//b", "n/west//a")
SELECTORS = ("m///x", "m///y", "n///x")
LABELS = st.dictionaries(
    st.sampled_from(["tier", "env"]), st.sampled_from(["front", "back"]), max_size=2
)
WANTED = st.one_of(
    LABELS,
    st.builds(
        lambda name, more: {DISPLAY_NAME: name, **more}, st.sampled_from(["a", "b", "c"]), LABELS
    ),
)


class Asked:
    """Matches, and the services and selectors that it was told of."""

    def __init__(self) -> None:
        self.matches = Matches()
        self.services: dict[str, Labels] = {}
        self.selectors: dict[str, Labels] = {}
        self.listed = 0

    def put_service(self, key: str, labels: Mapping[str, str] | None) -> set[str]:
        if labels is None:
            self.services.pop(key, None)
            return self.matches.put_service(key, None)
        self.services[key] = {**labels, DISPLAY_NAME: key.rpartition("/")[2]}
        return self.matches.put_service(key, self.services[key])

    def put_selector(self, key: str, wanted: Mapping[str, str] | None) -> None:
        self.selectors.pop(key, None)
        if wanted is not None:
            self.selectors[key] = wanted
        if self.matches.put_selector(key, wanted):
            self.listed += 1
            for service, labels in self.services.items():
                self.matches.put_service(service, labels)

    def expected(self, selector: str) -> list[str]:
        wanted, mesh = self.selectors.get(selector), selector.partition("/")[0]
        return sorted(
            key
            for key, labels in self.services.items()
            if wanted and key.startswith(f"{mesh}/") and wanted.items() <= labels.items()
        )

    def check(self) -> None:
        for selector in SELECTORS:
            assert self.matches.members(selector) == self.expected(selector)
        for service in SERVICES:
            found = {each for each in SELECTORS if service in self.expected(each)}
            assert self.matches.of(service) == found


Step = Callable[[Asked], None]


def _service_step(key: str, labels: Mapping[str, str] | None) -> Step:
    def step(asked: Asked) -> None:
        before = {each: asked.expected(each) for each in SELECTORS}
        changed = asked.put_service(key, labels)
        assert changed == {each for each in SELECTORS if asked.expected(each) != before[each]}

    return step


def _selector_step(key: str, wanted: Mapping[str, str] | None) -> Step:
    return lambda asked: asked.put_selector(key, wanted)


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(_service_step, st.sampled_from(SERVICES), st.none() | LABELS),
    st.builds(_selector_step, st.sampled_from(SELECTORS), st.none() | WANTED),
)


@given(st.lists(STEPS, max_size=25))
def test_after_any_changes_the_matches_are_those_found_by_comparing_everything(
    steps: list[Step],
) -> None:
    asked = Asked()

    for step in steps:
        step(asked)

        asked.check()


@pytest.mark.parametrize(
    "wanted, members",
    [
        pytest.param({DISPLAY_NAME: "a"}, ["m/east//a", "m/west//a"], id="by name"),
        pytest.param({"tier": "front"}, ["m/east//b", "m/west//a"], id="by a label"),
        pytest.param({DISPLAY_NAME: "a", "tier": "front"}, ["m/west//a"], id="by both"),
        pytest.param({"tier": "front", "env": "prod"}, ["m/east//b"], id="every pair counts"),
        pytest.param({"tier": "none"}, [], id="nobody has it"),
        pytest.param({}, [], id="no labels match nothing"),
        pytest.param(None, [], id="no selector"),
    ],
)
@pytest.mark.parametrize("selector_first", [False, True])
def test_a_selector_matches_services_of_its_mesh_with_every_label(
    wanted: Mapping[str, str] | None, members: list[str], *, selector_first: bool
) -> None:
    asked = Asked()
    if selector_first:
        asked.put_selector("m///x", wanted)
    for key, labels in {
        "m/west//a": {"tier": "front"},
        "m/east//a": {"tier": "back"},
        "m/east//b": {"tier": "front", "env": "prod"},
        "n/west//a": {"tier": "front", "env": "prod"},
    }.items():
        asked.put_service(key, labels)
    if not selector_first:
        asked.put_selector("m///x", wanted)

    assert asked.matches.members("m///x") == members


def test_a_selector_that_stays_the_same_looks_at_no_service_again() -> None:
    asked = Asked()
    asked.put_service("m/west//a", {"tier": "front"})
    asked.put_selector("m///x", {"tier": "front"})

    asked.put_selector("m///x", {"tier": "front"})

    assert asked.listed == 1
    assert asked.matches.members("m///x") == ["m/west//a"]
