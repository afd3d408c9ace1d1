"""Names, addresses and outbounds of one zone, as its own log and global's say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, put_dataplane, put_service
from tests.maps import (
    POOL,
    SERVICE,
    View,
    binding,
    generator,
    key_of,
    record,
    service,
    started,
)
from zonemesh.hostnames import Reason
from zonemesh.model import Change, Key, Record, ServiceRef, zone_of


def test_a_service_has_its_name_here_and_another_elsewhere() -> None:
    west, east = started("west"), started("east")
    changes = [service("redis"), binding("redis", 7, order=1)]

    for view, chain in ((west, west.own), (west, west.copy), (east, east.copy)):
        chain.commit(*changes)
        view.flush()

    assert west.names == {"redis.svc.mesh.local": 7}
    assert east.names == {"redis.svc.west.mesh.local": 7}


def test_a_name_without_an_address_is_not_published_until_it_has_one() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", None))
    assert view.flush() == {} or not view.names

    view.own.commit(binding("redis", 9))

    assert view.flush()["default"].put.keys() == {"redis.svc.mesh.local"}
    assert view.names == {"redis.svc.mesh.local": 9}


def test_a_released_address_is_not_published() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    view.own.commit(Change(SERVICE, key_of("redis"), None), binding("redis", 7, released_ms=5))

    delta = view.flush()["default"]
    assert delta.removed == {"redis.svc.mesh.local"}
    assert ServiceRef(SERVICE, key_of("redis")) in delta.services
    assert view.names == {}


def test_a_service_that_lost_its_address_takes_name_and_outbounds_with_it() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    view.own.commit(binding("redis", None))

    delta = view.flush()["default"]
    ref = ServiceRef(SERVICE, key_of("redis"))
    assert delta.removed == {"redis.svc.mesh.local"}
    assert delta.services == {ref}
    assert view.map.outbounds.of(ref) == []


def test_an_address_that_changed_is_published_anew() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    view.own.commit(binding("redis", 8))

    assert view.flush()["default"].put["redis.svc.mesh.local"].address == POOL + 8
    assert view.map.digest("default") == view.from_scratch().digest("default")


def test_a_change_that_changes_no_name_makes_no_delta() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    view.copy.commit(binding("redis", 7, order=4))
    view.own.commit(Change("unknown", key_of("redis"), b"x"))

    assert view.flush() == {}


def test_of_two_that_want_a_name_the_first_merged_has_it_in_every_zone() -> None:
    template = "{{ .DisplayName }}.shared"
    views = [started("west"), started("east")]
    for view in views:
        view.copy.commit(generator("shared", template, created_ms=NOW_MS - 1))
        view.own.commit(service("redis", view.zone), binding("redis", 3, view.zone, birth=1))
        view.flush()
        merged = [
            service("redis", "west"),
            binding("redis", 1, "west", order=9),
            service("redis", "east"),
            binding("redis", 2, "east", order=5),
        ]
        view.own.commit(binding("redis", 1 if view.zone == "west" else 2, view.zone))
        view.copy.commit(*merged)
        view.flush()

    for view in views:
        winner = view.map.published["default"]["redis.shared"]
        assert zone_of(winner.key) == "east"
        loser = ServiceRef(SERVICE, key_of("redis", "west"))
        collision = [each for each in view.map.outcomes(loser) if each.hostname == "redis.shared"]
        assert [each.reason for each in collision] == [Reason.COLLISION]
        assert "zone east" in collision[0].message


def rivals() -> list[Change]:
    """Two services of one zone that want the same name."""
    wanted = generator("one-name", "only.shared", zone="west")
    return [wanted, service("a"), service("b")]


def test_orders_that_global_draws_decide_between_services_of_one_zone() -> None:
    view = started()
    view.own.commit(*rivals(), binding("a", 1, birth=1), binding("b", 2, birth=2))
    view.flush()
    assert view.names["only.shared"] == 1

    view.copy.commit(binding("a", 1, order=9), binding("b", 2, order=8))
    view.flush()

    assert view.names["only.shared"] == 2
    assert view.map.published == view.from_scratch().published


def test_an_order_known_from_before_a_loss_ranks_until_global_knows_it_again() -> None:
    view = started()
    view.own.commit(*rivals(), binding("a", 1, birth=1), binding("b", 2, birth=2, order=5))
    view.flush()

    assert view.names["only.shared"] == 2


def test_a_name_goes_to_the_next_when_its_holder_leaves() -> None:
    view = started()
    view.own.commit(*rivals(), binding("a", 1, birth=1), binding("b", 2, birth=2))
    view.flush()
    assert view.names["only.shared"] == 1

    view.own.commit(Change(SERVICE, key_of("a"), None), binding("a", 1, released_ms=1))
    view.flush()

    assert view.names["only.shared"] == 2


def test_an_edited_generator_renames_and_a_deleted_one_takes_its_names() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.own.commit(generator("mine", "{{ .DisplayName }}.one", zone="west"))
    view.flush()
    view.own.commit(generator("mine", "{{ .DisplayName }}.two", zone="west"))
    delta = view.flush()["default"]
    assert (set(delta.put), delta.removed) == ({"redis.two"}, {"redis.one"})

    view.own.commit(Change("HostnameGenerator", Key("", "west", "", "mine").packed, None))

    assert view.flush()["default"].removed == {"redis.two"}


def test_a_service_may_leave_in_the_same_flush_in_which_generators_change() -> None:
    view = started()
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    view.own.commit(generator("mine", "{{ .DisplayName }}.one", zone="west"))
    view.own.commit(Change(SERVICE, key_of("redis"), None))
    view.flush()

    assert view.names == {}


def test_a_generator_that_this_build_cannot_read_names_nothing_and_stops_nothing() -> None:
    view = started()
    spec = {"selector": {"meshPlanet": {}}, "template": "{{ .DisplayName }}.x"}
    later = Record(created_ms=1, modified_ms=1, spec=spec).pack()

    view.copy.commit(Change("HostnameGenerator", Key("", "", "", "later").packed, later))
    view.own.commit(service("redis"), binding("redis", 7))
    view.flush()

    assert view.names == {"redis.svc.mesh.local": 7}


# Outbounds


def outbounds(view: View, name: str, zone: str = "west") -> list[dict[str, Any]]:
    return view.map.outbounds.of(ServiceRef(SERVICE, key_of(name, zone)))


def test_an_outbound_has_the_endpoints_that_its_selector_matches() -> None:
    view = started()
    view.own.commit(
        service("web"),
        binding("web", 7),
        record(put_dataplane("web-1", "web", port=80)),
        record(put_dataplane("web-2", "web", port=80, ready=False)),
        record(put_dataplane("web-3", "web", port=81)),
        record(put_dataplane("db-1", "db", port=80)),
    )

    (found,) = outbounds(view, "web")

    assert (found["vips"], found["port"]) == (["241.0.0.7", "fd00:fd00::f100:7"], 80)
    assert found["id"].startswith(view.map.outbounds.ids(ServiceRef(SERVICE, key_of("web"))))
    assert [(each["port"], each["ready"]) for each in found["endpoints"]] == [
        (80, True),
        (80, False),
    ]
    assert {each["priority"] for each in found["endpoints"]} == {0}


def test_a_dataplane_is_behind_a_service_if_it_has_all_tags_of_the_selector() -> None:
    view = started()
    tags = {"kuma.io/service": "web", "version": "2"}
    put = put_service("web")
    spec = {**put.spec, "selector": {"dataplaneTags": tags}}
    one, two = put_dataplane("web-1", "web"), put_dataplane("web-2", "web")
    inbound = {"port": 80, "tags": tags}
    networking = {"address": "10.0.0.2", "inbound": [inbound]}
    view.own.commit(
        record(replace(put, spec=spec)),
        binding("web", 7),
        record(one),
        record(replace(two, spec={"networking": networking})),
    )

    (found,) = outbounds(view, "web")

    assert [(each["address"], each["port"]) for each in found["endpoints"]] == [("10.0.0.2", 80)]


def test_a_port_without_a_target_port_has_nothing_behind_it() -> None:
    view = started()
    put = put_service("web")
    spec = {**put.spec, "ports": [{"port": 80}]}
    view.own.commit(
        record(replace(put, spec=spec)), binding("web", 7), record(put_dataplane("web-1", "web"))
    )

    (found,) = outbounds(view, "web")

    assert found["endpoints"] == []


def test_a_service_of_another_zone_has_that_zones_endpoints_at_lower_priority() -> None:
    view = started()
    view.own.commit(record(put_dataplane("mine", "web")))
    view.copy.commit(
        service("web", "east"),
        binding("web", 7, "east"),
        record(put_dataplane("theirs", "web", zone="east")),
    )

    (found,) = outbounds(view, "web", "east")

    assert [(each["zone"], each["priority"]) for each in found["endpoints"]] == [("east", 1)]


def test_a_dataplane_that_comes_or_goes_moves_the_services_it_stands_behind() -> None:
    view = started()
    view.own.commit(service("web"), binding("web", 7), service("db"), binding("db", 8))
    user = record(put_service("user", **{"kuma.io/service": "web"}))
    view.own.commit(user, binding("user", 9))
    view.flush()

    view.own.commit(record(put_dataplane("web-1", "web")))

    moved = view.flush()["default"]
    assert not moved.put
    assert {ref.key for ref in moved.services} >= {key_of("web"), key_of("user")}
    view.own.commit(Change("Dataplane", key_of("web-1"), None))
    assert ServiceRef(SERVICE, key_of("web")) in view.flush()["default"].services


def test_a_service_without_an_address_has_no_outbounds() -> None:
    view = started()
    view.own.commit(service("web"), record(put_dataplane("web-1", "web")))

    assert outbounds(view, "web") == []


@given(st.permutations(range(6)))
def test_the_digest_does_not_depend_on_the_order_of_registration(order: list[int]) -> None:
    view = started()
    for number in order:
        name = f"s{number}"
        view.own.commit(service(name), binding(name, number))
        view.flush()
    straight = started()
    for number in range(6):
        straight.own.commit(service(f"s{number}"), binding(f"s{number}", number))
    straight.flush()

    assert view.map.digest("default") == straight.map.digest("default")
