"""How old what a replica knows is: never shown younger than it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.nodes import GlobalNode, ZoneNode
from tests.scenarios.virtualtime import now_s
from tests.scenarios.world import World
from zonemesh.deciding import Put
from zonemesh.model import Key
from zonemesh.travel import up_log

AWAY_S = 1_200.0
SAMPLE_S = 0.05
TOO_OLD_S = 1.25
"""How much older than it is something may be told to be: until the next heartbeat tells that the
one before had not waited, and what messages take.
"""
TOO_YOUNG_S = 0.05
"""How much younger: what a message takes."""
SKEW_MS = 600_000
LOOK_S = 0.001
SHORT_S = 1.2
"""Of the store: a leader's lease outlives it."""


async def test_a_zone_restarted_while_cut_off_says_how_old_its_copy_is(world: World) -> None:
    await world.start_with("redis")
    east = world["east"]
    await east.stop()
    east.cut()
    await world.pass_time(AWAY_S)

    east.start()
    await world.pass_time(30.0)

    assert east.zone.readiness.ready() is None  # it serves what it knows
    assert AWAY_S < east.zone.ages.lag_s() < AWAY_S + 60
    east.heal()
    await world.until(lambda: east.zone.ages.lag_s() < 3)


async def test_a_leader_has_no_lag_however_long_ago_it_took_over(world: World) -> None:
    await world.start()
    world.leader.kill()
    await world.until(world.has_leader)
    await world.pass_time(600.0)

    assert world.leader.replica.backend.describe()["lag_s"] == 0.0


class Truth:
    """When each entry of the streams was written, by nobody's clock but the simulation's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wrong: list[str] = []
        self._written: dict[tuple[str, str], float] = {}

    async def watch(self, seconds: float) -> None:
        until_s = now_s() + seconds
        while now_s() < until_s:
            self.check()
            await self._world.pass_time(SAMPLE_S)

    def note(self) -> None:
        """Remember what is new in the logs; at least each heartbeat."""
        for log in ("global", *map(up_log, self._world.zones)):
            head = self._world.store._server.data.log(log).head
            if head is not None:
                self._written.setdefault((log, str(head.cursor)), now_s())

    def age_s(self, log: str, cursor: object) -> float | None:
        written_s = self._written.get((log, str(cursor)))
        return None if written_s is None else now_s() - written_s

    def check(self) -> None:
        """Compare what every live process says with the truth."""
        self.note()
        for zone in self._world.zone_nodes.values():
            if zone.running and not zone.frozen:
                self._check_zone(zone)
        for replica in self._world.replicas:
            if replica.running and not replica.frozen:
                self._check_global(replica)

    def _check_zone(self, node: ZoneNode) -> None:
        copy = node.zone.copy
        self._compare(
            f"{node.name}'s copy", node.zone.ages.lag_s(), self.age_s("global", copy.cursor)
        )
        for other, told_s in node.zone.ages.origin_lags_s().items():
            true_s = self.age_s(up_log(other), copy.cursors.get(up_log(other)))
            self._compare(f"{other} at {node.name}", told_s, true_s)

    def _check_global(self, node: GlobalNode) -> None:
        for zone in self._world.zones:
            cursor = node.registry.cursors.get(up_log(zone))
            told_s = node.replica.backend.zone_lag_s(zone)
            self._compare(f"{zone} at {node.name}", told_s, self.age_s(up_log(zone), cursor))

    def _compare(self, what: str, told_s: float | None, true_s: float | None) -> None:
        if told_s is None or true_s is None:
            return
        # What is noted here is up to a sample late, which makes the truth younger than it was.
        if not true_s - TOO_YOUNG_S <= told_s <= true_s + SAMPLE_S + TOO_OLD_S:
            self.wrong.append(f"{now_s():.2f}: {what} is {true_s:.2f} s old, told are {told_s:.2f}")


def cut(world: World) -> Callable[[], None]:
    world["east"].cut()
    return world["east"].heal


def frozen(world: World) -> Callable[[], None]:
    world["east"].freeze()
    return world["east"].thaw


def nobody_leads(world: World) -> Callable[[], None]:
    for each in world.replicas:
        each.kill()
    return world.start_globals


def all_cut(world: World) -> Callable[[], None]:
    for node in world.nodes:
        node.cut()

    def heal() -> None:
        for node in world.nodes:
            node.heal()

    return heal


def leader_frozen(world: World) -> Callable[[], None]:
    leader = world.leader
    leader.freeze()
    return leader.thaw


def leader_cut(world: World) -> Callable[[], None]:
    leader = world.leader
    leader.cut()
    return leader.heal


def leader_killed(world: World) -> Callable[[], None]:
    leader = world.leader
    leader.kill()
    return leader.start


FAULTS = [cut, frozen, nobody_leads, all_cut, leader_frozen, leader_cut, leader_killed]
RESTARTED = [nobody_leads, leader_killed]


@pytest.mark.parametrize("skew_ms", [0, SKEW_MS, -SKEW_MS])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_what_is_told_of_an_age_is_the_truth_whatever_fails(
    world: World, fault: Callable[[World], Callable[[], None]], skew_ms: int
) -> None:
    for node in (world["east"], world.replicas[0]):
        node.wall_offset_ms = skew_ms
    await world.start()
    truth = Truth(world)

    await truth.watch(5.0)
    truth.wrong = []  # whoever has just started knows only what wall clocks say
    await truth.watch(3.0)
    mend = fault(world)
    await truth.watch(30.0)
    during, truth.wrong = truth.wrong, []
    mend()
    if skew_ms and fault in RESTARTED:
        await truth.watch(5.0)
        truth.wrong = []  # as above
    await truth.watch(15.0)

    assert not during, "\n".join(during[:20])
    assert not truth.wrong, "\n".join(truth.wrong[:20])


@pytest.mark.parametrize("number", range(5))
async def test_what_waits_behind_an_append_is_no_younger_for_it(world: World, number: int) -> None:
    await world.start()
    truth = Truth(world)
    await truth.watch(8.0 + number / 5)
    truth.wrong = []  # as above
    mend = all_cut(world)
    writer = world.leader.replica.leadership.writer
    assert writer is not None

    # The leader's next heartbeat, and what it says of zones, waits until this is taken.
    written = writer.enqueue(Put("Mesh", Key("", "", "", "other"), {}, {}))
    await truth.watch(SHORT_S)
    mend()
    await truth.watch(3.0)

    assert written.done()
    assert not truth.wrong, "\n".join(truth.wrong[:20])


def zone_cut(world: World) -> Callable[[], None]:
    world["west"].cut()
    return world["west"].heal


@pytest.mark.parametrize("fault", [all_cut, zone_cut, leader_cut, leader_frozen, leader_killed])
async def test_nothing_is_told_to_be_younger_than_what_it_lacks(
    world: World, fault: Callable[[World], Callable[[], None]]
) -> None:
    await world.start()
    west, east = world["west"], world["east"]
    await west.register("before")
    await world.until(world.converged)
    await world.pass_time(2.0)
    registered_s: dict[str, float] = {}
    wrong: list[str] = []

    async def watch(seconds: float) -> None:
        """Registering all the time, and looking more often than messages take."""
        until_s = now_s() + seconds
        number = 0
        while now_s() < until_s:
            if number % 100 == 0:
                service = f"service-{len(registered_s)}"
                await west.register(service)
                registered_s[service] = now_s()
            number += 1
            await world.pass_time(LOOK_S)
            names = east.map
            for service, at_s in registered_s.items():
                lacks_s = now_s() - at_s
                if f"{service}.svc.west.mesh.local" in names or lacks_s < TOO_YOUNG_S:
                    continue
                told_s = east.zone.ages.map_lag_s()
                if told_s < lacks_s - TOO_YOUNG_S:
                    wrong.append(
                        f"{now_s():.3f}: {told_s:.2f} s, but lacks {service}, {lacks_s:.2f} s old"
                    )
                break

    mend = fault(world)
    await watch(3.3)
    mend()
    await watch(3.0)
    await world.until(world.converged)

    assert not wrong, "\n".join(wrong[:20])
