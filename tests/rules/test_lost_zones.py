"""What becomes of a lost zone's services: policies, global's verdicts, what zones make of them."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from globalcp.inputs import Begin
from tests.builders import put_dataplane
from tests.maps import (
    MULTI_ZONE,
    POOL,
    SERVICE,
    View,
    available,
    binding,
    bound,
    key_of,
    mesh_record,
    multi_zone,
    record,
    standing,
    started,
)
from tests.zones_up import Global, Stream
from zonemesh.deciding import Now
from zonemesh.ipam import Binding
from zonemesh.legacy import service_key
from zonemesh.legacypool import LEGACY, LEGACY_VIP
from zonemesh.lostpolicy import KEEP, LABEL, Policy, parse_policy, policy_fault
from zonemesh.lostzones import (
    Effect,
    Standing,
    Withdrawals,
    declared,
    effect_in,
    effect_of,
    effects_in,
    standing_of,
)
from zonemesh.model import Change, Record, ServiceRef
from zonemesh.seen import Seen, ZoneState
from zonemesh.settings import Settings

WEB = ServiceRef(SERVICE, key_of("web", "east"))
ALL = ServiceRef(MULTI_ZONE, key_of("web", ""))
NAME = "web.svc.east.mesh.local"


# Policies


@pytest.mark.parametrize(
    "text, policy",
    [
        ("keep", KEEP),
        ("unavailable", Policy(unavailable=True)),
        ("withdraw-0s", Policy(withdraw_after_ms=0)),
        ("withdraw-90s", Policy(withdraw_after_ms=90_000)),
        ("withdraw-5m", Policy(withdraw_after_ms=300_000)),
        ("withdraw-24h", Policy(withdraw_after_ms=86_400_000)),
    ],
)
def test_a_policy_is_read_as_it_is_written(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert policy_fault(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "Keep", "withdraw", "withdraw-", "withdraw-5", "withdraw-5d", "withdraw-1000000s",
     "withdraw--5s", "withdraw-5s ", "withdraw-٣s", "withdraw/30s"],
)  # fmt: skip
def test_what_is_no_policy_is_named_with_what_would_be_one(text: str) -> None:
    assert parse_policy(text) is None
    assert "withdraw-30s" in (policy_fault(text) or "")


def test_what_another_build_declared_and_this_one_cannot_read_declares_nothing() -> None:
    packed = Record(created_ms=1, modified_ms=1, labels={LABEL: "replace-5s"}).pack()

    assert declared(packed) is None


@pytest.mark.parametrize(
    "policy, lost_ms, effect",
    [
        (KEEP, 10**9, Effect.SERVED),
        (Policy(unavailable=True), 0, Effect.UNAVAILABLE),
        (Policy(withdraw_after_ms=5_000), 4_999, Effect.SERVED),
        (Policy(withdraw_after_ms=5_000), 5_000, Effect.WITHDRAWN),
        (Policy(withdraw_after_ms=0), 0, Effect.WITHDRAWN),
    ],
)
def test_a_policy_takes_effect_only_while_the_zone_is_lost(
    policy: Policy, lost_ms: int, effect: Effect
) -> None:
    assert effect_of(policy, Standing(online=False, lost_ms=lost_ms)) is effect
    assert effect_of(policy, Standing(online=True, lost_ms=lost_ms)) is Effect.SERVED


def test_a_zone_of_which_global_says_nothing_is_not_lost() -> None:
    assert standing_of(None).online
    assert standing_of(msgpack.packb({"deleted": True})).online


def test_the_longest_declared_time_that_is_over_is_found() -> None:
    index = Withdrawals()

    def declare(name: str, old: str | None, new: str | None) -> None:
        packed = [
            None if text is None else available(name, "east", **({LABEL: text} if text else {}))[2]
            for text in (old, new)
        ]
        index.changed(SERVICE, key_of(name), *packed)

    declare("a", None, "withdraw-5s")
    declare("b", None, "withdraw-5s")
    declare("c", None, "withdraw-1m")
    declare("d", None, "")
    assert [index.reached(ms) for ms in (4_999, 5_000, 59_999, 60_000)] == [0, 5_000, 5_000, 60_000]
    declare("a", "withdraw-5s", "keep")
    assert index.reached(5_000) == 5_000
    declare("b", "withdraw-5s", None)
    assert index.reached(5_000) == 0
    declare("c", "withdraw-1m", "withdraw-2m")
    assert (index.reached(60_000), index.reached(120_000)) == (0, 120_000)


# Global's verdicts


def met(*changes: Change, settings: Settings | None = None) -> tuple[Global, Stream]:
    mesh, west = Global(), Stream()
    if settings is not None:
        mesh.submit(Begin(settings))
    mesh.submit(west.merge(*changes))
    return mesh, west


def test_a_verdict_on_a_lost_zone_is_written_when_a_declared_time_is_over_and_not_before() -> None:
    mesh, _ = met(available("web", "west", **{LABEL: "withdraw-30s"}))
    mesh.tick(10_000)
    lost = mesh.seen()
    assert (lost.state, lost.lost_ms) == (ZoneState.OFFLINE, 0)

    mesh.tick(29_999)
    assert mesh.seen() == lost
    mesh.tick(1)

    assert mesh.seen().lost_ms == 30_000
    key = key_of("web", "west")
    payload = mesh.state.registry.get(SERVICE, key)
    assert effect_in(mesh.state.registry, key, payload) is Effect.WITHDRAWN
    assert effects_in(mesh.state.registry, "west") == {Effect.WITHDRAWN: 1}


def test_a_zone_that_is_back_begins_to_be_lost_anew() -> None:
    mesh, west = met(available("web", "west", **{LABEL: "withdraw-30s"}))
    mesh.tick(10_000)
    mesh.tick(30_000)
    west.write()

    mesh.tick(1_000, west=west.report)

    seen = mesh.seen()
    assert (seen.state, seen.lost_ms, seen.offline_ms) == (ZoneState.ONLINE, 0, None)
    mesh.tick(10_000)
    mesh.tick(29_000)
    assert mesh.seen().lost_ms == 0


def test_a_goodbye_counts_at_once_and_silence_after_it_changes_nothing() -> None:
    mesh, west = met()
    merge = west.merge()

    mesh.submit(replace(merge, report=replace(merge.report, left=True)))

    left = mesh.seen()
    assert (left.state, left.online) == (ZoneState.LEFT, False)
    assert mesh.cursor == west.report.cursor
    mesh.tick(60_000)
    assert mesh.seen() == left


SEEN = Seen(uid="u", last_ms=100_000, online=True, connected_ms=1)
LIMITS = {"stale_after_ms": 5_000, "offline_after_ms": 10_000}


def after(seen: Seen, silent_ms: int) -> tuple[str, str]:
    """State and reason, once it has been silent for so long."""
    now = Now(wall_ms=7, log_time_ms=seen.last_ms + silent_ms, mono_s=0.0)
    found, why = seen.found(now, **LIMITS, reached=lambda _: 0)
    return found.state, why


@pytest.mark.parametrize(
    "seen, silent_ms, state, why",
    [
        (SEEN, 4_999, "online", ""),
        (SEEN, 5_000, "stale", "not heard from for 5.0 s of log time"),
        (SEEN, 10_000, "offline", "not heard from for 10.0 s of log time"),
        (SEEN.but(lag_ms=5_000), 1_000, "stale", "by its own report 5.0 s behind global"),
        (SEEN.but(lag_ms=4_999), 1_000, "online", ""),
        (SEEN.but(stale_ms=5), 1_000, "online", "up to date again"),
        (SEEN.but(stale_ms=5), 6_000, "stale", ""),
        (SEEN.but(stale_ms=5), 11_000, "offline", "not heard from for 11.0 s of log time"),
    ],
)
def test_silence_and_lag_make_a_zone_stale_and_silence_alone_takes_it_offline(
    seen: Seen, silent_ms: int, state: str, why: str
) -> None:
    assert after(seen, silent_ms) == (state, why)


def test_a_record_of_a_zone_from_before_says_since_when_by_what_it_has() -> None:
    fields = msgpack.unpackb(SEEN.but(online=False, disconnected_ms=44).pack())
    for name in ("offline_ms", "lost_ms", "left", "stale_ms"):
        fields.pop(name, None)

    seen = Seen.unpack(msgpack.packb(fields))

    assert (seen.state, seen.since_ms) == ("offline", 44)
    found, _ = seen.found(
        Now(wall_ms=0, log_time_ms=130_000, mono_s=0.0), **LIMITS, reached=lambda ms: ms
    )
    assert found.lost_ms == 30_000  # since it was last heard from


def test_of_a_zone_just_met_little_is_told() -> None:
    told = msgpack.unpackb(Seen(uid="u", last_ms=7).pack())

    assert set(told) == {"uid", "last_ms", "formats"}
    assert Seen.unpack(Seen(uid="u", online=False, lag_ms=0).pack()) == Seen(
        uid="u", online=False, lag_ms=0
    )


def test_limits_are_replicated_and_settings_of_before_have_the_default() -> None:
    packed = Settings(stale_after_ms=2_000).pack()
    assert Settings.unpack(packed).stale_after_ms == 2_000

    fields = msgpack.unpackb(packed)
    del fields["stale_after_ms"]
    assert Settings.unpack(msgpack.packb(fields)).stale_after_ms == Settings().stale_after_ms

    mesh, _ = met(settings=Settings(stale_after_ms=2_000, offline_after_ms=60_000))
    mesh.tick(2_000)
    assert mesh.seen().state is ZoneState.STALE
    mesh.tick(50_000)
    assert mesh.seen().state is ZoneState.STALE


# What a zone's data planes get


def west(**labels: str) -> View:
    """West's map with east's `web`, one Dataplane behind it, and a service over both zones."""
    view = started("west")
    view.copy.commit(
        available("web", "east", **labels),
        binding("web", 2, "east", order=1),
        record(put_dataplane("d", "web", zone="east")),
        multi_zone("web"),
        bound(MULTI_ZONE, "web", 3),
    )
    view.flush()
    return view


def ready(view: View, ref: ServiceRef) -> list[bool]:
    return [
        each["ready"] for found in view.map.outbounds.of(ref) for each in found["endpoints"]
    ]  # fmt: skip


def test_unavailable_changes_endpoints_and_no_name_and_is_told() -> None:
    view = west(**{LABEL: "unavailable"})
    names = view.names

    view.copy.commit(standing("east", 0))
    delta = view.flush()["default"]

    assert {WEB, ALL} <= delta.services
    assert (delta.put, delta.removed) == ({}, set())
    assert (view.names, ready(view, WEB), ready(view, ALL)) == (names, [False], [])
    view.copy.commit(standing("east", None))
    assert {WEB, ALL} <= view.flush()["default"].services
    assert (ready(view, WEB), ready(view, ALL)) == ([True], [True])


def test_with_keep_only_what_stands_for_several_zones_changes() -> None:
    view = west()

    view.copy.commit(standing("east", 0))

    assert view.flush()["default"].services == {ALL}
    assert ready(view, WEB) == [True]
    view.copy.commit(standing("east", 10_000))
    assert view.flush() == {}


def test_a_legacy_name_follows_its_mesh_and_stays() -> None:
    view = west()
    legacy = ServiceRef(LEGACY, service_key("default", "web"))
    packed = Binding(POOL + 9, None, None, 0).pack()
    view.copy.commit(Change(LEGACY_VIP, legacy.key, packed))
    view.flush()
    assert ready(view, legacy) == [True]

    view.copy.commit(standing("east", 0), mesh_record(**{LABEL: "unavailable"}))

    assert legacy in view.flush()["default"].services
    assert ready(view, legacy) == []
    assert "web.mesh" in view.names
    view.copy.commit(standing("east", None))
    assert legacy in view.flush()["default"].services
    assert ready(view, legacy) == [True]


def test_a_withdrawn_name_goes_by_tombstone_and_what_changed_meanwhile_is_back_with_it() -> None:
    view = west(**{LABEL: "withdraw-5s"})
    view.copy.commit(standing("east", 0))
    view.flush()
    view.copy.commit(standing("east", 5))

    delta = view.flush()["default"]
    assert delta.removed == {NAME}
    assert WEB in delta.services
    assert view.map.outbounds.of(WEB) == []
    view.copy.commit(available("web", "east", **{LABEL: "withdraw-5s", "team": "x"}))
    assert NAME not in view.names or view.flush() == {}
    view.copy.commit(standing("east", None))
    assert view.flush()["default"].put.keys() == {NAME}
    assert view.map.labels(WEB)["team"] == "x"


def test_a_service_s_own_policy_goes_before_its_mesh_s() -> None:
    kept, gone = west(**{LABEL: "keep"}), west()
    for view in (kept, gone):
        view.copy.commit(standing("east", 60), mesh_record(**{LABEL: "withdraw-30s"}))
        view.flush()

    assert NAME in kept.names
    assert NAME not in gone.names


def test_a_zone_that_stays_lost_for_long_serves_its_own_to_itself() -> None:
    view = started("west")
    view.own.commit(available("web", "west", **{LABEL: "withdraw-0s"}), binding("web", 1))
    view.flush()

    view.copy.commit(standing("west", 3_600))

    assert view.flush() == {}
    assert view.names
