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

from globalcp.config import GlobalConfig, IpamConfig, MeshServicePool
from tests.scenarios.virtualtime import VirtualLoop
from tests.scenarios.world import (
    MESH,
    Address,
    GlobalNode,
    Node,
    World,
    ZoneNode,
    newest_log,
    note_log,
)
from tests.simulation.agents import SimulatedAgent
from tests.simulation.invariants import Watch, newest, read, watching
from tests.simulation.operations import Operation, Plan, Shape
from zonecp.uplink import Uplink
from zonemesh.deciding import Put
from zonemesh.errors import MeshError
from zonemesh.ipam import Binding, ipv4_text, vip_kind
from zonemesh.log.memory import Clone, Way
from zonemesh.model import START, Change, Key, ServiceRef
from zonemesh.runtime.sections import SnapshotConfig
from zonemesh.travel import own_log, up_log

PEACE_S = 90.0
GROWING_S = 20.0
"""In which a log that nobody trims grows beyond its limit by heartbeats alone."""
ANSWER_S = 0.5
SHARED = "dup"
SHARED_NAME = f"{SHARED}.shared.mesh.local"
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


class SimulatedWorld(World):
    """What its maps must be, with the names that several zones want."""

    reuses = False

    def expected(self, zone: str) -> dict[str, Address]:
        found = super().expected(zone)
        winner = self.winner()
        if winner is not None:
            # Whose it is, is `agreed`'s to say.
            found[SHARED_NAME] = self[zone].map.get(SHARED_NAME, winner)
        return found

    def winner(self) -> Address | None:
        """The address of the one merged first of those that want the shared name."""
        registry = next(each.registry for each in self.replicas if each.running)
        found = []
        for zone, node in self.zone_nodes.items():
            key = Key(MESH, zone, "", SHARED).packed
            packed = registry.get(vip_kind("MeshService"), key)
            if SHARED in node.services and packed is not None:
                binding = Binding.unpack(packed)
                if binding.live and binding.address is not None and binding.order is not None:
                    found.append((binding.order, binding.address))
        return ipv4_text(min(found)[1]) if found else None

    def differences(self) -> Iterator[str]:
        for told in super().differences():
            # With few addresses, some services wait until others have rested.
            if not (self.reuses and "has no address for" in told):
                yield told


class Simulation:
    """The carrying out of one plan."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.shape = plan.shape
        self.world = _world(plan)
        self.watch = Watch(self.world.fail, quarantine_s=plan.shape.quarantine_s)
        self.watch.store = self.world.store
        self.world.auditor = self.watch
        self.entries_max = 4 * plan.shape.snapshot_entries + 30
        self.done: list[str] = []
        self.present: set[str] = set()
        """Registered, and told so."""
        self.absent: set[str] = set()
        """Removed, and told so."""
        self._directory = directory
        self._agents = 0
        self._clone: Clone | None = None
        self._backups: dict[str, Clone] = {}

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
        await world.write(_shared_generator())
        for zone in self.shape.zones:
            self.add_agent(world[zone])

    def add_agent(self, node: ZoneNode) -> SimulatedAgent:
        self._agents += 1
        directory = self._directory / str(self._agents)
        directory.mkdir()
        agent = SimulatedAgent(self.world, self.watch, directory)
        node.agents.append(agent)
        if node.running:
            node._serve(agent)
        return agent

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

    # What clients do

    async def do_register(self, zone: str, first: int, count: int) -> str:
        if self.shape.reuses:
            count = min(count, 3)
        wrap = first + count if first >= 100 else 8
        names = [f"{zone}-{number % wrap}" for number in range(first, first + count)]
        return await self._register(zone, *dict.fromkeys(names))

    async def _register(self, zone: str, *names: str) -> str:
        node = self.world[zone]
        whole = {f"{zone}/{name}" for name in names}
        self.absent -= whole
        self.watch.made.update(names)
        outcome = await self._try(node, lambda: node.register(*names))
        if outcome == "done":
            self.present |= whole
        return outcome

    async def do_remove(self, zone: str, number: int) -> str:
        return await self._remove(zone, f"{zone}-{number}")

    async def _remove(self, zone: str, name: str) -> str:
        node = self.world[zone]
        if not node.running or name not in node.services:
            return "is not there"
        self.present.discard(f"{zone}/{name}")
        outcome = await self._try(node, lambda: node.remove(name))
        if outcome == "done":
            self.absent.add(f"{zone}/{name}")
        return outcome

    async def do_change(self, zone: str, number: int, port: int) -> str:
        node, name = self.world[zone], f"{zone}-{number}"
        if f"{zone}/{name}" not in self.present:
            return "is not there"
        return await self._try(node, lambda: node.write(node.put(name, port)))

    async def do_repeat(self, zone: str) -> str:
        """Register again, as it is; a log must not grow by it (I12)."""
        node = self.world[zone]
        if not node.running or node.frozen or not node.zone.leadership.writer:
            return "does not run"
        names = sorted(name for name in node.services if name.startswith(f"{zone}-"))
        registry = node.zone.state.registry
        again = []
        for name in names:
            packed = registry.get("MeshService", node.key(name).packed)
            if packed is not None and b"\xa4port\x50" in packed:
                again.append(node.put(name))
        heard: list[bool] = []

        class Note:
            def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
                heard.append(kind == "MeshService")

        note = Note()
        registry._indexes.append(note)
        outcome = await self._try(node, lambda: node.write(*again))
        registry._indexes.remove(note)
        if any(heard):
            self.watch.violated("I12", f"{zone} wrote {sum(heard)} services that were the same")
        return f"{len(again)}: {outcome}"

    async def do_share(self, zone: str) -> str:
        return await self._register(zone, SHARED)

    async def do_unshare(self, zone: str) -> str:
        return await self._remove(zone, SHARED)

    async def do_run_workload(self, zone: str, number: int) -> str:
        node, service = self.world[zone], f"shop-{number}"
        self.watch.made[service] += 1
        name = f"{zone}-workload-{number}"
        return await self._try(node, lambda: node.run_dataplane(name, service))

    async def do_stop_workload(self, zone: str, number: int) -> str:
        node = self.world[zone]
        self.world.removals.add(f"shop-{number}")
        return await self._try(node, lambda: node.stop_dataplane(f"{zone}-workload-{number}"))

    async def _try(self, node: ZoneNode, act: Callable[[], Awaitable[object]]) -> str:
        """Whatever else than "done" it answers, it may have happened or not."""
        if not node.running:
            return "does not run"
        try:
            async with asyncio.timeout(ANSWER_S):
                await act()
        except (MeshError, TimeoutError) as error:
            return repr(error)
        return "done"

    async def do_restart_agent(self, zone: str, *, forget: bool = False) -> str | None:
        node = self.world[zone]
        agent = node.agents[0]
        assert isinstance(agent, SimulatedAgent)
        await agent.restart(forget=forget)
        if node.running:
            node._serve(agent)
        return None

    async def do_new_agent(self, zone: str) -> str | None:
        return await self.do_restart_agent(zone, forget=True)

    # Processes

    def node(self, name: str) -> Node:
        return next(node for node in self.world.nodes if node.name == name)

    async def do_kill(self, name: str, steps: int) -> str | None:
        node = self.node(name)
        if not node.alive:
            return "is dead"
        node.kill_after(steps)
        return None

    async def do_kill_leader(self, steps: int) -> str:
        for node in self.world.replicas:
            if node.leads:
                node.kill_after(steps)
                return node.name
        return "nobody leads"

    async def do_start(self) -> str:
        dead = [node for node in self.world.nodes if not node.alive]
        for node in dead:
            node.start()
        return ", ".join(node.name for node in dead)

    async def do_stop(self, name: str) -> str | None:
        node = self.node(name)
        if not node.running or node.frozen:
            return "does not run"
        await node.stop()
        return None

    async def do_freeze(self, name: str) -> str | None:
        node = self.node(name)
        if not node.alive:
            return "is dead"
        node.freeze()
        return None

    async def do_thaw(self) -> str:
        frozen = [node for node in self.world.nodes if node.alive and node.frozen]
        for node in frozen:
            node.thaw()
        return ", ".join(node.name for node in frozen)

    # Links

    async def do_cut(self, name: str, way: Way) -> None:
        self.node(name).cut(way)

    async def do_heal(self, name: str) -> None:
        self.node(name).heal()

    async def do_cut_store(self) -> None:
        self.world.store.cut(everyone=True)

    async def do_heal_store(self) -> None:
        self.world.store.heal(everyone=True)

    async def do_slow(self, name: str, by_s: float) -> None:
        self.node(name).slow_down(by_s)

    async def do_lose_append(self, name: str, effect: str) -> None:
        self.node(name).link.fail_next_append(effect)  # type: ignore[arg-type]

    async def do_redeliver(self, name: str) -> None:
        self.node(name).link.redeliver()

    async def do_read_again(self, name: str, entries: int) -> None:
        self.node(name).link.read_again(entries)

    async def do_skew(self, name: str, offset_ms: int) -> None:
        self.node(name).wall_offset_ms = offset_ms

    # Global's store

    async def do_trim(self, log: str, entries: int) -> str | None:
        if log == "global":
            # What is on no disk yet nobody could bring back.
            heads = [node.disk._server.data.log(log).head for node in self.world.replicas]
            safe = max((head.position for head in heads if head is not None), default=START)
            stream = self.world.store._server.data.log(log).stream
            held = [] if stream is None else [raw.position for raw in stream.raws]
            entries = max(entries, sum(position > safe for position in held))
        self.world.store.trim_to(log, entries)
        return f"to {entries}"

    async def do_drop_lease(self) -> None:
        self.world.store.delete_key("global", "leader")

    async def do_roll_back_up(self, zone: str, lost: int) -> str | None:
        return self._roll_back(up_log(zone), lost)

    async def do_roll_back_global(self, lost: int) -> str | None:
        return self._roll_back("global", lost)

    def _roll_back(self, log: str, lost: int) -> str | None:
        stream = self.world.store._server.data.log(log).stream
        held = 0 if stream is None else len(stream.raws)
        if held <= lost:
            return f"has {held} entries"
        self.world.store.roll_back(log, held - lost)
        return None

    async def do_lose_up(self, zone: str) -> None:
        for part in ("log", "head", "snapshots", "chunks"):
            self.world.store.delete_key(up_log(zone), part)

    async def do_lose_snapshots(self, log: str) -> str | None:
        if log == "global" and not self._whole(log):
            return "its beginning is trimmed"
        for part in ("snapshots", "chunks"):
            self.world.store.delete_key(log, part)
        return None

    def _whole(self, log: str) -> bool:
        stream = self.world.store._server.data.log(log).stream
        return bool(stream and stream.raws and stream.raws[0].position.seq == 0)

    async def do_corrupt_up(self, zone: str) -> str | None:
        stream = self.world.store._server.data.log(up_log(zone)).stream
        if stream is None or not stream.raws:
            return "is not there"
        last = stream.raws[-1]
        stream.raws[-1] = last._replace(data=last.data[:-3] + b"xyz")
        return str(last.position)

    async def do_forge(self, zone: str, victim: str, number: int) -> str | None:
        """A compromised zone writes what is another's: a record, and a removal."""
        node = self.world[zone]
        if zone == victim or not node.running or node.zone.plane.uplink is None:
            return "cannot"
        key = Key(MESH, victim, "", f"{victim}-{number}").packed
        other = Key(MESH, victim, "", f"{victim}-{(number + 1) % 8}").packed
        _forge(node.zone.plane.uplink, node, key, other)
        return None

    async def do_replicate(self) -> None:
        self._clone = self.world.store.clone()

    async def do_fail_over(self) -> str | None:
        if self._clone is None:
            return "no replica"
        self.world.store.restore(self._clone)
        return None

    async def do_flush(self) -> None:
        self.world.store.flush()

    async def do_lose_global(self, part: str) -> None:
        self.world.store.delete_key("global", part)  # type: ignore[arg-type]

    # Disks

    def _merged(self, zone: str) -> bool:
        """Whether global holds all that a zone has of itself, so that its disk may go."""
        node = self.world[zone]
        leaders = [each for each in self.world.replicas if each.leads and not each.frozen]
        if not leaders or not node.running or node.frozen or not node.zone.state.adopted:
            return False
        whole = leaders[0].registry
        stream = self.world.store._server.data.log(up_log(zone)).stream
        own = node.zone.state.registry
        top = newest(stream)
        copied = None if top is None else top.entry.src.get(own_log(zone))
        parts, merged = own.parts(), whole.parts()
        kinds = ("MeshService", "HostnameGenerator", "Dataplane")
        return (
            top is not None
            and stream is not None
            and copied == own.cursor
            and all(parts.get((kind, zone)) == merged.get((kind, zone)) for kind in kinds)
            and not any(
                sealed is None or sealed.entry.changes
                for sealed in map(read, stream.after(whole.cursors[up_log(zone)].position, 1000))
            )
        )

    async def do_lose_disk(self, zone: str) -> str | None:
        """Only of a zone whose records global has merged: what nobody else holds is gone."""
        if not self._merged(zone):
            return "it has what nobody else has"
        node = self.world[zone]
        node.kill()
        node.lose_disk()
        return None

    async def do_lose_copy(self, name: str) -> str | None:
        """A replica's whole disk, or the copy of global's log on a zone's."""
        node = self.node(name)
        if isinstance(node, GlobalNode):
            others = [
                each
                for each in self.world.replicas
                if each is not node and each.disk._server.data.log("global").head is not None
            ]
            if not others:
                return "no other replica has one"
        if node.alive:
            node.kill()
        if isinstance(node, GlobalNode):
            node.lose_disk()
        else:
            for part in ("log", "head", "snapshots", "chunks"):
                node.disk.delete_key("global", part)
        return None

    async def do_back_up(self, zone: str) -> None:
        self._backups[zone] = self.world[zone].disk.clone()

    async def do_set_back(self, zone: str) -> str | None:
        backup = self._backups.get(zone)
        if backup is None:
            return "no backup"
        if not self._merged(zone):
            return "it has what nobody else has"
        node = self.world[zone]
        node.kill()
        node.set_disk_back(backup)
        return None

    # And then

    async def make_peace(self) -> None:
        """Heal everything and demand I7, without any operator."""
        self.done.append(f"{asyncio.get_running_loop().time():9.3f} peace")
        world = self.world
        world.store.heal(everyone=True)
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
        truth = {f"{node.name}/{name}" for node in nodes for name in node.services}
        forgiven = self.watch.forgiven
        lost = {name for name in self.present - truth if name.partition("/")[0] not in forgiven}
        if lost:
            self.watch.violated("I6", f"acknowledged and lost: {sorted(lost)}")
        if back := self.absent & truth:
            self.watch.violated("I5", f"removed and back: {sorted(back)}")
        self.world.check()

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


def _world(plan: Plan) -> SimulatedWorld:
    shape: Shape = plan.shape
    snapshots = SnapshotConfig(entries=shape.snapshot_entries, bytes=1 << 20)
    ipam = IpamConfig(
        mesh_service=MeshServicePool(cidr=(shape.pool,)), quarantine=shape.quarantine_s
    )
    world = SimulatedWorld(
        zones=shape.zones,
        globals=shape.globals,
        seed=plan.seed,
        global_config=GlobalConfig(snapshots=snapshots, ipam=ipam),
        zone_options={"snapshots": snapshots},
    )
    world.reuses = shape.reuses
    return world


def _shared_generator() -> Put:
    spec = {
        "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": SHARED}}},
        "template": "{{ .DisplayName }}.shared.mesh.local",
    }
    return Put("HostnameGenerator", Key("", "", "", "shared"), {}, spec)


def _forge(uplink: Uplink, node: ZoneNode, key: str, removed: str) -> None:
    """Have the next news of a zone hold records that are not its own."""
    exported = uplink._exported
    payload = b"\x80"

    def forged(entries: object) -> tuple[list[Change], object]:
        changes, last = exported(entries)  # type: ignore[arg-type]
        if not changes:
            return changes, last
        uplink._exported = exported  # type: ignore[method-assign]
        forgeries = [Change("MeshService", key, payload), Change("MeshService", removed, None)]
        return [*changes, *forgeries], last

    uplink._exported = forged  # type: ignore[method-assign,assignment]
