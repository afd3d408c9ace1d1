"""Seeded sequences of everything that can go wrong, then peace: all must agree on the truth.

While it lasts, `World` watches that no address moves and no agent is told less than it knew. A
failure prints the seed and what was done. `ZONEMESH_SEEDS=17` runs that one again,
`ZONEMESH_SEEDS=1000-1300` many others.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

import pytest

from globalcp.config import GlobalConfig
from tests.scenarios.world import Node, World, ZoneNode
from zonemesh.errors import MeshError
from zonemesh.model import START
from zonemesh.runtime.sections import SnapshotConfig
from zonemesh.travel import up_log

SEEDS = os.environ.get("ZONEMESH_SEEDS", "0-20")
"""A seed, or from one to another (without that)."""
OPERATIONS = 60
ZONES = ("west", "east", "north")
PEACE_S = 60.0


class Chaos:
    """One seed's run, and what its clients know to be true."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.done: list[str] = []
        self.present: set[str] = set()
        """Registered, and told so."""
        self.absent: set[str] = set()
        """Removed, and told so."""
        self.made = 0

    def note(self, what: str) -> None:
        self.done.append(f"{asyncio.get_running_loop().time():9.3f} {what}")

    @property
    def zones(self) -> list[ZoneNode]:
        return list(self.world.zone_nodes.values())

    async def step(self) -> None:
        weighted: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self.register),
            (4, self.remove),
            (3, self.kill),
            (6, self.start),
            (1, self.stop),
            (3, self.cut),
            (5, self.heal),
            (2, self.freeze),
            (5, self.thaw),
            (1, self.cut_everyone),
            (3, self.heal_everyone),
            (2, self.lose_an_answer),
            (1, self.trim),
            (1, self.roll_back_a_stream),
            (1, self.drop_the_lease),
            (1, self.lose_a_disk),
        ]
        (action,) = self.rng.choices(
            [each for _, each in weighted], [weight for weight, _ in weighted]
        )
        await action()
        await asyncio.sleep(self.rng.choice((0.0, 0.005, 0.05, 0.5, 1.0, 3.0)))
        self.world.check()

    # What clients do

    async def register(self) -> None:
        zone = self.rng.choice(self.zones)
        gone = sorted(name for name in self.absent if name.startswith(zone.name))
        if gone and self.rng.random() < 0.3:
            names = [self.rng.choice(gone)]
        else:
            names = [f"{zone.name}-{self.made + n}" for n in range(self.rng.choice((1, 1, 1, 20)))]
            self.made += len(names)
        self.absent.difference_update(names)
        if await self.try_to(zone, f"register {names}", lambda: zone.register(*names)):
            self.present.update(names)

    async def remove(self) -> None:
        zone = self.rng.choice(self.zones)
        names = sorted(name for name in self.present if name.startswith(zone.name))
        if names:
            name = self.rng.choice(names)
            self.present.discard(name)
            if await self.try_to(zone, f"remove {name}", lambda: zone.remove(name)):
                self.absent.add(name)

    async def try_to(self, zone: ZoneNode, what: str, act: Callable[[], Awaitable[None]]) -> bool:
        """True if it was acknowledged; else it may have happened or not."""
        outcome = "not running"
        if zone.running:
            try:
                async with asyncio.timeout(0.5):
                    await act()
                outcome = "done"
            except (MeshError, TimeoutError) as error:
                outcome = repr(error)
        self.note(f"{what}: {outcome}")
        return outcome == "done"

    # What goes wrong

    def any_alive(self) -> Node | None:
        alive = [node for node in self.world.nodes if node.alive]
        return self.rng.choice(alive) if alive else None

    async def kill(self) -> None:
        node = self.any_alive()
        if node is not None:
            steps = self.rng.choice((0, self.rng.randrange(200)))
            self.note(f"kill {node.name} after {steps} steps")
            node.kill_after(steps)

    async def stop(self) -> None:
        node = self.any_alive()
        if node is not None and node.running and not node.frozen:
            self.note(f"stop {node.name}")
            await node.stop()

    async def start(self) -> None:
        dead = [node for node in self.world.nodes if not node.alive]
        if dead:
            node = self.rng.choice(dead)
            self.note(f"start {node.name}")
            node.start()

    async def cut(self) -> None:
        node = self.rng.choice(self.world.nodes)
        self.note(f"cut {node.name}")
        node.cut()

    async def heal(self) -> None:
        node = self.rng.choice(self.world.nodes)
        self.note(f"heal {node.name}")
        node.heal()

    async def freeze(self) -> None:
        node = self.any_alive()
        if node is not None:
            self.note(f"freeze {node.name}")
            node.freeze()

    async def thaw(self) -> None:
        for node in self.world.nodes:
            if node.alive and node.frozen:
                self.note(f"thaw {node.name}")
                node.thaw()

    async def cut_everyone(self) -> None:
        self.note("cut everyone")
        self.world.store.cut(everyone=True)

    async def heal_everyone(self) -> None:
        self.world.store.heal(everyone=True)

    async def lose_an_answer(self) -> None:
        node = self.rng.choice(self.world.nodes)
        effect = self.rng.choice(("before", "after"))
        self.note(f"{node.name}'s next append fails {effect} its effect")
        node.link.fail_next_append(effect)  # type: ignore[arg-type]

    async def trim(self) -> None:
        log = self.rng.choice(("global", *(up_log(zone) for zone in ZONES)))
        entries = self.rng.choice((1, 3, 10))
        if log == "global":
            # What is on no disk yet nobody could bring back.
            heads = [node.disk._server.data.log(log).head for node in self.world.replicas]
            safe = max((head.position for head in heads if head is not None), default=START)
            held = [entry.position for entry in self.world.entries(log)]
            entries = max(entries, sum(position > safe for position in held))
        self.note(f"trim {log} to {entries}")
        self.world.store.trim_to(log, entries)

    async def roll_back_a_stream(self) -> None:
        log = up_log(self.rng.choice(ZONES))
        held = len(self.world.entries(log))
        lost = self.rng.choice((1, 2, 5))
        if held > lost:
            self.note(f"roll {log} back by {lost}")
            self.world.store.roll_back(log, held - lost)

    async def drop_the_lease(self) -> None:
        self.note("drop the lease")
        self.world.store.delete_key("global", "leader")

    async def lose_a_disk(self) -> None:
        """Only of a zone whose records global has merged: what nobody else holds is gone."""
        if not self.world.has_leader():
            return
        whole = self.world.leader.registry.parts()
        for zone in self.zones:
            if not zone.running or zone.frozen or not zone.zone.state.adopted:
                continue
            parts = zone.zone.state.registry.parts()
            if all(
                parts.get((kind, zone.name)) == whole.get((kind, zone.name))
                for kind in ("MeshService", "HostnameGenerator")
            ):
                self.note(f"kill {zone.name} and lose its disk")
                zone.kill()
                zone.lose_disk()
                return

    # And then

    async def make_peace(self) -> None:
        self.note("peace")
        world = self.world
        world.store.heal(everyone=True)
        for node in world.nodes:
            node.heal()
            if node.process is not None:
                node.process.spare()
            if node.alive and node.frozen:
                node.thaw()
            if not node.alive:
                node.start()
        await world.until(world.converged, PEACE_S, "maps do not converge")
        await world.until(world.digests_agree, PEACE_S, "digests differ")
        await world.until(world.up_matches, PEACE_S, "global's copies differ")
        self.check_truth()

    def check_truth(self) -> None:
        truth = {name for zone in self.zones for name in zone.services}
        assert self.present <= truth, f"lost: {sorted(self.present - truth)}"
        assert not self.absent & truth, f"back: {sorted(self.absent & truth)}"

    async def restart_everything(self) -> None:
        """Replaying any log changes nothing that anybody sees (I12)."""
        world = self.world
        before = {zone.name: (zone.map, zone.agents[0].names) for zone in self.zones}
        shown = {zone.name: len(zone.agents[0].shown) for zone in self.zones}
        for node in world.nodes:
            node.kill()
            node.start()
        await world.until(world.has_leader)
        await world.until(world.converged, PEACE_S)
        await world.until(world.digests_agree, PEACE_S)
        for zone in self.zones:
            agent = zone.agents[0]
            assert (zone.map, agent.names) == before[zone.name]
            assert all(not each.removed for each in agent.shown[shown[zone.name] :])


def chaotic(make_world: Callable[..., World], seed: int) -> World:
    # Every other seed with logs that are trimmed all the time.
    snapshots = SnapshotConfig(entries=12 if seed % 2 else 20_000, bytes=1 << 20)
    return make_world(
        zones=ZONES,
        seed=seed,
        global_config=GlobalConfig(snapshots=snapshots),
        zone_options={"snapshots": snapshots},
    )


async def survive(make_world: Callable[..., World], seed: int) -> None:
    world = chaotic(make_world, seed)
    chaos = Chaos(world, random.Random(seed))
    try:
        await world.start()
        for zone in chaos.zones:
            zone.agent()
        for _ in range(OPERATIONS):
            await chaos.step()
        await chaos.make_peace()
        await chaos.restart_everything()
    except AssertionError as error:
        done = "\n".join(chaos.done)
        raise AssertionError(f"seed {seed}:\n{done}\n{error}") from error


def seeds(text: str) -> range:
    first, dash, end = text.partition("-")
    return range(int(first), int(end) if dash else int(first) + 1)


@pytest.mark.parametrize("seed", seeds(SEEDS))
async def test_whatever_happens_all_agree_on_the_truth_afterwards(
    make_world: Callable[..., World], seed: int
) -> None:
    await survive(make_world, seed)
