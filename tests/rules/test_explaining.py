"""Why a name resolves in a zone, or does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from tests.builders import NOW_MS, put_dataplane
from tests.maps import SERVICE, View, binding, generator, record, service, started
from zonecp.explaining import Inquiry, Question
from zonecp.explaining import View as Known
from zonemesh.model import Change, Key, Record
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN

NAME = "redis.svc.mesh.local"


def known_of(
    view: View, *, lag_s: float = 0.0, ready: str | None = None, shortage: str | None = None
) -> Known:
    return Known(
        vipmap=view.map,
        own=view.own.registry,
        copy=view.copy.registry,
        shortages={} if shortage is None else {SERVICE: shortage},
        mesh_exists=lambda mesh: mesh == "default",
        lag_s=lambda: lag_s,
        ready=lambda: ready,
    )


def explain(
    view: View,
    name: str = NAME,
    dataplane: str | None = None,
    *,
    mesh: str = "default",
    lag_s: float = 0.0,
    ready: str | None = None,
    shortage: str | None = None,
) -> dict[str, Any]:
    known = known_of(view, lag_s=lag_s, ready=ready, shortage=shortage)
    inquiry = Inquiry(known, Question(mesh, name, dataplane))
    for ref in inquiry.services():
        inquiry.consider(ref)
    return inquiry.answer()


def served(view: View, *changes: Change) -> View:
    view.own.commit(*changes)
    view.flush()
    return view


def copied(view: View, *changes: Change) -> View:
    view.copy.commit(*changes)
    view.flush()
    return view


def seen(zone: str, *, online: bool, last_ms: int = 0) -> Change:
    return Change(SEEN, zone_key(zone), msgpack.packb({"online": online, "last_ms": last_ms}))


def zone_record(zone: str, *, enabled: bool) -> Change:
    packed = Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec={"enabled": enabled}).pack()
    return Change("Zone", Key("", "", "", zone).packed, packed)


@pytest.mark.parametrize(
    "asked", [NAME, f"{NAME}.", "Redis.SVC.Mesh.Local"], ids=["plain", "rooted", "case"]
)
def test_a_name_that_resolves_says_who_holds_it_and_by_which_generator(asked: str) -> None:
    view = served(started(), service("redis"), binding("redis", 7))

    answer = explain(view, asked)

    assert (answer["verdict"], answer["resolves"]) == ("Resolves", True)
    assert answer["why"] == (
        "MeshService redis of zone west holds it, by generator local-universal-mesh-service"
    )
    assert answer["vips"] == ["241.0.0.7", "fd00:fd00::f100:7"]
    (holder,) = answer["candidates"]
    assert (holder["holds"], holder["template"]) == (True, "{{ .DisplayName }}.svc.mesh.local")


@pytest.mark.parametrize(
    "shortage, words",
    [(None, "has no address yet"), ("the pool is full", "has no address: the pool is full")],
    ids=["waiting", "exhausted"],
)
def test_a_holder_without_an_address_is_the_reason(shortage: str | None, words: str) -> None:
    view = served(started(), service("redis"), binding("redis", None))

    answer = explain(view, shortage=shortage)

    assert (answer["verdict"], answer["resolves"]) == ("NoAddress", False)
    assert answer["why"].endswith(words)
    assert answer["vips"] == []


def test_a_name_that_the_map_has_not_taken_in_yet_is_pending() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))

    assert explain(view)["verdict"] == "Pending"


@pytest.mark.parametrize(
    "mesh, name, ready, verdict, words",
    [
        ("other", NAME, None, "UnknownMesh", "mesh other does not exist here"),
        ("default", "under_score", None, "Invalid", "RFC 1123"),
        ("default", NAME, "the map is made", "NotReady", "no map is served yet: the map is made"),
        ("default", NAME, None, "Unknown", "no generator makes this name"),
    ],
    ids=["mesh", "invalid", "early", "unknown"],
)
def test_what_cannot_resolve_says_why(
    mesh: str, name: str, ready: str | None, verdict: str, words: str
) -> None:
    view = started()

    answer = explain(view, name, mesh=mesh, ready=ready)

    assert answer["verdict"] == verdict
    assert words in answer["why"]
    assert "other" not in view.map.published


def test_of_two_the_one_that_global_merged_first_has_it() -> None:
    view = copied(
        started("north"),
        generator("shared", "{{ .DisplayName }}.shared"),
        *(service("redis", zone) for zone in ("west", "east")),
        binding("redis", 1, "west", order=9),
        binding("redis", 2, "east", order=5),
    )

    answer = explain(view, "redis.shared")

    holder, loser = answer["candidates"]
    assert (holder["zone"], holder["why"]) == ("east", "")
    assert loser["zone"] == "west"
    assert loser["why"] == (
        "MeshService redis of zone east has it: global merged it first (order 5, this one 9)"
    )


@pytest.mark.parametrize(
    "orders, words",
    [
        ((None, None), "it was registered first, and global has merged neither yet"),
        ((3, None), "global has merged it (order 3), and not yet this one"),
    ],
    ids=["neither", "one"],
)
def test_what_global_has_not_merged_ranks_by_registration(
    orders: tuple[int | None, int | None], words: str
) -> None:
    view = started()
    copied(view, generator("shared", "everyone.shared"))
    served(
        view,
        *(service(name) for name in ("a", "b")),
        binding("a", 1, order=orders[0], birth=1),
        binding("b", 2, order=orders[1], birth=2),
    )

    _, loser = explain(view, "everyone.shared")["candidates"]

    assert (loser["name"], loser["why"].partition(": ")[2]) == ("b", words)


@pytest.mark.parametrize(
    "first, second, rule",
    [
        (("west", NOW_MS + 9), ("", NOW_MS), "first is of this zone, the other global's"),
        (("", NOW_MS), ("", NOW_MS + 1), "is older"),
        (("", NOW_MS), ("", NOW_MS), "comes first by name"),
    ],
    ids=["origin", "age", "name"],
)
def test_a_generator_that_goes_first_decides_before_any_service_does(
    first: tuple[str, int], second: tuple[str, int], rule: str
) -> None:
    view = started()
    for name, template, (zone, created_ms), app in (
        ("first", "x.shared", first, "b"),
        ("second", "x.shared", second, "a"),
    ):
        change = generator(name, template, zone=zone, created_ms=created_ms, app=app)
        (view.own if zone else view.copy).commit(change)
    served(
        view,
        service("a", app="a"),
        service("b", app="b"),
        binding("a", 1, order=1),
        binding("b", 2, order=2),
    )

    holder, loser = explain(view, "x.shared")["candidates"]

    assert (holder["name"], loser["name"]) == ("b", "a")
    assert loser["why"].endswith(rule)


def test_generators_that_failed_on_a_service_of_that_name_are_told() -> None:
    view = copied(started(), generator("by-team", '{{ label "team" }}.shared'))
    served(view, service("redis"), binding("redis", 7), service("other"), binding("other", 8))

    answer = explain(view, "redis.shared")

    assert [each["name"] for each in answer["near"]] == ["redis"]
    (failure,) = answer["failures"]
    assert failure["generator"].startswith("by-team")
    assert failure["name"] == "redis"
    assert failure["message"].endswith("label team not found")


@pytest.mark.parametrize(
    "asked, names",
    [
        ("redsi.svc.mesh.local", ["redis.svc.mesh.local", "redis-2.svc.mesh.local"]),
        ("redis.svc.wets.mesh.local", ["redis.svc.mesh.local", "redis-2.svc.mesh.local"]),
        ("redis", ["redis.svc.mesh.local", "redis-2.svc.mesh.local"]),
        ("kafka.svc.mesh.local", []),
    ],
    ids=["service", "zone", "bare", "nothing"],
)
def test_services_with_a_name_near_it_are_told_nearest_first(asked: str, names: list[str]) -> None:
    view = served(
        started(),
        *(change for n in ("redis", "redis-2", "shop") for change in (service(n), binding(n, 1))),
    )

    near = explain(view, asked)["near"]

    assert [name for each in near for name in each["names"]] == names


def test_a_service_that_goes_while_it_is_looked_for_is_left_out() -> None:
    view = served(started(), service("redis"), binding("redis", 7))
    known = known_of(view)
    inquiry = Inquiry(known, Question("default", NAME))
    refs = inquiry.services()
    served(view, Change(SERVICE, Key("default", "west", "", "redis").packed, None))

    for ref in refs:
        inquiry.consider(ref)

    answer = inquiry.answer()
    assert (answer["verdict"], answer["candidates"], answer["near"]) == ("Unknown", [], [])


def test_only_so_many_near_services_are_told_and_those_of_the_mesh_alone() -> None:
    view = served(started(), *(service(f"shop-{n}") for n in range(20)))

    assert len(explain(view, "shop-x.svc.mesh.local")["near"]) == 5
    assert explain(view, "shop-x.svc.mesh.local", mesh="other")["near"] == []


@pytest.mark.parametrize(
    "known, state, warning",
    [
        ([seen("east", online=True)], "Online", None),
        ([seen("east", online=False)], "Offline", "zone east is offline, its endpoints may be old"),
        ([seen("east", online=True, last_ms=-11_000)], "Online", "zone east is stale: global has "),
        (
            [seen("east", online=True), zone_record("east", enabled=True)],
            "Online",
            None,
        ),
        ([], "Unknown", "global tells nothing of zone east"),
    ],
    ids=["online", "offline", "stale", "enabled", "unknown"],
)
def test_the_state_of_the_services_zone_is_told(
    known: list[Change], state: str, warning: str | None
) -> None:
    dataplane = record(put_dataplane("redis-1", "redis", zone="east"))
    view = copied(
        started(), service("redis", "east"), binding("redis", 7, "east"), dataplane, *known
    )

    answer = explain(view, "redis.svc.east.mesh.local")

    assert answer["resolves"] is True
    assert answer["zones"]["east"]["state"] == state
    assert [each.startswith(warning or "") for each in answer["warnings"]] == [True] * bool(warning)


@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_a_name_of_a_disabled_zone_is_withdrawn(online: bool) -> None:
    view = copied(
        started(),
        service("redis", "east"),
        binding("redis", 7, "east"),
        seen("east", online=online),
        zone_record("east", enabled=False),
    )

    answer = explain(view, "redis.svc.east.mesh.local")

    assert (answer["verdict"], answer["resolves"]) == ("Withdrawn", False)
    assert answer["zones"]["east"]["state"] == "Disabled"
    (candidate,) = answer["candidates"]
    assert candidate["why"] == "zone east is disabled: nothing of it is served"


@pytest.mark.parametrize(
    "ready, warning",
    [
        (None, "no data plane stands behind it: connections will fail"),
        (False, "none of its endpoints is ready"),
    ],
    ids=["none", "not-ready"],
)
def test_a_service_that_nobody_can_reach_is_a_warning(ready: bool | None, warning: str) -> None:
    view = started()
    if ready is not None:
        served(view, record(put_dataplane("redis-1", "redis", ready=ready)))

    answer = explain(served(view, service("redis"), binding("redis", 7)))

    assert (answer["resolves"], answer["warnings"]) == (True, [warning])


def test_old_knowledge_is_a_warning() -> None:
    answer = explain(started(), lag_s=61.04)

    assert answer["lag_s"] == 61.04
    assert answer["warnings"] == ["what this zone knows of others is 61 s old"]


def shop(**proxying: Any) -> Change:
    put = put_dataplane("shop-1", "shop")
    networking = {**put.spec["networking"], "transparentProxying": proxying}
    return record(replace(put, spec={"networking": networking}))


@pytest.mark.parametrize(
    "proxying, trimmed, words",
    [
        ({}, False, "it may reach every service of its mesh"),
        (
            {"reachableBackends": {"refs": [{"kind": SERVICE, "name": "redis"}]}},
            False,
            "its Dataplane names MeshService redis of zone west as reachable",
        ),
        (
            {"reachableBackends": {"refs": []}},
            True,
            "its Dataplane does not name MeshService redis of zone west as reachable",
        ),
    ],
    ids=["everything", "named", "left-out"],
)
def test_a_data_plane_sees_what_it_may_reach(
    proxying: dict[str, Any], trimmed: bool, words: str
) -> None:
    view = served(
        started(),
        record(put_dataplane("redis-1", "redis")),
        service("redis"),
        binding("redis", 7),
        shop(**proxying),
    )

    answer = explain(view, dataplane="shop-1")

    expected = {"name": "shop-1", "known": True, "trimmed": trimmed, "why": words}
    assert answer["dataplane"] == expected
    assert answer["verdict"] == ("Trimmed" if trimmed else "Resolves")
    assert answer["resolves"] is not trimmed
    assert answer["warnings"] == []


def test_a_data_plane_that_is_not_of_this_zone_is_a_warning() -> None:
    answer = explain(started(), dataplane="shop-2")

    assert answer["dataplane"]["known"] is False
    assert answer["warnings"] == ["Dataplane shop-2 is not registered in this zone"]


def test_what_nobody_holds_is_trimmed_for_nobody() -> None:
    view = served(started(), shop(reachableBackends={"refs": []}))

    answer = explain(view, dataplane="shop-1")

    assert (answer["verdict"], answer["dataplane"]["trimmed"]) == ("Unknown", False)
