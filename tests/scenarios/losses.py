"""What is lost at once: a log with all that belongs to it, or every global."""

from __future__ import annotations

from tests.scenarios.world import World
from zonemesh.log.memory import MemoryStore, Part

LOG_PARTS: tuple[Part, ...] = ("log", "head", "snapshots", "chunks")


def lose_log(store: MemoryStore, log: str) -> None:
    """Everything but who leads it."""
    for part in LOG_PARTS:
        store.delete_key(log, part)


def lose_globals(world: World) -> None:
    """Their disks, and the processes that run."""
    for each in world.replicas:
        if each.alive:
            each.kill()
        each.lose_disk()
