"""A name is answered once Envoy is ready for it, and its listener outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.envoy.ads import Counts, Rejected, Request, Stream
from zonecp.dataplane.envoy.compiler import CLUSTER_S, WITHDRAW_S, Compiler, Shape
from zonecp.dataplane.envoy.gate import Gate
from zonecp.dataplane.envoy.heldback import HeldBack
from zonecp.dataplane.envoy.store import CLUSTER, ENDPOINTS, LISTENER, Ref, Resources
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.outbounds import Endpoint, Outbound, Outbounds
from zonecp.dataplane.resolver import Table

REDIS = "redis.svc.mesh.local"


class Client:
    """An Envoy that has accepted and rejected what a test says."""

    def __init__(self) -> None:
        self.numbers: dict[Ref, int] = {}
        self.rejected: dict[Ref, Rejected] = {}

    def accepted(self, ref: Ref) -> int:
        return self.numbers.get(ref, 0)

    def rejection(self, ref: Ref) -> Rejected | None:
        return self.rejected.get(ref)


class World:
    """A table behind a gate, and the resources that are made of outbounds."""

    def __init__(self, shape: Shape | None = None) -> None:
        self.table = Table(["mesh.local"])
        self.names = HeldBack(self.table)
        self.outbounds = Outbounds()
        self.resources = Resources()
        self.compiler = Compiler(self.outbounds, self.resources, shape or Shape())
        self.client: Client | None = Client()
        self.whole = True
        self.gate = Gate(
            self.names, self.compiler.needs, lambda: self.client, whole=lambda: self.whole
        )
        self.outbounds.listen(self.gate.changed)
        self.compiler.listen(self.gate.settle)
        self.gate.close()

    def name(self, name: str, last: int) -> None:
        addresses = [
            bytes((241, 0, 0, last)),
            bytes.fromhex("fd00fd00" + "00" * 8 + f"f10000{last:02x}"),
        ]
        self.names.put(wire_name(name), wire_entry(addresses, 60))

    def compile(self, now_s: float = 0.0) -> None:
        asyncio.run(self.compiler.step(now_s))

    def accept(self, *, but: Mapping[Ref, str] | None = None) -> None:
        """Envoy decides on everything."""
        assert self.client is not None
        for ref in self.resources.refs():
            resource = self.resources.get(ref)
            assert resource is not None
            if but is not None and ref in but:
                self.client.rejected[ref] = Rejected(resource.version, but[ref])
            else:
                self.client.numbers[ref] = resource.number
        self.gate.decided(each.id for each in self.outbounds)

    def accept_only(self, outbound: Outbound) -> None:
        assert self.client is not None
        for path in self.compiler.needs(outbound.id) or ():
            self.client.numbers.update((need.ref, need.number) for need in path)
        self.gate.decided([outbound.id])

    def answered(self, name: str = REDIS) -> bool:
        return name in self.table


def outbound(name: str = "redis", last: int = 1, *, port: int = 80, **fields: Any) -> Outbound:
    return Outbound(
        **{
            "id": f"kri_msvc_default_west__{name}_{port}",
            "kind": "MeshService",
            "vips": (f"241.0.0.{last}", f"fd00:fd00::f100:{last:x}"),
            "port": port,
            "name": name,
            "protocol": "tcp",
            "endpoints": (Endpoint(address="10.0.0.1", port=8080),),
            **fields,
        }
    )


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_name_waits_until_envoy_has_everything_behind_it(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound()])
    world.compile()
    assert not world.answered()

    world.accept()

    assert world.answered()
    assert world.names.held == {}


@pytest.mark.parametrize("type_url", [CLUSTER, ENDPOINTS, LISTENER])
def test_it_waits_for_each_of_them(world: World, type_url: str) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound()])
    world.compile()
    assert world.client is not None
    for ref in world.resources.refs():
        if ref.type_url != type_url:
            world.client.numbers[ref] = 10_000

    world.gate.settle_all()

    assert not world.answered()


def test_a_name_of_half_a_map_waits_for_the_whole(world: World) -> None:
    """Names of a delta come before the outbounds behind them."""
    world.whole = False
    world.name(REDIS, 1)
    world.gate.settle()
    assert not world.answered()

    world.whole = True
    world.gate.settle()

    assert world.answered(), "nothing listens behind it in any case"


def test_a_name_with_new_addresses_is_answered_with_the_former_ones_meanwhile(
    world: World,
) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound()])
    world.compile()
    world.accept()
    before = [addresses for _, addresses, _ in world.table.items()]

    world.name(REDIS, 2)
    world.outbounds.put([outbound(last=2)])
    world.compile()
    assert [addresses for _, addresses, _ in world.table.items()] == before

    world.accept()
    assert [addresses[0][-1] for _, addresses, _ in world.table.items()] == [2]


def test_what_is_held_counts_as_put_for_who_keeps_a_copy(world: World) -> None:
    world.names.touched = set()
    world.name(REDIS, 1)

    key = wire_name(REDIS)
    assert world.names.touched == {key}
    assert world.names.keys() == [key]
    assert world.names.pick([key])[key] is not None
    assert world.names.remove(key)
    assert world.names.keys() == []


def test_one_bad_port_does_not_take_the_name_away(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound(), outbound(port=81)])
    world.compile()

    world.accept(but={Ref(LISTENER, "outbound:241.0.0.1:81"): "in use"})

    assert world.answered()


def test_a_name_all_of_whose_ports_are_rejected_is_not_answered(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound()])
    world.compile()

    bad = {
        Ref(LISTENER, "outbound:241.0.0.1:80"): "in use",
        Ref(LISTENER, "outbound:[fd00:fd00::f100:1]:80"): "in use",
    }
    world.accept(but=bad)

    assert not world.answered()


def test_without_an_envoy_nothing_waits_for_ever(world: World) -> None:
    world.client = None
    world.name(REDIS, 1)
    assert not world.answered()

    assert world.gate.open_wide() == 1
    assert world.answered()
    world.name("other.svc.mesh.local", 2)
    assert world.answered("other.svc.mesh.local")


def test_names_that_were_answered_stay_when_envoy_goes(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound()])
    world.compile()
    world.accept()

    world.client = None
    world.gate.settle_all()
    world.client = Client()
    world.name(REDIS, 1)

    assert world.answered()


def test_a_listener_goes_after_its_name_and_its_cluster_after_it(world: World) -> None:
    world.outbounds.put([outbound()])
    world.compile()
    world.outbounds.remove([outbound().id])

    world.compile(100.0)
    assert len(world.resources.of(LISTENER)) == 2
    world.compile(100.0 + WITHDRAW_S)
    assert len(world.resources.of(LISTENER)) == 0
    assert len(world.resources.of(CLUSTER)) == 1
    world.compile(100.0 + WITHDRAW_S + CLUSTER_S)
    assert [*world.resources.refs()] == []


def test_a_service_that_comes_back_in_time_is_not_touched(world: World) -> None:
    world.outbounds.put([outbound()])
    world.compile()
    number = world.resources.number
    world.outbounds.remove([outbound().id])
    world.compile(100.0)

    world.outbounds.put([outbound()])
    world.compile(100.5)
    world.compile(200.0)

    assert world.resources.number == number


def test_a_port_that_gets_a_name_keeps_its_listener(world: World) -> None:
    """Its outbound has another id: the new one is put before the old one goes."""
    world.outbounds.put([outbound()])
    world.compile()
    world.outbounds.put([outbound(id="kri_msvc_default_west__redis_main")])
    world.outbounds.remove([outbound().id])

    for now_s in (100.0, 101.0, 102.0):
        world.compile(now_s)

    assert len(world.resources.of(LISTENER)) == 2
    assert [*world.resources.of(CLUSTER)] == ["kri_msvc_default_west__redis_main"]


def test_a_change_of_endpoints_touches_nothing_else(world: World) -> None:
    world.outbounds.put([outbound(), outbound("other", 2)])
    world.compile()
    touched: list[Ref] = []
    world.resources.listen(touched.append)

    world.outbounds.put([outbound(endpoints=(Endpoint(address="10.0.0.2", port=8080),))])
    world.compile()

    assert touched == [Ref(ENDPOINTS, outbound().id)]


def test_an_outbound_that_cannot_be_made_is_told_of_and_holds_back_nobody(world: World) -> None:
    world.outbounds.put([outbound(port=-1), outbound("other", 2)])
    world.compile()

    assert [*world.compiler.rejected] == [outbound(port=-1).id]
    assert Ref(LISTENER, "outbound:241.0.0.2:80") in [*world.resources.refs()]


def test_a_port_that_cannot_be_made_does_not_take_the_name_away(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound(), outbound(id="bad", port=-1)])
    world.compile()
    assert not world.answered()

    world.accept()

    assert world.answered()


def test_in_one_listener_a_name_waits_for_its_own_chain() -> None:
    world = World(Shape(bound=False, single=True))
    world.compiler.begin([])
    world.outbounds.put([outbound()])
    world.name(REDIS, 1)
    world.compile()
    world.accept()
    world.gate.settle_all()
    assert world.answered()

    world.outbounds.put([outbound("other", 2)])
    world.name("other.svc.mesh.local", 2)
    world.compile()
    assert not world.answered("other.svc.mesh.local"), "Envoy has the listener as it was before"
    world.accept()
    world.gate.settle_all()

    assert world.answered("other.svc.mesh.local")


def test_only_the_own_resources_of_a_changed_service_are_sent(world: World) -> None:
    world.outbounds.put([outbound(f"s{number}", number) for number in range(100)])
    world.compile()
    counts = Counts()
    stream = Stream(world.resources, counts)
    world.resources.listen(stream.changed)
    for type_url in (CLUSTER, LISTENER):
        stream.request(Request(type_url=type_url))
    stream.request(Request(type_url=ENDPOINTS, subscribe=[*world.resources.of(ENDPOINTS)]))
    while responses := list(stream.responses()):
        for each in responses:
            stream.request(Request(type_url=each.type_url, nonce=each.nonce))
    assert sum(counts.sent.values()) == 400

    world.outbounds.put([outbound("s7", 7, endpoints=())])
    world.outbounds.put([outbound("new", 200)])
    world.compile()
    stream.request(Request(type_url=ENDPOINTS, subscribe=[outbound("new", 200).id]))

    sent = [each.name for response in stream.responses() for each in response.resources]
    assert sorted(sent) == [
        "kri_msvc_default_west__new_80",
        "kri_msvc_default_west__new_80",
        "kri_msvc_default_west__s7_80",
        "outbound:241.0.0.200:80",
        "outbound:[fd00:fd00::f100:c8]:80",
    ]


def test_a_name_does_not_wait_for_a_port_that_is_gone(world: World) -> None:
    world.name(REDIS, 1)
    world.outbounds.put([outbound(), outbound(port=81)])
    world.compile()
    world.accept_only(outbound())
    assert not world.answered()

    world.outbounds.remove([outbound(port=81).id])
    world.compile()

    assert world.answered()
