"""Why a legacy name resolves in a zone, and who lost it to whom."""

from __future__ import annotations

from typing import Any

import pytest

from tests.maps import POOL, View, binding, generator, record, service, started
from zonecp.explaining import Inquiry, Question
from zonecp.explaining import View as Known
from zonemesh.deciding import Put
from zonemesh.ipam import Binding
from zonemesh.legacy import host_key, service_key
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import Change, Key

TAG = "kuma.io/service"


def explain(view: View, name: str) -> dict[str, Any]:
    known = Known(
        vipmap=view.map,
        own=view.own.registry,
        copy=view.copy.registry,
        shortages={},
        mesh_exists=lambda mesh: mesh == "default",
        lag_s=lambda: 0.0,
        ready=lambda: None,
    )
    inquiry = Inquiry(known, Question("default", name))
    for ref in inquiry.services():
        inquiry.consider(ref)
    return inquiry.answer()


def dataplane(name: str, *services: str, **tags: str) -> Change:
    inbound = [
        {"port": 80 + number, "tags": {TAG: each, **tags}} for number, each in enumerate(services)
    ]
    networking = {"address": "10.0.0.1", "inbound": inbound}
    key = Key("default", "west", "", name)
    return record(Put("Dataplane", key, {}, {"networking": networking}))


def virtual_outbound(name: str, host: str, *, port: str = "80", match: str = "*") -> Change:
    conf = {"host": host, "port": port, "parameters": [{"name": "svc", "tagKey": TAG}]}
    spec = {"selectors": [{"match": {TAG: match}}], "conf": conf}
    return record(Put("VirtualOutbound", Key("default", "", "", name), {}, spec))


def given(address: int, key: str) -> Change:
    return Change(LEGACY_VIP, key, Binding(POOL + address, None, None, 0).pack())


def tagged(name: str) -> str:
    return service_key("default", name)


def view_of(own: list[Change], copied: list[Change]) -> View:
    view = started()
    view.own.commit(*own)
    view.copy.commit(*copied)
    view.flush()
    return view


def fates(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Who wanted the name, and why not."""
    return [(each["service"].split("/", 2)[2], each["why"]) for each in answer["candidates"]]


def test_a_legacy_name_is_held_by_a_service_tag() -> None:
    view = view_of([dataplane("a", "redis")], [given(7, tagged("redis"))])

    answer = explain(view, "redis.mesh")

    (holder,) = answer["candidates"]
    assert (answer["verdict"], answer["vips"][0]) == ("Resolves", "241.0.0.7")
    assert answer["why"] == "The service tag redis (legacy, any zone) holds it"
    assert (holder["holds"], holder["names"]) == (True, ["redis.mesh"])
    assert holder["endpoints"] == {"total": 1, "ready": 1}


DOTTED = "a.b.mesh"


@pytest.mark.parametrize(
    "services, winner, rule",
    [
        (["a.b", "a_b"], "a.b", "it is spelled so"),
        (["A.b", "a_b"], "A.b", "its own name goes before another's dotted one"),
        (["a_b", "A_b"], "A_b", "it comes first by name"),
    ],
)
def test_of_two_service_tags_the_loser_is_told_the_rule(
    services: list[str], winner: str, rule: str
) -> None:
    view = view_of(
        [dataplane("a", *services)],
        [given(number, tagged(each)) for number, each in enumerate(services, 1)],
    )
    (loser,) = set(services) - {winner}

    assert fates(explain(view, DOTTED)) == [
        (f"service/{winner}", ""),
        (f"service/{loser}", f"The service tag {winner} (legacy, any zone) has it: {rule}"),
    ]


def test_a_host_of_a_virtual_outbound_goes_before_a_service() -> None:
    host = host_key("default", "redis.mesh")
    view = view_of(
        [dataplane("a", "redis")],
        [virtual_outbound("vo", "redis.mesh"), given(1, tagged("redis")), given(2, host)],
    )
    answer = explain(view, "redis.mesh")

    rule = "a VirtualOutbound's host goes before a service's name"
    assert fates(answer) == [
        ("host/redis.mesh", ""),
        ("service/redis", f"The host redis.mesh (legacy, any zone) has it: {rule}"),
    ]


def test_a_generators_name_goes_before_a_legacy_one() -> None:
    view = view_of(
        [service("redis"), binding("redis", 1), dataplane("a", "redis")],
        [generator("shared", "redis.mesh"), given(2, tagged("redis"))],
    )
    answer = explain(view, "redis.mesh")

    assert answer["vips"][0] == "241.0.0.1"
    (_, lost) = answer["candidates"]
    assert lost["why"] == (
        "MeshService redis of zone west has it: a generator's name goes before legacy ones"
    )
    assert lost["names"] == []


def test_a_virtual_outbound_that_lost_a_port_is_named() -> None:
    host = host_key("default", "x.test")
    view = view_of(
        [dataplane("a", "redis")],
        [
            virtual_outbound("near", "x.test", match="redis"),
            virtual_outbound("far", "x.test"),
            given(1, host),
        ],
    )
    answer = explain(view, "x.test")

    assert answer["resolves"]
    assert answer["warnings"] == ["port 80: VirtualOutbound far lost it to near"]


def test_a_legacy_name_without_an_address_waits_for_one() -> None:
    view = view_of([dataplane("a", "a_b")], [])

    answer = explain(view, "a_b.mesh")

    assert (answer["verdict"], answer["resolves"]) == ("NoAddress", False)
    assert answer["why"].startswith("The service tag a_b (legacy, any zone) holds it")


def test_a_mesh_without_legacy_names_says_why_one_is_unknown() -> None:
    exclusive = {"meshServices": {"mode": "Exclusive"}}
    mesh = record(Put("Mesh", Key("", "", "", "default"), {}, exclusive))
    view = view_of([dataplane("a", "redis")], [mesh])

    answer = explain(view, "redis.mesh")

    assert answer["verdict"] == "Unknown"
    assert answer["why"].endswith("its meshServices.mode is Exclusive")
    assert "Exclusive" not in explain(view, "redis.other")["why"]
