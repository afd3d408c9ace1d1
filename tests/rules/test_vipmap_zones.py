"""What a zone's record and its ingresses change in other zones' maps."""

from __future__ import annotations

import msgpack
import pytest

from tests.maps import (
    POOL,
    SERVICE,
    available,
    binding,
    dataplane,
    endpoints,
    generator,
    ingress,
    key_of,
    record,
    removal,
    service,
    started,
    two_zones,
    zone_record,
)
from zonemesh.deciding import Put
from zonemesh.ipam import Binding
from zonemesh.legacy import service_key
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import Change, Key, ServiceRef
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN
from zonemesh.vipmap import Delta

# Ingresses


def test_services_of_a_zone_with_ingresses_are_reached_through_them_alone() -> None:
    view = two_zones()
    east = ServiceRef(SERVICE, key_of("web", "east"))
    view.copy.commit(
        ingress("east", "203.0.113.2", name="b"), ingress("east", "203.0.113.1", name="a")
    )

    assert east in view.flush()["default"].services
    assert endpoints(view, east) == [
        ("203.0.113.1", 10001, "east", 1),
        ("203.0.113.2", 10001, "east", 1),
    ]
    view.copy.commit(*(removal(ingress("east", "", name=name)) for name in "ab"))
    assert east in view.flush()["default"].services
    assert endpoints(view, east) == [("10.0.0.2", 80, "east", 1)]


def test_two_ingresses_at_one_address_are_one_endpoint() -> None:
    view = two_zones()
    view.copy.commit(
        ingress("east", "203.0.113.1", name="a"), ingress("east", "203.0.113.1", name="b")
    )

    found = endpoints(view, ServiceRef(SERVICE, key_of("web", "east")))
    assert found == [("203.0.113.1", 10001, "east", 1)]


def test_nothing_behind_a_service_is_not_reached_through_ingresses_either() -> None:
    view = two_zones()

    view.copy.commit(ingress("east", "203.0.113.1"), Change("Dataplane", key_of("e", "east"), None))

    assert endpoints(view, ServiceRef(SERVICE, key_of("web", "east"))) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(ingress("south", "203.0.113.1"), id="an ingress"),
        pytest.param(zone_record("south", enabled=False), id="taken out"),
    ],
)
def test_what_changes_about_a_zone_moves_only_what_leads_there(change: Change) -> None:
    view = started()
    for at, zone in enumerate(("east", "south"), 1):
        view.copy.commit(
            service(f"in-{zone}", zone),
            binding(f"in-{zone}", at, zone, order=at),
            dataplane("d", f"in-{zone}", zone=zone),
            dataplane("b", "in-both", zone=zone),
        )
    legacy = [service_key("default", name) for name in ("in-east", "in-south", "in-both")]
    for at, key in enumerate(legacy, 3):
        view.copy.commit(Change(LEGACY_VIP, key, Binding(POOL + at, None, None, 0).pack()))
    view.flush()

    view.copy.commit(change)

    moved = {ref.key for ref in view.flush()["default"].services}
    assert moved == {key_of("in-south", "south"), *legacy[1:]}


def test_an_ingress_of_this_zone_or_without_an_advertised_address_changes_nothing() -> None:
    view = two_zones()
    silent = {"networking": {"address": "10.9.9.9", "port": 1}}
    put = Put("ZoneIngress", Key("", "east", "", "ingress"), {}, silent)
    view.own.commit(ingress("west", "203.0.113.1"))
    view.copy.commit(record(put))

    assert view.flush() == {}
    assert endpoints(view, ServiceRef(SERVICE, key_of("web"))) == [("10.0.0.1", 80, "west", 0)]


# Zones taken out


def test_a_zone_that_is_taken_out_loses_its_names_and_gets_the_same_back() -> None:
    view = two_zones()
    before = view.names

    view.copy.commit(zone_record("east", enabled=False))
    delta = view.flush()["default"]

    assert delta.removed == {"web.svc.east.mesh.local"}
    assert view.names == {
        name: at for name, at in before.items() if name != "web.svc.east.mesh.local"
    }
    assert view.map.outbounds.of(ServiceRef(SERVICE, key_of("web", "east"))) == []
    assert view.map.others.is_out("east")

    view.copy.commit(zone_record("east"))
    view.flush()
    assert view.names == before
    assert view.map.digest("default") == view.from_scratch().digest("default")


@pytest.mark.parametrize("enabled", [True, False])
def test_an_operator_who_says_the_same_again_changes_nothing(enabled: bool) -> None:
    view = two_zones()
    view.copy.commit(zone_record("east", enabled=enabled))
    view.flush()

    view.copy.commit(zone_record("east", enabled=enabled))

    assert view.flush() == {}


def test_a_zone_that_is_not_there_any_more_is_not_taken_out() -> None:
    view = two_zones()
    view.copy.commit(zone_record("east", enabled=False))
    view.flush()

    view.copy.commit(removal(zone_record("east")))
    view.flush()

    assert "web.svc.east.mesh.local" in view.names


def test_a_zone_that_is_being_deleted_serves_nothing_any_more() -> None:
    view = two_zones()
    seen = msgpack.packb({"deleted": True})

    view.copy.commit(Change(SEEN, zone_key("east"), seen))
    view.flush()
    assert "web.svc.east.mesh.local" not in view.names

    # Its Zone goes before its services do, and none of them comes back for that.
    view.copy.commit(removal(zone_record("east")))
    view.flush()
    assert "web.svc.east.mesh.local" not in view.names

    view.copy.commit(Change(SEEN, zone_key("east"), None))
    view.flush()
    assert "web.svc.east.mesh.local" in view.names


def test_a_zone_serves_its_own_even_while_others_are_told_not_to() -> None:
    view = two_zones()

    view.copy.commit(zone_record("west", enabled=False))

    assert view.flush() == {}
    assert "web.svc.mesh.local" in view.names


@pytest.mark.parametrize("reenabled", [False, True])
def test_what_a_zone_changes_while_it_is_taken_out_counts_once_it_is_back(
    reenabled: bool,
) -> None:
    view = two_zones()
    view.copy.commit(zone_record("east", enabled=False))
    view.flush()

    view.copy.commit(
        available("web", "east", tier="front"),
        available("new", "east"),
        binding("new", 9, "east", order=9),
        binding("web", 8, "east", order=2),
    )
    if not reenabled:
        assert not view.flush().get("default", Delta()).put
        assert "new.svc.east.mesh.local" not in view.names
    view.copy.commit(zone_record("east"))
    view.flush()

    assert view.names["new.svc.east.mesh.local"] == 9
    assert view.names["web.svc.east.mesh.local"] == 8


def test_a_service_that_was_taken_out_gives_a_contested_name_to_the_next() -> None:
    view = started()
    view.copy.commit(
        generator("shared", "{{ .DisplayName }}.shared"),
        service("web", "east"),
        binding("web", 1, "east", order=1),
        service("web", "south"),
        binding("web", 2, "south", order=2),
    )
    view.flush()
    assert view.names["web.shared"] == 1

    view.copy.commit(zone_record("east", enabled=False))
    view.flush()
    assert view.names["web.shared"] == 2

    view.copy.commit(zone_record("east"))
    view.flush()
    assert view.names["web.shared"] == 1
