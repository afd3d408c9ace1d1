"""What an operator does to restore global's log from a backup, and what must follow."""

from __future__ import annotations

from tests.scenarios.world import World
from zonemesh.log import backup as backups
from zonemesh.log import backupfile
from zonemesh.log.backupfile import Backup
from zonemesh.registry import Registry
from zonemesh.travel import GLOBAL_LOG


async def saved(world: World) -> Backup:
    """A backup of global's log, by way of its file."""
    target = world.store.peer().log(GLOBAL_LOG)
    backup = await backups.save(target, Registry(), saved_ms=1_790_000_000_000, version="0.1.0")
    return backupfile.parse(b"".join(backupfile.pieces(backup)))


async def stop_globals(world: World) -> None:
    for each in world.replicas:
        if each.alive:
            await each.stop()
    await world.pass_time(6.0)  # until nobody is known to live


async def restore(world: World, backup: Backup, **options: str) -> None:
    await backups.found_global(world.store.peer(), backup, clock=world["west"].clock, **options)


async def back_to_normal(world: World) -> None:
    world.start_globals()
    await world.until(lambda: world.has_leader() and world.recovering(), 10.0)
    await world.until(lambda: not world.recovering(), 70.0)
    await world.until(world.up_matches, 30.0)
    await world.until(world.digests_agree, 30.0)
