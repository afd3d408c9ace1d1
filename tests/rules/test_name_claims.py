"""Legacy names of a zone that stood alone: the first to bring one keeps its address."""

from __future__ import annotations

from typing import Any

import pytest

from globalcp.inputs import Begin
from tests.zones_up import SERVICE, Global, Stream, bound, service
from zonemesh.deciding import Now
from zonemesh.ipam import Binding, parse_ipv4
from zonemesh.legacy import host_key, is_name_key, service_key
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import Change, Key, Record
from zonemesh.settings import Settings

REDIS = service_key("default", "redis")
ELSEWHERE = parse_ipv4("250.0.0.1")


def name(key: str, address: int | None, released_ms: int | None = None) -> Change:
    return Change(LEGACY_VIP, key, Binding(address, None, released_ms, 0).pack())


def runs(which: str, zone: str = "west") -> Change:
    inbound = [{"port": 80, "tags": {"kuma.io/service": which}}]
    spec = {"networking": {"address": "10.0.0.1", "inbound": inbound}}
    record = Record(created_ms=1, modified_ms=1, spec=spec)
    return Change("Dataplane", Key("default", zone, "", f"{which}-1").packed, record.pack())


def brought(*changes: Change, zone: str = "west", to: Global | None = None) -> Global:
    mesh = to or Global(begin=False)
    if to is None:
        mesh.submit(Begin(Settings()))
    stream = Stream(zone)
    stream.write(*changes)
    assert mesh.submit(stream.replace()) == [True]
    return mesh


def address(mesh: Global, key: str = REDIS) -> int | None:
    packed = mesh.state.registry.get(LEGACY_VIP, key)
    binding = None if packed is None else Binding.unpack(packed)
    return binding.address if binding is not None and binding.live else None


def test_a_name_is_bound_where_the_zone_has_it() -> None:
    mesh = brought(runs("redis"), name(REDIS, ELSEWHERE))

    assert address(mesh) == ELSEWHERE
    assert mesh.seen().conflicts == 0


def test_of_two_zones_the_first_keeps_its_address_and_the_other_s_counts_as_a_conflict() -> None:
    mesh = brought(runs("redis"), name(REDIS, ELSEWHERE))

    brought(runs("redis", "east"), name(REDIS, ELSEWHERE + 1), zone="east", to=mesh)

    assert address(mesh) == ELSEWHERE
    assert mesh.seen("east").conflicts == 1


def test_an_address_that_another_name_has_is_not_given_twice() -> None:
    other = service_key("default", "other")
    mesh = brought(runs("redis"), name(REDIS, ELSEWHERE))

    brought(runs("other", "east"), name(other, ELSEWHERE), zone="east", to=mesh)

    assert address(mesh) == ELSEWHERE
    assert address(mesh, other) not in (None, ELSEWHERE)
    assert mesh.seen("east").conflicts == 1


def test_two_names_of_one_zone_at_one_address_are_not_both_bound_there() -> None:
    other = service_key("default", "other")

    mesh = brought(runs("redis"), runs("other"), name(REDIS, ELSEWHERE), name(other, ELSEWHERE))

    assert {address(mesh), address(mesh, other)} > {ELSEWHERE}


@pytest.mark.parametrize("text", ["198.51.100.1", "255.255.255.255", "241.0.0.1"])
def test_an_address_outside_the_legacy_ranges_is_not_taken(text: str) -> None:
    mesh = brought(runs("redis"), name(REDIS, parse_ipv4(text)))

    assert address(mesh) not in (None, parse_ipv4(text))
    assert mesh.seen().conflicts == 1


def test_an_address_in_somebody_s_block_is_not_taken() -> None:
    mesh = Global(begin=False)
    mesh.submit(Begin(Settings(pools={SERVICE: ("250.0.0.0/8",)})))
    mesh.submit(Stream("east").merge(service("a", "east")))
    mine = mesh.blocks("east")[0].first
    mesh.submit(Begin(Settings()))

    brought(runs("redis"), name(REDIS, mine), to=mesh)

    assert address(mesh) not in (None, mine)


def test_a_name_that_nobody_has_rests_at_once_and_has_its_address_when_somebody_does() -> None:
    mesh = brought(name(REDIS, ELSEWHERE))
    assert address(mesh) is None

    stream = Stream("east")
    mesh.submit(stream.merge(runs("redis", "east")))

    assert address(mesh) == ELSEWHERE


@pytest.mark.parametrize(
    "change",
    [
        name("default//service/", ELSEWHERE),
        name("//service/redis", ELSEWHERE),
        name("default/west/service/redis", ELSEWHERE),
        name("default//block/redis", ELSEWHERE),
        name("redis", ELSEWHERE),
        Change(LEGACY_VIP, REDIS, b"nonsense"),
        name(service_key("default", "x" * 2_000), ELSEWHERE),
    ],
)
def test_what_is_no_name_s_binding_is_rejected_alone(change: Change) -> None:
    mesh = brought(runs("redis"), service("web"), bound("web", None), change)

    assert mesh.seen().rejected == 1
    assert mesh.state.registry.get(SERVICE, Key("default", "west", "", "web").packed) is not None


def test_names_come_only_with_the_whole_of_a_zone() -> None:
    mesh = Global(begin=False)
    mesh.submit(Begin(Settings()))

    mesh.submit(Stream().merge(name(REDIS, ELSEWHERE)))

    assert address(mesh) is None
    assert mesh.seen().rejected == 1


def test_the_same_names_again_change_nothing() -> None:
    mesh = brought(runs("redis"), name(REDIS, ELSEWHERE))
    before = mesh.state.registry.get(LEGACY_VIP, REDIS)

    brought(runs("redis"), name(REDIS, ELSEWHERE), to=mesh)

    assert mesh.state.registry.get(LEGACY_VIP, REDIS) == before
    assert mesh.seen().conflicts == 0


@pytest.mark.parametrize("key", [REDIS, host_key("default", "v1.web.test")])
def test_keys_of_names_are_known(key: str) -> None:
    assert is_name_key(key)


def test_a_decision_of_nothing_but_the_beginning_gives_out_nothing() -> None:
    mesh = brought(runs("redis"))
    decision: Any = mesh.leader.decide(
        [Begin(Settings(legacy_cidrs=("250.0.0.0/8",)))], Now(wall_ms=1, log_time_ms=0, mono_s=0.0)
    )

    assert {change.kind for change in decision.changes} == {"settings"}
    assert decision.more
