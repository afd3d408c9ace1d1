"""What every operation of a plan is carried out on, and what it may ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from tests.scenarios.nodes import GlobalNode, Node, ZoneNode
from tests.simulation.agents import SimulatedAgent
from tests.simulation.invariants import Watch, newest, read
from tests.simulation.operations import Plan
from tests.simulation.simulatedworld import make_world
from zonemesh.errors import MeshError
from zonemesh.log.memory import Clone, MemoryStore
from zonemesh.model import zone_of
from zonemesh.travel import GLOBAL_LOG, own_log, up_log

ANSWER_S = 0.5


class Carrying:
    """A mesh, what watches it, and what has been told to clients."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.shape = plan.shape
        self.world = make_world(plan)
        self.watch = Watch(self.world.fail, quarantine_s=plan.shape.quarantine_s)
        self.watch.store = self.world.store
        self.world.auditor = self.watch
        self.entries_max = 4 * plan.shape.snapshot_entries + 30
        """Of global's log: it is trimmed twice within so many."""
        self.done: list[str] = []
        self.present: set[str] = set()
        """Registered, and told so."""
        self.absent: set[str] = set()
        """Removed, and told so."""
        self.clone: Clone | None = None
        """What a replica of global's store holds that hears nothing more."""
        self.backups: dict[str, Clone] = {}
        """Of nodes' disks."""
        self._directory = directory
        self._agents = 0

    def add_agent(self, node: ZoneNode) -> SimulatedAgent:
        self._agents += 1
        directory = self._directory / str(self._agents)
        directory.mkdir()
        agent = SimulatedAgent(self.world, self.watch, directory)
        node.agents.append(agent)
        if node.running:
            node._serve(agent)
        return agent

    def node(self, name: str) -> Node:
        return next(node for node in self.world.nodes if node.name == name)

    def acting(self, zone: str) -> ZoneNode:
        """Whom clients of a zone write to: whoever leads it, if that can be said."""
        return self.world.leading(zone) or self.world[zone]

    async def attempt(self, node: Node, act: Callable[[], Awaitable[object]]) -> str:
        """Whatever else than "done" it answers, it may have happened or not."""
        if not node.running:
            return "does not run"
        try:
            async with asyncio.timeout(ANSWER_S):
                await act()
        except (MeshError, TimeoutError) as error:
            return repr(error)
        return "done"

    # Who else holds what is about to be lost

    def merged(self, zone: str) -> bool:
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
        kinds = ("MeshService", "MeshExternalService", "HostnameGenerator", "Dataplane")
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

    def replicated(self) -> bool:
        """Whether what operators made on global is on the disk of every replica.

        Of a store and the replicas' memories that are lost within half a second of each other, the
        longest history that is left is what there is: nobody could know of what came after it.
        """
        return self._on_disks(self.world.store, GLOBAL_LOG, self.world.replicas)

    def own_replicated(self, zone: str) -> bool:
        """The same of a zone's own log in a store."""
        store = self.world.own_stores[zone]
        return self._on_disks(store, own_log(zone), self.world.of_zone(zone))

    def _on_disks(self, store: MemoryStore, log: str, nodes: Iterable[Node]) -> bool:
        written = store._server.data.log(log)
        kinds = ("MeshService", "MeshExternalService", "MeshMultiZoneService", "Dataplane")
        raws = () if written.stream is None else written.stream.raws
        last = None
        for raw in raws:
            sealed = read(raw)
            if sealed is not None and any(
                change.kind in kinds and (log != GLOBAL_LOG or zone_of(change.key) == "")
                for change in sealed.entry.changes
            ):
                last = sealed.entry
        if last is None:
            return True
        heads = [node.disk._server.data.log(log).head for node in nodes]
        return all(
            head is not None
            and head.incarnation == last.incarnation
            and head.position >= last.position
            for head in heads
        )

    def lead(self) -> GlobalNode | None:
        """Whom operators write to."""
        leaders = [each for each in self.world.replicas if each.leads and not each.frozen]
        return leaders[0] if len(leaders) == 1 else None
