"""Any changes of any kind give the map that is made from scratch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.maps import (
    EXTERNAL,
    MULTI_ZONE,
    available,
    binding,
    bound,
    dataplane,
    external,
    generator,
    ingress,
    mesh_record,
    multi_zone,
    removal,
    standing,
    started,
    zone_record,
)
from zonemesh.labels import DISPLAY_NAME
from zonemesh.lostpolicy import LABEL
from zonemesh.model import Change
from zonemesh.vipmap import Delta

ZONES = ("west", "east")
POLICIES = st.sampled_from(
    [{}, *({LABEL: text} for text in ("keep", "unavailable", "withdraw-5s", "withdraw-30s"))]
)


class AnyKinds(RuleBasedStateMachine):
    """Every kind, zones going in and out, in parts: always the map made from scratch."""

    @initialize()
    def begin(self) -> None:
        self.view = started()
        self.deltas: defaultdict[str, Delta] = defaultdict(Delta)

    def _commit(self, zone: str, *changes: Change) -> None:
        (self.view.own if zone == "west" else self.view.copy).commit(*changes)

    @rule(
        name=st.sampled_from("ab"),
        zone=st.sampled_from(ZONES),
        tier=st.sampled_from(["front", "back"]),
        state=st.sampled_from(["Available", "Unavailable"]),
        policy=POLICIES,
        gone=st.booleans(),
    )
    def put_service(
        self, *, name: str, zone: str, tier: str, state: str, policy: dict[str, str], gone: bool
    ) -> None:
        change = available(name, zone, state=state, tier=tier, **policy)
        self._commit(zone, removal(change) if gone else change)

    @rule(name=st.sampled_from("ab"), zone=st.sampled_from(ZONES), address=st.none() | st.just(1))
    def bind_service(self, name: str, zone: str, address: int | None) -> None:
        order = ZONES.index(zone) * 2 + "ab".index(name) + 1
        at = None if address is None else order
        self._commit(zone, binding(name, at, zone, order=order, birth=order))

    @rule(
        name=st.sampled_from("ab"),
        match=st.sampled_from([{DISPLAY_NAME: "a"}, {"tier": "front"}, {"kuma.io/zone": "east"}]),
        gone=st.booleans(),
    )
    def put_multi_zone(self, *, name: str, match: Mapping[str, str], gone: bool) -> None:
        change = multi_zone(name, match=match)
        address = bound(MULTI_ZONE, name, 10 + "ab".index(name), order=20 + "ab".index(name))
        self._commit("", removal(change) if gone else change, address)

    @rule(name=st.sampled_from("ab"), zone=st.sampled_from(["", "west"]), gone=st.booleans())
    def put_external(self, *, name: str, zone: str, gone: bool) -> None:
        change = external(name, ("192.0.2.1", 80), zone=zone)
        order = 30 + 2 * "ab".index(name) + bool(zone)
        address = bound(EXTERNAL, name, order, zone, order=order)
        self._commit(zone, removal(change) if gone else change, address)

    @rule(enabled=st.booleans())
    def enable_east(self, *, enabled: bool) -> None:
        self._commit("", zone_record("east", enabled=enabled))

    @rule(zone=st.sampled_from(ZONES), lost_s=st.none() | st.sampled_from([0, 5, 30]))
    def hear_of_zone(self, *, zone: str, lost_s: int | None) -> None:
        self._commit("", standing(zone, lost_s))

    @rule(policy=POLICIES)
    def declare_for_mesh(self, policy: dict[str, str]) -> None:
        self._commit("", mesh_record(**policy))

    @rule(zone=st.sampled_from(ZONES), gone=st.booleans())
    def put_dataplane(self, *, zone: str, gone: bool) -> None:
        change = dataplane("d", "a", zone=zone)
        self._commit(zone, removal(change) if gone else change)

    @rule(gone=st.booleans())
    def put_ingress(self, *, gone: bool) -> None:
        change = ingress("east", "203.0.113.1")
        self._commit("east", removal(change) if gone else change)

    @rule(
        template=st.sampled_from(["", "{{ .DisplayName }}.x", "only.x"]),
        zone=st.sampled_from(["", "west"]),
        mesh=st.sampled_from(["", "default", "shop"]),
    )
    def put_generator(self, template: str, zone: str, mesh: str) -> None:
        change = generator("g", template or "x", zone=zone, mesh=mesh)
        self._commit(zone, change if template else removal(change))

    @rule(limit=st.integers(1, 3))
    def flush_part(self, limit: int) -> None:
        self.view.map.flush_part(self.deltas, limit)

    @rule()
    def flush(self) -> None:
        while self.view.map.flush_part(self.deltas, 2):
            pass
        self._compare()

    def teardown(self) -> None:
        if hasattr(self, "view"):
            self.flush()

    def _compare(self) -> None:
        found, scratch = self.view.map, self.view.from_scratch()
        assert found.published["default"] == scratch.published["default"]
        assert found.digest("default") == scratch.digest("default")
        refs = set(scratch.services())
        assert set(found.services()) == refs
        for ref in refs:
            assert found.outbounds.of(ref) == scratch.outbounds.of(ref)
            assert found.outbounds.matched(ref) == scratch.outbounds.matched(ref)
            assert found.outcomes(ref) == scratch.outcomes(ref)


def test_any_order_of_changes_of_any_kind_gives_the_map_made_from_scratch() -> None:
    run_state_machine_as_test(AnyKinds, settings=settings(max_examples=80, stateful_step_count=30))
