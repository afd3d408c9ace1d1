"""Globals die, stop and start again: registrations go on, addresses stay."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.e2e.mesh import (
    AGENTS,
    GLOBALS,
    PLANES,
    ZONES,
    Mesh,
    at_home,
    elsewhere,
    eventually,
    in_east,
    watching,
)
from zonemesh.travel import GLOBAL_LOG

SERVICES = ("one", "two", "three")


@pytest.fixture
def running(mesh: Mesh) -> Mesh:
    mesh.start_all()
    return mesh


@pytest.mark.timeout(60)
def test_after_the_leaders_sudden_death_new_registrations_resolve_and_no_address_moves(
    running: Mesh,
) -> None:
    addresses = running.registered(*SERVICES)
    leader = running.leading()
    standby = next(name for name in GLOBALS if name != leader)

    with watching(running, in_east(addresses)):
        running[leader].kill()
        running.register("west", "new")
        new = running.resolves("west", at_home("new"))
        assert running.resolves("east", elsewhere("new")) == new

    assert running.leading() == standby
    for plane in (standby, *ZONES):
        assert running.holds(plane, {**addresses, "new": new})
    running.start(leader)
    eventually(partial(running.holds, leader, {**addresses, "new": new}), 5, running, leader)
    assert running.leading() == standby


@pytest.mark.timeout(60)
def test_a_leader_that_stops_gracefully_hands_over_at_once(running: Mesh) -> None:
    addresses = running.registered("before")
    leader = running.leading()
    standby = next(name for name in GLOBALS if name != leader)

    with watching(running, {("east", elsewhere("before")): addresses["before"]}):
        assert url(running, leader) in running.lease(GLOBAL_LOG)
        assert running[leader].stop() == 0
        held = running.lease(GLOBAL_LOG)
        eventually(lambda: running.leader() == standby, 5, running, *GLOBALS)

    assert url(running, leader) not in held, "the lease of a dead leader would last for 2 s"
    assert running.registered("after")["after"] not in addresses.values()


def url(mesh: Mesh, name: str) -> str:
    return f":{mesh.ports[name]}"


@pytest.mark.timeout(60)
def test_a_paused_leader_is_refused_when_it_wakes(running: Mesh) -> None:
    leader = running.leading()
    standby = next(name for name in GLOBALS if name != leader)

    running[leader].pause()
    eventually(lambda: running.state(standby).get("leader"), 8, running, standby)
    addresses = running.registered("meanwhile")
    running[leader].resume()

    eventually(lambda: running.state(leader).get("leader") is False, 8, running, leader)
    assert running.state(standby)["leader"]
    for plane in PLANES:
        eventually(partial(running.holds, plane, addresses), 5, running, plane)


@pytest.mark.timeout(110)
def test_restarts_in_any_order_move_no_address(running: Mesh) -> None:
    addresses = running.registered(*SERVICES)
    orders = [PLANES, PLANES[::-1], ("east", "g2", "west", "g1")]

    for number, order in enumerate(orders):
        for name in order:
            assert running[name].stop() == 0
        for name in order:
            running[name].start()
        running.wait_ready(*order)
        for plane in PLANES:
            eventually(partial(running.holds, plane, addresses), 5, running, plane)
        new = f"round-{number}"
        addresses |= running.registered(new)
        for service, address in addresses.items():
            assert running.resolve("east", elsewhere(service)) == [address]
            assert running.resolves("west", at_home(service)) == address

    assert len(set(addresses.values())) == len(addresses)


@pytest.mark.timeout(60)
def test_killing_everything_at_once_moves_no_address(running: Mesh) -> None:
    addresses = running.registered(*SERVICES)

    for name in itertools.chain(PLANES, AGENTS):
        running[name].kill()
    running.kill_redis()
    running.start_all()

    for service, address in addresses.items():
        assert running.resolves("east", elsewhere(service)) == address
    for plane in PLANES:
        eventually(partial(running.holds, plane, addresses), 5, running, plane)
