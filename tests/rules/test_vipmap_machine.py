"""In whatever order a zone's two registries change, its map is that of what they hold."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.builders import Chain
from tests.maps import SERVICE, VIP, View, binding, generator, service

NAMES = ("a", "b")
ZONES = ("west", "east")
TEMPLATES = ("{{ .DisplayName }}.x", "only.x", "{{ .DisplayName }}.{{ .Zone }}", '{{ label "t" }}')


class AnyOrder(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.view = View()
        self.order = 0

    def _sides(self, zone: str) -> Sequence[Chain]:
        return (self.view.own, self.view.copy) if zone == "west" else (self.view.copy,)

    @rule(
        name=st.sampled_from(NAMES),
        zone=st.sampled_from(ZONES),
        label=st.sampled_from(["", "a.x", "only.x"]),
        gone=st.booleans(),
    )
    def put_service(self, name: str, zone: str, label: str, gone: bool) -> None:
        change = service(name, zone, **({"t": label} if label else {}))
        for chain in self._sides(zone):
            chain.commit(change._replace(payload=None) if gone else change)

    @rule(
        name=st.sampled_from(NAMES),
        zone=st.sampled_from(ZONES),
        address=st.none() | st.integers(1, 3),
        released_ms=st.none() | st.just(1),
        order=st.none() | st.integers(1, 4),
        side=st.integers(0, 1),
    )
    def bind(
        self,
        *,
        name: str,
        zone: str,
        address: int | None,
        released_ms: int | None,
        order: int | None,
        side: int,
    ) -> None:
        """Own and copy may differ: the copy knows the order, and is behind."""
        chains = self._sides(zone)
        # Orders are drawn once: two services never have the same.
        drawn = None if order is None else order * 4 + NAMES.index(name) * 2 + ZONES.index(zone)
        change = binding(
            name, address, zone, order=drawn, released_ms=released_ms, birth=NAMES.index(name)
        )
        chains[side % len(chains)].commit(change)

    @rule(
        name=st.sampled_from(["g", "h"]),
        zone=st.sampled_from(["west", ""]),
        template=st.none() | st.sampled_from(TEMPLATES),
        created_ms=st.integers(1, 2),
    )
    def put_generator(self, name: str, zone: str, template: str | None, created_ms: int) -> None:
        change = generator(name, template or "", zone=zone, created_ms=created_ms)
        chain = self.view.own if zone else self.view.copy
        chain.commit(change if template else change._replace(payload=None))

    @rule(kind=st.sampled_from([SERVICE, VIP, "HostnameGenerator"]), both=st.booleans())
    def resynchronise(self, kind: str, both: bool) -> None:
        """The copy becomes another state in one step, as after a gap."""
        copy = self.view.copy.registry
        fresh = copy.empty()
        fresh.stand(copy.freeze().meta)
        for each, key, payload in copy.freeze().rows():
            if each != kind and not both:
                fresh.put(each, key, payload)
        for name, address in zip(NAMES, (3, 1), strict=True):
            fresh.put(*service(name, "east"))
            fresh.put(*binding(name, address, "east", order=100 + address))
        copy.become(fresh)

    @rule()
    def flush(self) -> None:
        self.view.flush()

    @invariant()
    def the_map_is_that_of_what_is_held(self) -> None:
        if self.view.map._noted or self.view.map._generators_changed:
            return
        scratch = self.view.from_scratch()
        assert self.view.map.published["default"] == scratch.published["default"]
        assert self.view.map.digest("default") == scratch.digest("default")
        assert self.view.client.get("default", {}) == scratch.published["default"]
        for ref in scratch.services():
            assert self.view.map.hostnames(ref) == scratch.hostnames(ref)
            assert self.view.map.outcomes(ref) == scratch.outcomes(ref)


def test_any_order_of_changes_and_flushes_gives_the_map_made_from_scratch() -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=60, stateful_step_count=30))
