"""A zone's own log on Redis that is lost, turned back or forked: no name goes, no address moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.scenarios.agents import Agent
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.world import World
from zonemesh.log.memory import Clone, MemoryStore
from zonemesh.travel import own_log


@dataclass
class Zone:
    """Zone west on two control planes, a service registered, and its own log's store."""

    world: World
    store: MemoryStore
    empty: Clone
    agents: tuple[Agent, ...]

    @property
    def leader(self) -> ZoneNode:
        found = self.world.leading("west")
        assert found is not None
        return found

    @property
    def follower(self) -> ZoneNode:
        return next(node for node in self.nodes if node.running and not node.leads)

    @property
    def nodes(self) -> list[ZoneNode]:
        return self.world.of_zone("west")

    @property
    def incarnation(self) -> str:
        head = self.store._server.data.log(own_log("west")).head
        return "" if head is None else head.incarnation

    def led(self) -> bool:
        return self.world.leading("west") is not None

    async def before_a_further_service(self) -> Clone:
        """The own log as it was before a service was registered of which everybody has heard."""
        before = self.store.clone()
        await self.leader.register("late")
        await self.world.until(self.world.converged)
        return before

    def lose_all_but(self, log: Clone) -> None:
        """Every control plane starts with an empty disk, and the own log is this one."""
        for node in self.nodes:
            node.kill()
            node.lose_disk()
        self.store.restore(log)
        for node in self.nodes:
            node.start()

    async def converged(self) -> None:
        await self.world.until(self.led, 20.0)
        await self.world.until(self.world.converged, 20.0)
        for agent in self.agents:
            assert agent.removed == []


@pytest.fixture
async def zone(make_world: Callable[..., World]) -> AsyncIterator[Zone]:
    world = make_world(zone_replicas=2)
    store = world.own_stores["west"]
    empty = store.clone()
    await world.start()
    found = Zone(world, store, empty, (world.roam("west"), world.roam("east")))
    await found.leader.register("redis", "kafka")
    await world.until(world.converged)
    await world.pass_time(2.0)
    yield found
    world.check()


async def test_an_own_log_that_is_emptied_is_founded_again_with_all_it_had(zone: Zone) -> None:
    bound, before = zone.leader.services, zone.incarnation
    zone.store.restore(zone.empty)

    await zone.world.until(lambda: zone.incarnation not in ("", before), 8.0)
    await zone.converged()
    assert zone.leader.services == bound
    await zone.leader.register("after")
    await zone.converged()
    await zone.world.until(zone.world.up_matches)


async def test_an_own_log_that_is_turned_back_is_given_back_what_it_lost(zone: Zone) -> None:
    incarnation = zone.incarnation
    before = await zone.before_a_further_service()
    bound = zone.leader.services
    zone.store.restore(before)

    await zone.world.pass_time(3.0)
    await zone.converged()
    assert zone.incarnation == incarnation
    assert zone.leader.services == bound
    assert (
        zone.world.full_syncs("west") == 1
    )  # the first start's: what was put back is what was there


async def test_what_only_the_published_stream_has_is_adopted_after_a_loss(zone: Zone) -> None:
    slow = zone.follower
    assert slow.own_link is not None
    slow.own_link.cut()
    await zone.leader.register("late")
    await zone.world.until(lambda: "late.svc.west.mesh.local" in zone.world["east"].map, 5.0)
    bound = zone.leader.services
    zone.leader.kill()
    zone.store.restore(zone.empty)
    slow.own_link.heal()

    await zone.world.until(zone.led, 20.0)
    dead = next(node for node in zone.nodes if not node.running)
    dead.lose_disk()
    dead.start()
    await zone.converged()
    assert zone.leader.services == bound


async def test_with_every_control_plane_dead_the_disks_bring_the_own_log_back(zone: Zone) -> None:
    bound = zone.leader.services
    for node in zone.nodes:
        node.kill()
    zone.store.restore(zone.empty)
    for node in zone.nodes:
        node.start()

    await zone.converged()
    assert zone.leader.services == bound
    await zone.leader.register("after")
    await zone.converged()


async def test_a_newcomer_with_an_empty_disk_leaves_a_lost_log_to_who_holds_it(
    zone: Zone,
) -> None:
    bound = zone.leader.services
    newcomer = zone.follower
    await newcomer.stop()
    newcomer.lose_disk()
    zone.store.restore(zone.empty)
    newcomer.start()

    await zone.world.pass_time(1.0)
    await zone.converged()
    assert zone.leader.services == bound


async def test_with_nothing_left_of_the_own_log_all_is_adopted_from_global(zone: Zone) -> None:
    bound = zone.leader.services
    zone.lose_all_but(zone.empty)

    await zone.world.until(zone.led, 20.0)
    await zone.world.until(lambda: all(node.ready for node in zone.nodes), 30.0)
    await zone.converged()
    assert zone.leader.services == bound


async def test_a_log_turned_back_with_nobody_left_to_hold_it_adopts_what_was_published(
    zone: Zone,
) -> None:
    before = await zone.before_a_further_service()
    bound = zone.leader.services
    zone.lose_all_but(before)

    await zone.converged()
    assert zone.leader.services == bound


async def test_who_returns_to_a_forked_log_takes_over_its_history_and_no_name_goes(
    zone: Zone,
) -> None:
    before = await zone.before_a_further_service()
    bound = zone.leader.services
    frozen, other = zone.follower, zone.leader
    frozen.freeze()
    other.kill()
    other.lose_disk()
    zone.store.restore(before)
    other.start()
    await zone.world.until(lambda: zone.led() and zone.leader is other, 20.0)
    await zone.world.until(lambda: other.ready, 20.0)
    frozen.thaw()

    await zone.world.pass_time(10.0)
    await zone.converged()
    assert zone.leader.services == bound
