"""One plan, carried out: real control planes and agents, all that is done to them, then peace."""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from tests.scenarios.agents import MESH, Address
from tests.scenarios.loglines import newest_log, note_log
from tests.scenarios.nodes import ZoneNode
from tests.scenarios.virtualtime import VirtualLoop
from tests.simulation.agents import SimulatedAgent
from tests.simulation.clients import Clients
from tests.simulation.faults import Faults
from tests.simulation.invariants import watching
from tests.simulation.operations import Operation, Plan
from tests.simulation.simulatedworld import OTHER_KINDS, SHARED, SHARED_NAME, shared_generator
from zonemesh.ipam import ipv4_text
from zonemesh.model import Key, ServiceRef

PEACE_S = 90.0
GROWING_S = 20.0
"""In which a log that nobody trims grows beyond its limit by heartbeats alone."""
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a plan ended."""

    plan: Plan
    broken: frozenset[str]
    """Numbers of the invariants that did not hold; I7 where it did not come to rest."""
    error: str
    done: tuple[str, ...]
    digest: str
    """Of all that was done and said: equal for equal seeds."""

    @property
    def failed(self) -> bool:
        return self.error != ""

    def __str__(self) -> str:
        done = "\n".join(self.done)
        return f"{self.plan}\n\nwhat was done:\n{done}\n\n{self.error}"


class Simulation(Clients, Faults):
    """The carrying out of one plan, and what is demanded of it."""

    async def run(self) -> None:
        """Start, do everything, make peace; AssertionError where something does not hold."""
        await self.begin()
        for operation in self.plan.operations:
            await self.do(operation)
        await self.make_peace()
        await self.restart_everything()

    async def begin(self) -> None:
        world = self.world
        await world.start()
        await world.write(shared_generator())
        for node in world.zone_nodes.values():
            self.add_agent(node)

    async def do(self, operation: Operation) -> None:
        act: Callable[..., Awaitable[str | None]] = getattr(self, f"do_{operation.kind}")
        told = await act(*operation.args)
        time_s = asyncio.get_running_loop().time()
        self.done.append(f"{time_s:9.3f} {operation}" + (f": {told}" if told else ""))
        await asyncio.sleep(operation.then_s)
        self.look()

    def look(self) -> None:
        """Check what is checked after every operation, then raise what was found until now."""
        self.watch.look(self)
        for node in self.world.zone_nodes.values():
            for agent in node.agents:
                assert isinstance(agent, SimulatedAgent)
                agent.look()
        self.world.check()

    # And then

    async def make_peace(self) -> None:
        """Heal everything and demand I7, without any operator."""
        self.done.append(f"{asyncio.get_running_loop().time():9.3f} peace")
        world = self.world
        for store in (world.store, *world.own_stores.values()):
            store.heal(everyone=True)
        for node in world.nodes:
            node.heal()
            node.slow_down(0.0)
            if node.process is not None:
                node.process.spare()
            if node.alive and node.frozen:
                node.thaw()
            if not node.alive:
                node.start()
        await self._until(world.converged, "maps do not converge")
        await self._until(world.digests_agree, "digests differ")
        await self._until(world.up_matches, "global's copies differ")
        await self._until(self.agreed, "zones disagree about a name", "I19")
        if self.shape.snapshot_entries < 100:
            await self.world.pass_time(GROWING_S)
            await self._until(self.bounded, "streams grow", "I18")
        self.look()
        self.check_truth()

    async def _until(self, predicate: Callable[[], bool], what: str, number: str = "I7") -> None:
        try:
            await self.world.until(predicate, PEACE_S, what)
        except AssertionError:
            if not self.world.failures:
                self.watch.broken.add(number)
            raise

    def bounded(self) -> bool:
        """Up streams too, which global trims: it may not have led for long (I18)."""
        logs = self.world.store._server.data.logs.values()
        entries = [len(data.stream.raws) for data in logs if data.stream is not None]
        return max(entries, default=0) <= 3 * self.shape.snapshot_entries

    def agreed(self) -> bool:
        """Everywhere the first one merged has the shared name, and the others are told so (I19)."""
        winner = self.world.winner()
        nodes = self.world.zone_nodes.values()
        return all(
            node.map.get(SHARED_NAME) == winner and self._told(node, winner) for node in nodes
        )

    def _told(self, node: ZoneNode, winner: Address | None) -> bool:
        vipmap = node.zone.vipmap
        for zone in self.shape.zones:
            ref = ServiceRef("MeshService", Key(MESH, zone, "", SHARED).packed)
            address = vipmap.address(ref) if vipmap.record(ref) is not None else None
            if address is None or ipv4_text(address) == winner:
                continue
            for outcome in vipmap.outcomes(ref):
                if outcome.hostname != SHARED_NAME:
                    continue
                held = outcome.winner
                at = None if held is None else vipmap.address(ServiceRef(held.kind, held.key))
                if at is None or ipv4_text(at) != winner or str(held) not in outcome.message:
                    return False
        return True

    def check_truth(self) -> None:
        nodes = self.world.zone_nodes.values()
        truth = {f"{node.config.name}/{name}" for node in nodes for name in node.services}
        truth.update(self._of_other_kinds())
        forgiven = self.watch.forgiven
        lost = {name for name in self.present - truth if name.partition("/")[0] not in forgiven}
        if lost:
            self.watch.violated("I6", f"acknowledged and lost: {sorted(lost)}")
        if back := self.absent & truth:
            self.watch.violated("I5", f"removed and back: {sorted(back)}")
        self.world.check()

    def _of_other_kinds(self) -> Iterator[str]:
        for kind in OTHER_KINDS:
            for registry in (
                self.world.whole,
                *(node.zone.state.registry for node in self.world.zone_nodes.values()),
            ):
                for packed in registry.table(kind):
                    key = Key.parse(packed)
                    yield f"{key.zone}/{key.name}"

    async def restart_everything(self) -> None:
        """Replaying all logs changes nothing that anybody sees (I12, I19)."""
        world = self.world
        nodes = list(world.zone_nodes.values())
        before = {node.name: (node.map, dict(node.agents[0].names)) for node in nodes}
        shown = {node.name: len(node.agents[0].shown) for node in nodes}
        for node in world.nodes:
            node.kill()
            node.start()
        await self._until(world.has_leader, "nobody leads after a restart")
        await self._until(world.converged, "maps do not converge after a restart")
        await self._until(world.digests_agree, "digests differ after a restart")
        for each in nodes:
            agent = each.agents[0]
            if self.shape.reuses:
                continue  # who waited for an address may have got one
            if (each.map, agent.names) != before[each.name]:
                self.watch.violated("I12", f"{each.name}'s map is another one after a restart")
            if any(told.removed for told in agent.shown[shown[each.name] :]):
                self.watch.violated("I12", f"{each.name}'s agent lost names by a restart")
        world.check()


def simulate(plan: Plan) -> Outcome:
    """Carry a plan out on a loop of its own; equal plans give equal outcomes."""
    loop = VirtualLoop()
    rng = random.Random(plan.seed)
    error = ""
    with (
        _logged(),
        _drawn_from(rng),
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory,
    ):
        simulation: Simulation | None = None

        async def run() -> None:
            nonlocal simulation
            simulation = Simulation(plan, Path(directory))
            with watching(simulation.watch):
                try:
                    await simulation.run()
                finally:
                    await simulation.world.close()

        try:
            loop.run_until_complete(run())
        except AssertionError as failure:
            error = str(failure) or repr(failure)
        finally:
            loop.close()
        assert simulation is not None
        told = newest_log(400).replace(directory, "")
        digest = f"{told}{simulation.done}{loop.time()}"
        return Outcome(
            plan, frozenset(simulation.watch.broken), error, tuple(simulation.done), digest
        )


@contextmanager
def _logged() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[note_log], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def _drawn_from(rng: random.Random) -> Iterator[None]:
    """Incarnations, UIDs and writers from the seed too: they decide between equals; and jitter."""
    token_hex, state = secrets.token_hex, random.getstate()
    random.seed(rng.random())
    secrets.token_hex = lambda nbytes=None: rng.randbytes(nbytes or 32).hex()
    try:
        yield
    finally:
        secrets.token_hex = token_hex
        random.setstate(state)
