"""An old snapshot of global's log is restored: zones say what they own, and no address moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.beginnings import MULTI_ZONE, filled, pooled
from tests.scenarios.losses import lose_globals
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.restoring import back_to_normal, restore, saved, stop_globals
from tests.scenarios.world import World
from zonemesh.deciding import Delete
from zonemesh.errors import ConflictError
from zonemesh.ipam import BLOCK, Block
from zonemesh.log import backup as backups
from zonemesh.log.port import Lease
from zonemesh.model import Key, zone_of
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG

POOL = "241.0.0.0/16"
MANY = 200
"""Services for which a zone needs further blocks of that pool than it had."""


def blocks(world: World) -> dict[tuple[str, int], str]:
    """Who holds which, by global; fails if two hold one."""
    found: dict[tuple[str, int], str] = {}
    for key, payload in world.leader.registry.table(BLOCK).items():
        block = Block.unpack(payload)
        place = Key.parse(key).namespace, block.first
        assert place not in found, f"{place} is leased to {found[place]} and {zone_of(key)}"
        found[place] = zone_of(key)
    return found


def own_blocks(node: ZoneNode) -> set[tuple[str, int]]:
    registry = node.zone.state.registry
    return {
        (Key.parse(key).namespace, Block.unpack(payload).first)
        for key, payload in registry.table(BLOCK).items()
    }


async def go_on(world: World, west: ZoneNode, east: ZoneNode) -> None:
    """What happens between the snapshot and the loss."""
    await west.register(*(f"new-{number}" for number in range(50)))
    await east.register("later")
    await west.remove("redis")
    await world.until(world.converged)


@pytest.mark.parametrize("streams", ["lost", "kept"])
async def test_an_old_snapshot_moves_no_address_and_brings_nothing_back(
    world: World, streams: str
) -> None:
    west, east, agent = await filled(world)
    backup = await saved(world)
    assert "redis" in west.services
    await go_on(world, west, east)
    term = world.leader.registry.position.term
    incarnation = world.leader.registry.incarnation
    await stop_globals(world)
    lose_globals(world)
    if streams == "lost":
        world.store.flush()
        await restore(world, backup)
    else:
        await restore(world, backup, replace=incarnation)
    before = {zone: node.services for zone, node in world.zone_nodes.items()}

    await back_to_normal(world)
    await world.until(world.converged, 30.0)
    assert world.leader.registry.position.term > term
    for zone, node in world.zone_nodes.items():
        assert node.services == before[zone]
        assert own_blocks(node) <= {place for place, of in blocks(world).items() if of == zone}
    assert "redis.svc.west.mesh.local" not in east.map
    assert set(agent.removed) <= {"redis.svc.west.mesh.local"}


async def test_a_zone_that_needed_further_blocks_since_keeps_them(
    make_world: Callable[..., World],
) -> None:
    world = pooled(make_world, POOL)
    west, east, _ = await filled(world)
    backup = await saved(world)
    had = own_blocks(west)
    await west.register(*(f"many-{number}" for number in range(MANY)))
    await world.until(lambda: all(west.services.values()) and own_blocks(west) > had, 60.0)
    await world.until(world.converged, 60.0)
    before = west.services
    await stop_globals(world)
    lose_globals(world)
    world.store.flush()
    await restore(world, backup)

    await back_to_normal(world)
    await east.register(*(f"other-{number}" for number in range(100)))
    await world.until(world.converged, 30.0)
    assert west.services == before
    assert own_blocks(west) <= {place for place, of in blocks(world).items() if of == "west"}
    assert not own_blocks(west) & own_blocks(east)


async def test_what_was_made_on_global_is_as_it_was_saved(world: World) -> None:
    west, east, _ = await filled(world)
    await world.write(MULTI_ZONE)
    await world.until(lambda: "redis.mzsvc.mesh.local" in east.map)
    address = east.map["redis.mzsvc.mesh.local"]
    backup = await saved(world)
    world.removals.add("redis")
    await world.write(Delete(MULTI_ZONE.kind, MULTI_ZONE.key))
    await world.until(lambda: "redis.mzsvc.mesh.local" not in east.map)
    incarnation = world.leader.registry.incarnation
    await stop_globals(world)
    await restore(world, backup, replace=incarnation)

    await back_to_normal(world)
    await world.until(lambda: "redis.mzsvc.mesh.local" in east.map)
    assert east.map["redis.mzsvc.mesh.local"] == address
    assert west.services["redis"] is not None


async def test_a_log_that_is_there_is_replaced_only_by_its_name(world: World) -> None:
    await filled(world)
    backup = await saved(world)
    with pytest.raises(ConflictError, match="globalcp runs at http://global-1:5681"):
        await restore(world, backup)
    await stop_globals(world)
    head = await world.store.log(GLOBAL_LOG).head()
    assert head is not None
    for replace in (None, "another"):
        options = {} if replace is None else {"replace": replace}
        with pytest.raises(ConflictError, match=f"--replace {head.incarnation}"):
            await restore(world, backup, **options)
    target = world.store.log(GLOBAL_LOG)
    assert await target.acquire(Lease(writer="other", url="http://other:5681"))
    with pytest.raises(ConflictError, match="http://other:5681 leads"):
        await restore(world, backup, replace=head.incarnation)

    assert await target.head() == head


async def test_nothing_can_be_replaced_where_nothing_is(world: World) -> None:
    await filled(world)
    backup = await saved(world)
    await stop_globals(world)
    world.store.flush()

    with pytest.raises(ConflictError, match="no log to replace"):
        await restore(world, backup, replace="any")
    assert await world.store.log(GLOBAL_LOG).head() is None


async def test_a_global_with_an_older_disk_follows_what_was_restored(world: World) -> None:
    west, _, _ = await filled(world)
    backup = await saved(world)
    await west.register("mongo")
    await world.until(world.converged)
    await stop_globals(world)  # their disks hold more than the snapshot does
    world.store.flush()
    await restore(world, backup)
    restored = await world.store.log(GLOBAL_LOG).head()
    assert restored is not None

    await back_to_normal(world)
    await world.until(world.converged)
    assert world.leader.registry.incarnation == restored.incarnation
    assert west.services["mongo"] is not None


async def test_an_old_snapshot_of_a_zones_own_log_makes_it_take_over_what_it_published(
    world: World,
) -> None:
    west, east, agent = await filled(world)
    own = west.disk.log(west.own_log)
    backup = await backups.save(own, Registry(), saved_ms=1_790_000_000_000, version="0.1.0")
    await west.register("mongo")
    await west.remove("redis")
    await world.until(world.converged)
    before = west.services
    await west.stop()
    west.lose_disk()
    await backups.put_back(west.disk.log(west.own_log), backup)
    with pytest.raises(ConflictError, match="there is a log zone:west:own already"):
        await backups.put_back(west.disk.log(west.own_log), backup)
    west.start()

    await world.until(world.converged, 40.0)
    assert west.services == before
    assert "redis" not in west.services
    assert set(agent.removed) <= {"redis.svc.west.mesh.local"}
    assert "mongo.svc.west.mesh.local" in east.map
