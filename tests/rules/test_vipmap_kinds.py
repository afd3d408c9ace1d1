"""External and multi-zone services, ingresses, zones taken out, generators that change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.builders import put_dataplane, put_service
from tests.maps import (
    EXTERNAL,
    MULTI_ZONE,
    POOL,
    SERVICE,
    View,
    available,
    binding,
    bound,
    external,
    generator,
    ingress,
    key_of,
    mesh_record,
    multi_zone,
    record,
    service,
    standing,
    started,
    zone_record,
)
from zonemesh import status
from zonemesh.deciding import Put
from zonemesh.hostnames import ServiceFacts
from zonemesh.ipam import Binding
from zonemesh.labels import DISPLAY_NAME
from zonemesh.legacy import service_key
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.lostpolicy import LABEL
from zonemesh.model import Change, Key, ServiceRef
from zonemesh.settings import zone_key
from zonemesh.travel import SEEN
from zonemesh.vipmap import Delta, VipMap

MULTI = ServiceRef(MULTI_ZONE, key_of("web", ""))


class Counting(VipMap):
    """Tells whose facts it has made: what costs when there are many services."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.read: list[ServiceRef] = []
        super().__init__(*args, **options)

    def _make_facts(self, ref: ServiceRef, *packed: Any) -> ServiceFacts:
        self.read.append(ref)
        return super()._make_facts(ref, *packed)


def removal(change: Change) -> Change:
    return change._replace(payload=None)


def dataplane(name: str, service: str, *, zone: str = "west", address: str = "10.0.0.1") -> Change:
    put = put_dataplane(name, service, zone=zone)
    return record(replace(put, spec={"networking": {**put.spec["networking"], "address": address}}))


def endpoints(view: View, ref: ServiceRef) -> list[tuple[str, int, str, int]]:
    """What stands behind the first port."""
    (first, *_) = view.map.outbounds.of(ref)
    return [
        (each["address"], each["port"], each["zone"], each["priority"])
        for each in first["endpoints"]
    ]


def two_zones(**east: str) -> View:
    """West's map with `web` of two zones, a Dataplane behind each, and one over both."""
    view = started()
    view.own.commit(
        available("web", "west"), binding("web", 1), dataplane("w", "web", address="10.0.0.1")
    )
    view.copy.commit(
        available("web", "east", **east),
        binding("web", 2, "east", order=2),
        dataplane("e", "web", zone="east", address="10.0.0.2"),
        multi_zone("web"),
        bound(MULTI_ZONE, "web", 3),
    )
    view.flush()
    return view


# External services


@pytest.mark.parametrize("zone", ["", "west"], ids=["made on global", "made here"])
def test_an_external_service_has_a_name_and_leads_to_its_endpoints(zone: str) -> None:
    view = started()
    chain = view.own if zone else view.copy
    chain.commit(
        external("api", ("192.0.2.1", 8443), ("api.example.com", 443), zone=zone),
        bound(EXTERNAL, "api", 5, zone),
    )
    view.flush()

    ref = ServiceRef(EXTERNAL, key_of("api", zone))
    (outbound,) = view.map.outbounds.of(ref)
    assert view.names == {"api.extsvc.mesh.local": 5}
    assert (outbound["kind"], outbound["port"], outbound["protocol"]) == (EXTERNAL, 443, "tls")
    assert endpoints(view, ref) == [
        ("192.0.2.1", 8443, zone, 0),
        ("api.example.com", 443, zone, 0),
    ]


def test_an_endpoint_of_an_external_service_keeps_its_own_priority() -> None:
    view = started()
    listed = [{"address": "192.0.2.1", "port": 1, "priority": 2}, {"address": "b.io", "port": 2}]
    spec = {"match": {"port": 443}, "endpoints": listed}
    put = Put(EXTERNAL, Key("default", "", "", "api"), {}, spec)
    view.copy.commit(record(put), bound(EXTERNAL, "api", 5))
    view.flush()

    found = endpoints(view, ServiceRef(EXTERNAL, key_of("api", "")))
    assert [priority for *_, priority in found] == [2, 0]


def test_an_external_service_without_endpoints_still_has_its_name() -> None:
    view = started()
    view.copy.commit(external("api"), bound(EXTERNAL, "api", 5))
    view.flush()

    assert view.names == {"api.extsvc.mesh.local": 5}
    assert endpoints(view, ServiceRef(EXTERNAL, key_of("api", ""))) == []


# Services over several zones


def test_a_multi_zone_service_leads_to_all_of_its_name_the_local_ones_first() -> None:
    view = two_zones()

    assert view.names["web.mzsvc.mesh.local"] == 3
    assert sorted(endpoints(view, MULTI)) == [
        ("10.0.0.1", 80, "west", 0),
        ("10.0.0.2", 80, "east", 1),
    ]
    assert view.map.outbounds.matched(MULTI) == [key_of("web", "east"), key_of("web", "west")]


@pytest.mark.parametrize(
    "change, found",
    [
        pytest.param(
            lambda view: view.copy.commit(available("web", "east", state="Unavailable")),
            ["10.0.0.1"],
            id="another zone's is unavailable",
        ),
        pytest.param(
            lambda view: view.own.commit(available("web", "west", state="Unavailable")),
            ["10.0.0.1", "10.0.0.2"],
            id="the local one speaks for itself",
        ),
        pytest.param(
            lambda view: view.copy.commit(removal(service("web", "east"))),
            ["10.0.0.1"],
            id="one is deleted",
        ),
        pytest.param(
            lambda view: view.own.commit(Change("Dataplane", key_of("w"), None)),
            ["10.0.0.2"],
            id="a Dataplane goes",
        ),
        pytest.param(
            lambda view: view.copy.commit(dataplane("e2", "web", zone="east", address="10.0.0.9")),
            ["10.0.0.1", "10.0.0.2", "10.0.0.9"],
            id="a Dataplane comes",
        ),
        pytest.param(
            lambda view: view.copy.commit(ingress("east", "203.0.113.1")),
            ["10.0.0.1", "203.0.113.1"],
            id="another zone gets an ingress",
        ),
        pytest.param(
            lambda view: view.copy.commit(zone_record("east", enabled=False)),
            ["10.0.0.1"],
            id="another zone is taken out",
        ),
    ],
)
def test_what_changes_behind_a_multi_zone_service_is_published_at_once(
    change: Callable[[View], Any], found: list[str]
) -> None:
    view = two_zones()

    change(view)

    delta = view.flush()["default"]
    assert MULTI in delta.services
    assert sorted(address for address, *_ in endpoints(view, MULTI)) == found


def test_a_multi_zone_service_of_which_nothing_is_left_keeps_name_and_address() -> None:
    view = two_zones()

    view.own.commit(removal(service("web")), binding("web", 1, released_ms=1))
    view.copy.commit(
        removal(service("web", "east")), binding("web", 2, "east", order=2, released_ms=1)
    )
    view.flush()

    assert view.names == {"web.mzsvc.mesh.local": 3}
    assert endpoints(view, MULTI) == []


@pytest.mark.parametrize(
    "asked, behind",
    [
        ({"port": 8080, "name": "http"}, [81]),
        ({"port": 80}, [80]),
        ({"port": 9, "name": "80"}, [80]),
        ({"port": 81}, []),
        ({"port": 80, "name": "admin"}, []),
    ],
    ids=["by name", "by number", "a number as a name", "a named port by number", "no such name"],
)
def test_a_port_stands_for_the_ports_that_are_called_the_same(
    asked: Mapping[str, Any], behind: list[int]
) -> None:
    view = started()
    put = put_service("web")
    ports = [
        {"port": 80, "targetPort": 80},
        {"port": 81, "targetPort": 81, "name": "http"},
    ]
    spec = put_dataplane("w", "web", "web").spec
    view.own.commit(
        record(replace(put, spec={**put.spec, "ports": ports})),
        record(Put("Dataplane", Key("default", "west", "", "w"), {}, spec)),
        binding("web", 1),
    )
    view.copy.commit(multi_zone("web", asked), bound(MULTI_ZONE, "web", 3))
    view.flush()

    assert [port for _, port, *_ in endpoints(view, MULTI)] == behind


@pytest.mark.parametrize("arrives", ["service", "selector"])
@pytest.mark.parametrize(
    "match",
    [
        {DISPLAY_NAME: "web"},
        {"tier": "front"},
        {"kuma.io/zone": "east"},
        {"kuma.io/zone": "east", "tier": "front"},
        {"kuma.io/env": "universal", DISPLAY_NAME: "web"},
        {"kuma.io/origin": "global"},
        {"kuma.io/mesh": "default", "tier": "front"},
    ],
    ids="+".join,
)
def test_a_service_is_found_by_stored_and_by_computed_labels(
    arrives: str, match: Mapping[str, str]
) -> None:
    view = started()
    changes = [
        [available("web", "east", tier="front"), available("other", "east", tier="fronts")],
        [multi_zone("web", match=match), bound(MULTI_ZONE, "web", 3)],
    ]
    for part in changes if arrives == "selector" else reversed(changes):
        view.copy.commit(*part)
        view.flush()

    assert key_of("web", "east") in view.map.outbounds.matched(MULTI)
    only_zone = match.keys() <= {"kuma.io/zone", "kuma.io/origin"}
    assert (key_of("other", "east") in view.map.outbounds.matched(MULTI)) is only_zone


def test_a_service_of_another_mesh_is_not_matched() -> None:
    view = two_zones()
    twin = available("web", "east")
    view.copy.commit(twin._replace(key=key_of("web", "east", "shop")))
    view.flush()

    assert key_of("web", "east", "shop") not in view.map.outbounds.matched(MULTI)


def test_a_label_that_changes_moves_a_service_from_one_multi_zone_service_to_another() -> None:
    view = started()
    view.copy.commit(
        multi_zone("blue", match={"color": "blue"}),
        bound(MULTI_ZONE, "blue", 1),
        multi_zone("green", match={"color": "green"}),
        bound(MULTI_ZONE, "green", 2),
        available("web", "east", color="blue"),
    )
    view.flush()

    view.copy.commit(available("web", "east", color="green"))

    blue, green = (ServiceRef(MULTI_ZONE, key_of(name, "")) for name in ("blue", "green"))
    assert {blue, green} <= view.flush()["default"].services
    assert view.map.outbounds.matched(blue) == []
    assert view.map.outbounds.matched(green) == [key_of("web", "east")]


def test_adding_a_multi_zone_service_by_name_reads_only_services_of_that_name() -> None:
    view = started(made=Counting)
    assert isinstance(view.map, Counting)
    view.copy.commit(*(available(f"s{number}", "east") for number in range(500)))
    view.copy.commit(available("web", "east"), available("web", "south"))
    view.flush()
    view.map.read.clear()

    view.copy.commit(multi_zone("web"), bound(MULTI_ZONE, "web", 3))
    view.flush()

    read = {ref.key for ref in view.map.read if ref.kind == SERVICE}
    assert read == {key_of("web", "east"), key_of("web", "south")}
    assert len(view.map.outbounds.matched(MULTI)) == 2


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


# Generators


def test_a_generator_of_one_mesh_names_services_of_that_mesh_alone() -> None:
    view = started()
    shop = service("web")._replace(key=key_of("web", mesh="shop"))
    address = binding("web", 2)._replace(key=key_of("web", mesh="shop"))
    view.own.commit(service("web"), binding("web", 1), shop, address)
    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west", mesh="shop"))
    view.flush()

    assert "web.only" in view.map.published["shop"]
    assert view.names == {"web.svc.mesh.local": 1}

    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west"))
    view.flush()
    assert view.names == {"web.only": 1, "web.svc.mesh.local": 1}


def test_a_mesh_that_appears_later_has_only_the_generators_that_are_for_it() -> None:
    view = started()
    view.own.commit(generator("only", "{{ .DisplayName }}.only", zone="west", mesh="shop"))
    view.flush()

    for mesh, at in (("shop", 1), ("other", 2)):
        key = key_of("web", mesh=mesh)
        view.own.commit(service("web")._replace(key=key), binding("web", at)._replace(key=key))
    view.flush()

    assert view.map.published["shop"].keys() == {"web.only", "web.svc.mesh.local"}
    assert view.map.published["other"].keys() == {"web.svc.mesh.local"}


def many(count: int, made: type[VipMap] = VipMap) -> View:
    view = started(made=made)
    changes = []
    for number in range(count):
        changes += [service(f"s{number}"), binding(f"s{number}", number)]
    view.own.commit(*changes, bytes_max=1 << 30)
    view.flush()
    return view


def test_another_generator_is_tried_on_so_many_services_in_each_part_as_are_allowed() -> None:
    view = many(20_000, Counting)
    assert isinstance(view.map, Counting)
    view.own.commit(generator("more", "{{ .DisplayName }}.more", zone="west"))
    assert view.map.pending >= 20_000
    deltas: defaultdict[str, Delta] = defaultdict(Delta)

    parts, more = 0, True
    while more:
        view.map.read.clear()
        more = view.map.flush_part(deltas, 1_000)
        parts += 1
        assert len(view.map.read) <= 1_000
        assert len(deltas["default"].put) <= 1_000 * parts

    assert parts == 20
    assert len(deltas["default"].put) == 20_000
    assert len(view.names) == 40_000


@pytest.mark.parametrize(
    "meanwhile, names",
    [
        pytest.param(service("later"), {"later.more"}, id="a new service"),
        pytest.param(removal(service("s3")), set(), id="a service goes"),
        pytest.param(service("s3", tier="x"), {"s3.more"}, id="a service changes"),
        pytest.param(binding("s3", 3, order=5), {"s3.more"}, id="a rank changes"),
        pytest.param(binding("s3", 33), {"s3.more"}, id="an address changes"),
        pytest.param(
            generator("more", "{{ .DisplayName }}.other", zone="west"),
            {"s3.other"},
            id="the generator changes again",
        ),
        pytest.param(
            removal(generator("more", "", zone="west")), set(), id="the generator goes again"
        ),
    ],
)
@pytest.mark.parametrize("done", [0, 4, 9])
def test_what_changes_while_services_are_named_anew_ends_as_if_all_were_done_at_once(
    meanwhile: Change, names: set[str], done: int
) -> None:
    view = many(10)
    view.own.commit(binding("later", 99), generator("more", "{{ .DisplayName }}.more", zone="west"))
    deltas: defaultdict[str, Delta] = defaultdict(Delta)
    if done:
        view.map.flush_part(deltas, done)

    view.own.commit(meanwhile)
    while view.map.flush_part(deltas, 2):
        pass

    scratch = view.from_scratch()
    assert view.map.published == scratch.published
    assert view.map.digest("default") == scratch.digest("default")
    assert names <= view.map.published["default"].keys()


# What clients are told of them


def test_an_external_service_shows_one_address_and_who_gave_its_name() -> None:
    view = started()
    view.copy.commit(external("api"), bound(EXTERNAL, "api", 5))
    view.flush()

    found = status.mesh_external_service(
        binding=Binding(POOL + 5, 1, None, 0),
        outcomes=view.map.outcomes(ServiceRef(EXTERNAL, key_of("api", ""))),
        shortage=None,
    )

    assert found["vip"] == {"ip": "241.0.0.5"}
    (address,) = found["addresses"]
    assert address["hostname"] == "api.extsvc.mesh.local"
    assert address["hostnameGeneratorRef"]["coreName"].startswith("synced-mesh-external-service-")
    assert "conditions" not in found


def test_a_multi_zone_service_shows_the_services_that_it_stands_for() -> None:
    view = two_zones()

    found = status.mesh_multi_zone_service(
        binding=Binding(POOL + 3, 1, None, 0),
        outcomes=view.map.outcomes(MULTI),
        matched=[Key.parse(key) for key in view.map.outbounds.matched(MULTI)],
        shortage=None,
    )

    assert [each["ip"] for each in found["vips"]] == ["241.0.0.3", "fd00:fd00::f100:3"]
    assert [(each["name"], each["zone"]) for each in found["meshServices"]] == [
        ("web", "east"),
        ("web", "west"),
    ]
    (condition,) = found["conditions"]
    assert (condition["status"], condition["reason"]) == ("True", "MatchesFound")
    assert condition["message"].startswith("2 ")


@pytest.mark.parametrize(
    "shortage, reason", [(None, "Waiting"), ("pool X: all in use", "PoolExhausted")]
)
@pytest.mark.parametrize(
    "held", [None, Binding(None, 1, None, 0), Binding(POOL, 1, 5, 0)], ids=["new", "waits", "rests"]
)
def test_a_service_without_an_address_says_why(
    held: Binding | None, shortage: str | None, reason: str
) -> None:
    several = status.mesh_multi_zone_service(
        binding=held, outcomes=(), matched=(), shortage=shortage
    )
    one = status.mesh_external_service(binding=held, outcomes=(), shortage=shortage)

    assert (several["vips"], one["vip"]) == ([], {})
    unmatched, *more = several["conditions"]
    assert (unmatched["status"], unmatched["reason"]) == ("False", "NoMatchesFound")
    for condition in (*more, *one["conditions"]):
        assert (condition["type"], condition["status"]) == ("VIPAllocated", "False")
        assert condition["reason"] == reason
        assert shortage is None or condition["message"] == shortage
    assert len(more) == 1


# In any order

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
