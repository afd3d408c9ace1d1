"""A whole mesh in one process: the real control planes over simulated stores, links and clocks.

A node is a machine: its disk survives its processes. A process is what `start` makes; it can be
killed between any two of its steps, frozen, stopped gracefully, or cut off from global's store.
What must hold at every moment is watched all the time and raised by the next wait:

  - an address never changes its key, and a key never its address (`Auditor`; I1, I2);
  - an agent is never shown an older revision, and never loses a name that nobody removed
    (`Agent`; I6, I8);
  - nothing but what a test expects ends a process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from globalcp.config import GlobalConfig
from tests.scenarios.agents import MESH, POLL_S, Address, Agent
from tests.scenarios.auditor import Auditor
from tests.scenarios.loglines import forget_log, newest_log
from tests.scenarios.nodes import GlobalNode, Node, ZoneNode
from tests.scenarios.virtualtime import Process, now_s
from zonecp.config import MultizoneConfig, ZoneConfig, ZoneNameConfig
from zonemesh.deciding import Delete, Put
from zonemesh.ipam import Binding, ipv4_text
from zonemesh.legacy import service_key, services_of
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log.memory import MemoryStore
from zonemesh.model import Key, Record, zone_of
from zonemesh.recovery import Recovery
from zonemesh.registry import Registry
from zonemesh.runtime.sections import RedisConfig as ZoneRedis
from zonemesh.travel import up_log
from zonemesh.wire import NO_HASH, Entry, decode


@dataclass
class World:
    """Global's store and everybody around it."""

    zones: Sequence[str] = ("west", "east")
    globals: int = 2
    global_config: GlobalConfig = field(default_factory=GlobalConfig)
    zone_options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every zone's ZoneConfig."""
    zone_replicas: int = 1
    """Of more than one, `west` and `west-2` share the log of zone west."""
    seed: int = 0

    def __post_init__(self) -> None:
        forget_log()
        self.rng = random.Random(self.seed)
        self.store = MemoryStore(now_s, delay_s=lambda: self.rng.uniform(0.0002, 0.002))
        self.processes: list[tuple[Process, MemoryStore, MemoryStore]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.failures: list[str] = []
        self.removals: set[str] = set()
        """Services that somebody has ever asked to remove."""
        self._cause: BaseException | None = None
        self.auditor = Auditor(self.fail)
        self.replicas = [
            GlobalNode(self, f"global-{number}", self.global_config)
            for number in range(1, self.globals + 1)
        ]
        self.own_stores: dict[str, MemoryStore] = {}
        self.zone_nodes = {zone: self.zone_node(zone) for zone in self.zones}
        if self.zone_replicas > 1:
            for zone in self.zones:
                self._replicate(zone)

    def _replicate(self, zone: str) -> None:
        """Replace a zone's control plane by several on one store."""
        self.own_stores[zone] = MemoryStore(now_s, delay_s=lambda: self.rng.uniform(0.0002, 0.002))
        for number in range(1, self.zone_replicas + 1):
            name = zone if number == 1 else f"{zone}-{number}"
            node = self.zone_node(zone, name)
            node.own_store = self.own_stores[zone]
            self.zone_nodes[name] = node

    def of_zone(self, zone: str) -> list[ZoneNode]:
        """Its control planes."""
        return [node for node in self.zone_nodes.values() if node.config.name == zone]

    def leading(self, zone: str) -> ZoneNode | None:
        """The control plane that leads a zone; None while nobody or more than one does."""
        leaders = [node for node in self.of_zone(zone) if node.leads]
        return leaders[0] if len(leaders) == 1 else None

    def roam(self, zone: str, *, dataplane: str | None = None) -> Agent:
        """An agent that goes on at the next of its zone's control planes, as zonedp does."""
        nodes = self.of_zone(zone)
        agent = Agent(self, dataplane=None if dataplane is None else nodes[0].key(dataplane))
        self.tasks.append(asyncio.create_task(agent.roam(nodes)))
        return agent

    def zone_node(self, zone: str, name: str = "") -> ZoneNode:
        """Another machine with a zone's name in its configuration."""
        config = ZoneConfig(
            redis=ZoneRedis(url="redis://simulated"),
            multizone=MultizoneConfig(zone=ZoneNameConfig(name=zone)),
            **self.zone_options,
        )
        return ZoneNode(self, name or zone, config)

    def __getitem__(self, zone: str) -> ZoneNode:
        return self.zone_nodes[zone]

    @property
    def nodes(self) -> list[Node]:
        return [*self.replicas, *self.zone_nodes.values()]

    @property
    def leader(self) -> GlobalNode:
        (leader,) = [each for each in self.replicas if each.leads]
        return leader

    async def write(self, *items: Put | Delete) -> None:
        """What an operator writes on global."""
        await self.leader.write(*items)

    @property
    def standby(self) -> GlobalNode:
        return next(each for each in self.replicas if each.running and not each.leads)

    def has_leader(self) -> bool:
        return sum(each.leads for each in self.replicas) == 1

    def recovering(self) -> bool:
        """Whether global's log is still to be completed by the zones, or nobody leads it."""
        return not self.has_leader() or Recovery.of(self.leader.registry) is not None

    async def start(self) -> None:
        """Start everything and wait until every zone serves and has blocks to bind from."""
        for node in self.nodes:
            node.start()
        await self.until(self.has_leader)
        await self.until(lambda: all(self.settled(each) for each in self.zone_nodes.values()))

    async def start_with(self, *services: str) -> ZoneNode:
        """Start everything, with services in zone west of which everybody has heard; the zone."""
        await self.start()
        west = self["west"]
        await west.register(*services)
        await self.until(self.converged)
        return west

    def start_globals(self) -> None:
        """Those that do not run."""
        for each in self.replicas:
            if not each.alive:
                each.start()

    async def roll_out(self, wanted: GlobalConfig) -> None:
        """An operator restarts one global after the other with another configuration."""
        for node in self.replicas:
            await node.stop()
            node.config = wanted
            node.start()
            await self.until(self.has_leader)
        await self.until(lambda: self.leader.replica.state.settings.pools == wanted.pools)

    def settled(self, node: ZoneNode) -> bool:
        if not node.ready:
            return False
        zone = node.zone
        return bool(zone.state.ledgers["MeshService"].blocks(zone.state.zone))

    async def until(
        self, predicate: Callable[[], bool], limit_s: float = 10.0, what: str = ""
    ) -> float:
        """Wait on virtual time; answers how long it took.

        Raises:
            AssertionError: It did not come true in time, or something went wrong meanwhile.
        """
        started_s = now_s()
        while True:
            self.check()
            if predicate():
                return now_s() - started_s
            if now_s() - started_s > limit_s:
                found = "\n".join([what, *self.differences()])
                raise AssertionError(f"not within {limit_s} s: {found}\n{newest_log()}")
            await asyncio.sleep(POLL_S)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.check()

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        self.failures.append(f"at {now_s():.3f}: {what}")
        self._cause = self._cause or cause

    def check(self) -> None:
        if self.failures:
            failures = "\n".join(self.failures)
            raise AssertionError(f"{failures}\n{newest_log()}") from self._cause

    # What must be so once everybody has heard of everything

    def expected(self, zone: str) -> dict[str, Address]:
        """What a zone's map must be, by what each zone itself says of its own services."""
        found = {}
        for node in self.zone_nodes.values():
            origin = node.config.name
            for service, address in node.services.items():
                if address is not None:
                    within = "" if origin == zone else f"{origin}."
                    found[f"{service}.svc.{within}mesh.local"] = address
        # One without an address is missed wherever it is looked for.
        found.update({name: address or "" for name, address in self.legacy().items()})
        return found

    def legacy(self) -> dict[str, Address | None]:
        """Legacy names by the Dataplanes of all zones' own logs, at the addresses of global's."""
        found: dict[str, Address | None] = {}
        registry = next(each.registry for each in self.replicas if each.running)
        for node in self.zone_nodes.values():
            for packed in node.zone.state.registry.table("Dataplane").values():
                for service in services_of(Record.unpack(packed)):
                    bound = registry.get(LEGACY_VIP, service_key(MESH, service))
                    binding = None if bound is None else Binding.unpack(bound)
                    live = binding is not None and binding.live and binding.address is not None
                    found[f"{service}.mesh"] = ipv4_text(binding.address) if live else None  # type: ignore[union-attr, arg-type]
        return found

    def converged(self) -> bool:
        """Everyone runs, and every map is what the zones' own logs imply."""
        return next(self.differences(), None) is None

    def differences(self) -> Iterator[str]:
        """What is not so yet."""
        zones = self.zone_nodes
        for node in self.nodes:
            if not node.running:
                yield f"{node.name} does not run"
                return
        if not self.has_leader():
            yield f"leaders: {[node.name for node in self.replicas if node.leads]}"
        for zone, node in zones.items():
            if not node.ready:
                yield f"{zone} is not ready: {node.zone.readiness.ready()}"
            waiting = [service for service, address in node.services.items() if address is None]
            if waiting:
                yield f"{zone} has no address for {waiting}"
            yield from _difference(f"{zone}'s map", node.map, self.expected(node.config.name))
            for agent in node.agents:
                yield from _difference(f"{zone}'s agent", agent.names, node.map)

    def digests_agree(self) -> bool:
        """All hold the same at the same place of global's log: whole copies and parts."""
        full = [each.registry for each in self.replicas if each.running]
        parts = [each.zone.copy for each in self.zone_nodes.values() if each.running]
        cursors = {each.cursor for each in (*full, *parts)}
        if len(cursors) != 1 or len({each.digest for each in full}) != 1:
            return False
        whole = full[0]
        return all(_same_parts(copy, whole) for copy in parts)

    def up_matches(self) -> bool:
        """Global holds of every zone what that zone holds of itself."""
        if not self.has_leader():
            return False
        whole = self.leader.registry.parts()
        return all(
            whole.get(("MeshService", zone))
            == node.zone.state.registry.parts().get(("MeshService", zone))
            for node in self.zone_nodes.values()
            for zone in (node.config.name,)
        )

    def entries(self, log: str) -> list[Entry]:
        """What a log in global's store holds; fails unless it is one chain without a hole."""
        stream = self.store._server.data.log(log).stream
        found: list[Entry] = []
        h: bytes | None = None
        for raw in stream.raws if stream is not None else ():
            sealed, chained = decode(raw.data, h or NO_HASH)
            if h is not None:
                assert chained, f"{log}: {raw.position} does not continue the chain"
                assert sealed.entry.previous == found[-1].position
            h = sealed.h
            found.append(sealed.entry)
        return found

    def full_syncs(self, zone: str) -> int:
        """How often a zone has published all that it has; of what its stream still holds."""
        return sum(bool(entry.note.get("full")) for entry in self.entries(up_log(zone)))

    def times_written(self, log: str, kind: str, key: Key) -> int:
        """How many entries of a log put a record: a doubled append would be two."""
        return sum(
            (change.kind, change.key) == (kind, key.packed) and change.payload is not None
            for entry in self.entries(log)
            for change in entry.changes
        )

    async def close(self) -> None:
        """End all that is left; what dying processes do now touches nothing."""
        for process, link, disk_link in self.processes:
            link.cut()
            disk_link.cut()
            process.thaw()
        for own_store in self.own_stores.values():
            own_store.cut(everyone=True)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.check()


def _difference(
    what: str, found: Mapping[str, Address], expected: Mapping[str, Address]
) -> Iterator[str]:
    if found != expected:
        missing = sorted(expected.keys() - found.keys())
        further = sorted(found.keys() - expected.keys())
        other = sorted(name for name in found.keys() & expected if found[name] != expected[name])
        yield f"{what}: missing {missing}, further {further}, at another address {other}"


def _same_parts(copy: Registry, whole: Registry) -> bool:
    theirs = whole.parts()
    filtered = {part: value for part, value in copy.parts().items() if copy._keeps is not None}
    return all(
        theirs.get(part) == value
        for part, value in filtered.items()
        if not part[0].startswith("block") and zone_of(f"/{part[1]}/") == part[1]
    )
