"""Builds side by side, of which one writes logs in a later format: nobody loses what it reads."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest

from tests.formats import LATER, learn
from tests.scenarios.beginnings import filled, short
from tests.scenarios.nodes import WALL_MS, GlobalNode, Node
from tests.scenarios.world import World
from zonecp.inputs import Adopt
from zonemesh import wire
from zonemesh.formats import SETTLE_S
from zonemesh.model import Change, Record
from zonemesh.travel import GLOBAL_LOG, up_log

OLD = (1,)
RAISED_S = SETTLE_S + 10


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    codecs = dict(wire.CODECS)
    learn(codecs)
    monkeypatch.setitem(wire.CODECS, LATER, codecs[LATER])


def written_in(world: World) -> int:
    return world.leader.registry.format if world.has_leader() else 0


def held_back_by(world: World) -> tuple[str, ...]:
    return world.leader.replica.plane.format_held_back_by


async def restart(world: World, node: Node, formats: tuple[int, ...] | None) -> None:
    await node.stop()
    node.formats = formats
    node.start()
    await world.until(lambda: node.running)


async def raised(world: World) -> None:
    await world.until(lambda: written_in(world) == LATER, RAISED_S)
    await world.until(
        lambda: all(n.zone.state.registry.format == LATER for n in world.zone_nodes.values())
    )


async def test_a_mesh_of_later_builds_goes_over_to_the_later_format(world: World) -> None:
    west, _, agent = await filled(world)
    assert written_in(world) == 1
    await world.pass_time(SETTLE_S - 20)
    assert written_in(world) == 1

    await raised(world)
    await world.pass_time(2.0)
    for log in (GLOBAL_LOG, up_log("west"), up_log("east")):
        head = await world.store.log(log).head()
        assert head is not None
        assert head.format == LATER
    await west.register("mongo")
    for node in world.nodes:
        await restart(world, node, None)
    await world.until(world.converged, 30.0)
    await world.until(world.digests_agree)
    assert written_in(world) == LATER
    assert agent.removed == []


async def test_one_old_standby_holds_the_format_back_until_it_is_upgraded(world: World) -> None:
    await filled(world)
    old = world.standby
    await restart(world, old, OLD)

    await world.pass_time(2 * SETTLE_S)
    assert written_in(world) == 1
    assert held_back_by(world) == (f"globalcp http://{old.name}:5681",)
    await restart(world, old, None)
    await raised(world)
    assert held_back_by(world) == ()
    await world.until(world.converged)


async def test_an_old_leader_and_an_old_zone_are_upgraded_in_any_order(world: World) -> None:
    for node in world.nodes:
        node.formats = OLD
    west, _, agent = await filled(world)
    for node in (west, world.standby, world.leader):
        await restart(world, node, None)
        await world.until(world.converged, 30.0)
        await world.pass_time(SETTLE_S + 10)
        assert written_in(world) == 1
    assert held_back_by(world) == ("zone east",)
    await restart(world, world["east"], None)

    await raised(world)
    await west.register("mongo")
    await world.until(world.converged)
    assert agent.removed == []


async def test_an_old_zone_that_is_away_holds_the_format_back(world: World) -> None:
    world["east"].formats = OLD
    _, east, _ = await filled(world)
    await east.stop()

    await world.pass_time(2 * SETTLE_S)
    assert written_in(world) == 1
    assert held_back_by(world) == ("zone east",)
    east.start()
    await world.until(world.converged, 30.0)


async def test_an_old_global_that_comes_later_reads_nothing_and_leads_nothing(world: World) -> None:
    west, _, agent = await filled(world)
    old, new = world.standby, world.leader
    await old.stop()
    await raised(world)
    old.formats = OLD
    old.start()
    await world.until(lambda: old.running)
    held = old.registry.cursor
    await west.register("mongo")
    await world.until(lambda: "mongo.svc.west.mesh.local" in agent.names)
    await world.until(lambda: (old.replica.ready() or "").startswith("cannot read on"))
    await new.stop()

    await world.pass_time(15.0)
    assert old.registry.cursor == held
    assert not old.leads
    why = old.replica.ready()
    assert why is not None
    assert "newer_format" in why
    assert "upgrade it" in why
    new.start()
    await world.until(lambda: new.running and new.leads, 10.0)
    await restart(world, old, None)
    await world.until(world.converged, 30.0)
    await world.until(world.digests_agree)


async def test_an_old_global_without_a_disk_says_what_it_cannot_read(
    make_world: Callable[..., World],
) -> None:
    world = short(make_world)  # nothing is left of the earlier format
    await filled(world)
    old: GlobalNode = world.standby
    await old.stop()
    await raised(world)
    await world.pass_time(60.0)
    old.lose_disk()
    old.formats = OLD
    old.start()

    await world.until(lambda: old.running and "newer_format" in (old.replica.ready() or ""))
    assert old.registry.blank
    assert not old.replica.follower.unbridged  # no snapshot of the leader's would help


async def test_a_global_that_goes_back_to_an_old_build_keeps_its_copy(world: World) -> None:
    await filled(world)
    await raised(world)
    await world.pass_time(2.0)
    node = world.standby
    await node.stop()
    disk = node.disk.log(GLOBAL_LOG)
    head = await disk.head()
    assert head is not None
    assert head.format == LATER
    node.formats = OLD
    node.start()

    await world.until(lambda: node.running and "newer_format" in (node.replica.ready() or ""))
    await world.pass_time(15.0)
    await node.stop()
    assert await disk.head() == head
    node.formats = None
    node.start()
    await world.until(world.digests_agree, 30.0)


async def test_a_zone_that_goes_back_to_an_old_build_keeps_its_log_and_says_why(
    world: World,
) -> None:
    west, _, _ = await filled(world)
    await raised(world)
    head = await west.disk.log(west.own_log).head()
    await restart(world, west, OLD)

    await world.until(lambda: "newer_format" in (west.zone.readiness.ready() or ""))
    await world.pass_time(15.0)
    after = await west.disk.log(west.own_log).head()
    assert head is not None
    assert after is not None
    assert after.position <= head.position.__class__(head.position.term, head.position.seq + 2)
    await restart(world, west, None)
    await world.until(world.converged, 30.0)


async def test_fields_that_an_old_build_does_not_know_pass_through_it(world: World) -> None:
    for node in world.replicas:
        node.formats = OLD
    west, east, _ = await filled(world)
    key = west.key("later").packed
    spec = {"ports": [{"port": 80, "appProtocol": "tcp"}], "later": {"a": [1, None]}}
    known = Record(created_ms=WALL_MS, modified_ms=WALL_MS, spec=spec).pack()
    payload: bytes = msgpack.packb((*msgpack.unpackb(known), "and another field"))
    writer = west.zone.leadership.writer
    assert writer is not None
    await writer.submit(Adopt([Change("MeshService", key, payload)], last=False))

    await world.until(lambda: east.zone.copy.get("MeshService", key) == payload)
    assert world.leader.registry.get("MeshService", key) == payload
