"""One leader of global at a time: killed, frozen, racing, resigning."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from tests.scenarios.nodes import GlobalNode
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.errors import UnavailableError
from zonemesh.log.memory import Effect
from zonemesh.model import Key

SERVICES = [f"svc-{number}" for number in range(6)]


def mesh(name: str) -> Put:
    return Put("Mesh", Key("", "", "", name), {}, {})


async def register_in_turn(world: World, zone: str) -> None:
    for service in SERVICES:
        await world[zone].register(service)
        await asyncio.sleep(0.003)


def nothing_doubled(world: World) -> None:
    written = {
        service: world.times_written("global", "MeshService", world["west"].key(service))
        for service in SERVICES
    }
    assert written == dict.fromkeys(SERVICES, 1)


@pytest.mark.parametrize("steps", range(0, 160, 8))
async def test_a_leader_killed_at_any_step_loses_and_doubles_nothing(
    world: World, steps: int
) -> None:
    await world.start()
    world["east"].agent()
    killed = world.leader
    killed.kill_after(steps)
    await register_in_turn(world, "west")
    await world.until(lambda: not killed.alive)

    taken_s = await world.until(world.has_leader)
    assert taken_s <= 3.0
    await world.until(lambda: len(world["east"].map) == len(SERVICES), 2.0)
    killed.start()
    await world.until(world.converged)
    await world.until(world.digests_agree)
    nothing_doubled(world)


@pytest.mark.parametrize("effect", ["before", "after"])
async def test_an_append_of_unknown_fate_is_in_the_log_once(world: World, effect: Effect) -> None:
    await world.start()
    world.leader.link.fail_next_append(effect)
    await register_in_turn(world, "west")

    await world.until(world.converged)
    nothing_doubled(world)
    assert sum(each.replica.leadership.terms_led for each in world.replicas) == 1


async def test_a_leader_killed_before_it_learned_its_appends_fate_loses_nothing(
    world: World,
) -> None:
    await world.start()
    killed = world.leader
    killed.link.fail_next_append("after")
    await world["west"].register("redis")
    await world.until(
        lambda: any(
            change.kind == "MeshService" for e in world.entries("global") for change in e.changes
        )
    )
    killed.kill()

    await world.until(lambda: "redis.svc.west.mesh.local" in world["east"].map)
    await world.until(world.has_leader)
    assert world.times_written("global", "MeshService", world["west"].key("redis")) == 1


async def test_a_graceful_stop_hands_over_at_once(world: World) -> None:
    await world.start()
    await world.pass_time(1.0)
    leaving = world.leader
    stopping = asyncio.create_task(leaving.stop())
    await world.until(lambda: not leaving.leads)
    taken_s = await world.until(world.has_leader)
    await stopping

    assert taken_s <= 0.1
    assert any(entry.note.get("resign") for entry in world.entries("global"))


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 6, 8, 12])
async def test_a_frozen_leader_that_wakes_with_an_entry_in_hand_is_refused(
    world: World, steps: int
) -> None:
    await world.start()
    old = world.leader
    writing = asyncio.create_task(old.replica.backend.write([mesh("late")]))
    await old.run_steps(steps)
    old.freeze()
    await world.until(lambda: any(each.leads for each in world.replicas if each is not old), 3.0)
    (new,) = [each for each in world.replicas if each is not old]
    await world["west"].register("redis")
    await world.pass_time(5.0)
    old.thaw()
    await world.until(lambda: not old.leads, 1.0)

    try:
        acknowledged = bool(await writing)
    except UnavailableError:
        acknowledged = False
    present = new.registry.get("Mesh", "///late") is not None
    assert present or not acknowledged
    await world.until(world.digests_agree)
    world.entries("global")  # one chain
    assert old.replica.follower.resyncs.total() == 0
    await world.until(world.converged)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 7, 9, 12, 16, 20])
async def test_of_two_candidates_for_one_term_one_wins_and_the_other_knows(
    make_world: Callable[..., World], steps: int
) -> None:
    world = make_world(globals=3)
    await world.start()
    world.leader.kill()
    candidates = [each for each in world.replicas if each.running]
    slow = await first_with_lease(world, candidates)
    await slow.run_steps(steps)
    slow.freeze()
    world.store.delete_key("global", "leader")
    (quick,) = [each for each in candidates if each is not slow]
    await world.until(lambda: quick.leads, 3.0)
    slow.thaw()
    await world.until(lambda: not slow.leads, 2.0)
    await world["west"].register("redis")

    await world.until(lambda: "redis.svc.west.mesh.local" in world["east"].map)
    await world.until(world.has_leader)  # the lease may find either of them once more
    terms = Counter(e.position.term for e in world.entries("global") if e.position.seq == 0)
    assert set(terms.values()) == {1}
    await world.until(world.digests_agree)


async def first_with_lease(world: World, candidates: list[GlobalNode]) -> GlobalNode:
    while True:
        held = world.store._server.data.log("global").leader
        for each in candidates:
            if held is not None and held.lease.url == f"http://{each.name}:5681":
                return each
        await asyncio.sleep(0.0001)


async def test_leases_that_vanish_at_the_first_start_make_no_second_log(
    make_world: Callable[..., World],
) -> None:
    world = make_world(globals=3)
    for node in world.nodes:
        node.start()
    for _ in range(2_000):
        world.store.delete_key("global", "leader")
        await asyncio.sleep(0.001)
    await world.until(world.has_leader)
    await world["west"].register("redis")

    await world.until(world.converged)
    await world.until(world.digests_agree)
    terms = Counter(e.position.term for e in world.entries("global") if e.position.seq == 0)
    assert set(terms.values()) == {1}
    assert world.entries("global")[0].position == (1, 0)
