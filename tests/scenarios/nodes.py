"""Machines of a mesh: each has a disk, which survives its processes, and runs a control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from globalcp.app import Replica
from globalcp.config import GlobalConfig
from tests.scenarios.agents import MESH, Address, Agent
from tests.scenarios.virtualtime import Process, now_s
from zonecp.config import ZoneConfig
from zonecp.zone import Zone
from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import MeshError, UnavailableError
from zonemesh.ipam import Binding, ipv4_text, vip_kind
from zonemesh.log import fence
from zonemesh.log.clock import Clock
from zonemesh.log.leadership import Leadership
from zonemesh.log.memory import Clone, MemoryLog, MemoryStore, Way, _Stream
from zonemesh.log.port import Head, Lease, Raw, SnapshotInfo
from zonemesh.model import Key
from zonemesh.registry import Registry
from zonemesh.runtime.sections import RedisConfig as ZoneRedis
from zonemesh.runtime.supervise import Backoff, Component, supervise
from zonemesh.travel import own_log

if TYPE_CHECKING:
    from tests.scenarios.world import World

WALL_MS = 1_790_000_000_000


def _for_life() -> float:
    """The clock of a disk's leases: a lock on a file does not expire, its holder does."""
    return 0.0


class Copy(MemoryLog):
    """A copy of another log on a node's disk, as `SqliteLog` keeps one."""

    async def copy(self, raws: Sequence[Raw], head: Head) -> None:
        data = await self._request()
        if data.stream is None:
            data.stream = _Stream(last=head.position)
        for raw in raws:
            data.stream.add(raw)
        data.head = head

    async def replace(self, info: SnapshotInfo, chunks: Sequence[bytes], head: Head) -> None:
        data = await self._request()
        data.stream, data.head = _Stream(last=head.position), head
        data.snapshots, data.chunks = [info], {info.position: tuple(chunks)}

    async def clear(self) -> None:
        data = await self._request()
        data.stream, data.head, data.snapshots, data.chunks = None, None, [], {}

    async def put_snapshot(self, info: SnapshotInfo, chunks: Sequence[bytes]) -> None:
        data = await self._request()
        if fence.announces(None, None, data.snapshots, info):
            data.snapshots = [info, *data.snapshots[:1]]
            data.chunks[info.position] = tuple(chunks)


class Node:
    """A machine that runs one control plane at a time."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = MemoryStore(_for_life)
        self.disk_link = self.disk
        self.link = world.store.peer()
        self.process: Process | None = None
        self.wall_offset_ms = 0
        self.formats: tuple[int, ...] | None = None
        """Of logs, that its build reads; None for all that there are."""
        self.expected_failure: type[BaseException] | None = None
        self.failure: BaseException | None = None
        self._cut: Way | None = None
        self.slow_s = 0.0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    @property
    def alive(self) -> bool:
        """Whether its process was started, not killed, and has not ended by itself."""
        task = self._task
        return self.process is not None and not self.process.dead and not (task and task.done())

    @property
    def frozen(self) -> bool:
        return self.process is not None and self.process.frozen

    @property
    def running(self) -> bool:
        """Alive, and past its composition."""
        return self.alive and self.composed

    @property
    def composed(self) -> bool:
        raise NotImplementedError

    @property
    def clock(self) -> Clock:
        return Clock(
            wall_ms=lambda: WALL_MS + round(now_s() * 1000) + self.wall_offset_ms, mono_s=now_s
        )

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self.failure = None
        # Links of its own: whatever an earlier process still has on its way cannot use them.
        self.link, self.disk_link = self.world.store.peer(), self.disk.peer()
        self.link.slow_s = self.slow_s
        if self._cut is not None:
            self.link.cut(way=self._cut)
        self._stop = asyncio.Event()
        self.process = Process(self.name)
        self.world.processes.append((self.process, self.link, self.disk_link))
        self._task = self.process.spawn(self._guarded())
        self.world.tasks.append(self._task)

    async def stop(self) -> None:
        """Gracefully, as on SIGTERM."""
        self._stop.set()
        assert self._task is not None
        await asyncio.wait({self._task}, timeout=15.0)
        assert self._task.done() or not self.alive, f"{self.name} does not stop"
        self._exited()

    def kill(self) -> None:
        assert self.process is not None
        self.process.die_after(0, self._died)

    def kill_after(self, steps: int) -> None:
        """Kill once the process has run so many more callbacks."""
        assert self.process is not None
        self.process.die_after(steps, self._died)

    async def run_steps(self, steps: int) -> None:
        """Until the process has run so many more callbacks."""
        assert self.process is not None
        target = self.process.steps + steps
        while self.process.steps < target:  # noqa: ASYNC110 - counted by the loop itself
            await asyncio.sleep(0.0001)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.freeze()

    def thaw(self) -> None:
        assert self.process is not None
        self.process.thaw()

    def cut(self, way: Way = "both") -> None:
        self._cut = way
        self.link.cut(way=way)

    def heal(self) -> None:
        self._cut = None
        self.link.heal()

    def slow_down(self, by_s: float) -> None:
        """Have every message between it and global's store take so much longer."""
        self.slow_s = self.link.slow_s = by_s

    def lose_disk(self) -> None:
        assert not self.alive
        self.disk = MemoryStore(_for_life)

    def set_disk_back(self, backup: Clone) -> None:
        """An operator restores a backup of the disk."""
        assert not self.alive
        self.disk.restore(backup)
        self._died()

    def _exited(self) -> None:
        assert self.process is not None
        self.process.die()
        self._died()

    def _died(self) -> None:
        """The kernel gives up what the process held."""
        self.disk.delete_key(self.own_log, "leader")

    @property
    def own_log(self) -> str:
        return "global"

    async def _guarded(self) -> None:
        try:
            await self._run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - told by the next wait
            self.failure = _innermost(error)
            if not isinstance(self.failure, self.expected_failure or ()):
                self.world.fail(f"{self.name} ended by {error!r}", error)
            self._exited()

    async def _run(self) -> None:
        raise NotImplementedError

    async def _supervise(self, components: Mapping[str, Component], leadership: Leadership) -> None:
        """`runtime.plane.run_until`, its jitter from the world's seed."""
        ended = asyncio.Event()

        async def graceful() -> None:
            await self._stop.wait()
            await leadership.resign()
            ended.set()

        every = {**components, "stop": graceful}
        await supervise(every, Backoff(), self.world.rng, stop=ended)


class GlobalNode(Node):
    """A replica of the global control plane."""

    def __init__(self, world: World, name: str, config: GlobalConfig) -> None:
        super().__init__(world, name)
        self.config = config
        self._replica: Replica | None = None

    @property
    def composed(self) -> bool:
        return self._replica is not None

    @property
    def replica(self) -> Replica:
        assert self._replica is not None
        return self._replica

    @property
    def registry(self) -> Registry:
        return self.replica.state.registry

    @property
    def leads(self) -> bool:
        return self.running and self.replica.leadership.writer is not None

    async def write(self, *items: Put | Delete) -> None:
        """What an operator writes here."""
        for outcome in await self.replica.backend.write(items):
            if isinstance(outcome, MeshError):
                raise outcome

    def start(self) -> None:
        self._replica = None
        super().start()

    async def _run(self) -> None:
        disk = Copy(self.disk_link, "global")
        replica = Replica(
            self.config,
            self.link,
            disk,
            clock=self.clock,
            url=f"http://{self.name}:5681",
            formats=self.formats,
        )
        registry = replica.state.registry
        registry.add_index(self.world.auditor.of(self.name, registry))
        await replica.load_copy()
        self._replica = replica
        await self._supervise(replica.components(), replica.leadership)
        await replica.copy.flush()


class ZoneNode(Node):
    """A zone's control plane; with `own_store` one of several that share the zone's own log."""

    def __init__(
        self, world: World, name: str, config: ZoneConfig, own_store: MemoryStore | None = None
    ) -> None:
        super().__init__(world, name)
        self.config = config
        self.own_store = own_store
        self.own_link: MemoryStore | None = None
        self.takeover = False
        """Whether it is started with --takeover."""
        self.agents: list[Agent] = []
        self._zone: Zone | None = None

    @property
    def composed(self) -> bool:
        return self._zone is not None

    @property
    def zone(self) -> Zone:
        assert self._zone is not None
        return self._zone

    @property
    def own_log(self) -> str:
        return own_log(self.config.name)

    @property
    def ready(self) -> bool:
        return self.running and self.zone.readiness.ready() is None

    @property
    def leads(self) -> bool:
        return self.running and not self.frozen and self.zone.leadership.writer is not None

    @property
    def resyncs(self) -> dict[str, int]:
        """How often it had to read global's log anew, by the reason."""
        assert self.zone.follower is not None
        return dict(self.zone.follower.resyncs)

    @property
    def map(self) -> dict[str, Address]:
        """Names and IPv4 addresses as published."""
        published = self.zone.vipmap.published[MESH]
        return {name: ipv4_text(named.address) for name, named in published.items()}

    @property
    def services(self) -> dict[str, Address | None]:
        """The truth about this zone's own services: what its log says."""
        registry = self.zone.state.registry
        found = {}
        for key in registry.table("MeshService"):
            packed = registry.get(vip_kind("MeshService"), key)
            binding = None if packed is None else Binding.unpack(packed)
            live = binding is not None and binding.live and binding.address is not None
            found[Key.parse(key).name] = ipv4_text(binding.address) if live else None  # type: ignore[union-attr, arg-type]
        return found

    def start(self) -> None:
        self._zone = None
        self.own_link = None if self.own_store is None else self.own_store.peer()
        super().start()

    def federate(self, *, federated: bool = True) -> None:
        """What an operator writes into its configuration, for the next start."""
        redis = ZoneRedis(url="redis://simulated" if federated else "")
        self.config = replace(self.config, redis=redis)

    def _died(self) -> None:
        if self.own_store is None:
            super()._died()

    def agent(self, *, strict: bool = True, dataplane: str | None = None) -> Agent:
        """A new subscriber of this node's zone, now and after every restart."""
        key = None if dataplane is None else self.key(dataplane)
        agent = Agent(self.world, strict=strict, dataplane=key)
        self.agents.append(agent)
        if self.running:
            self._serve(agent)
        return agent

    def _serve(self, agent: Agent) -> None:
        assert self.process is not None
        self.world.tasks.append(agent.serve(self.process, self.zone))

    async def part_with(self, agent: Agent) -> None:
        """An agent leaves, and is not back after a restart either."""
        self.agents.remove(agent)
        await agent.leave()

    async def _run(self) -> None:
        own_store = self.own_link
        zone = Zone(
            self.config,
            (own_store or self.disk_link).log(self.own_log),
            store=self.link if self.config.federated else None,
            disk=Copy(self.disk_link, "global"),
            clock=self.clock,
            url=f"http://{self.name}:5681",
            formats=self.formats,
            own_store=own_store,
            own_disk=None if own_store is None else Copy(self.disk_link, self.own_log),
            takeover=self.takeover,
        )
        for registry in (zone.state.registry, zone.copy):
            registry.add_index(self.world.auditor.of(self.name, registry))
        if own_store is None:
            own_log = self.disk_link.log(self.own_log)
            assert await own_log.acquire(Lease(writer=zone.writer_id, url=""))
        await zone.load_copy()
        self._zone = zone
        for agent in self.agents:
            self._serve(agent)
        await self._supervise(zone.components(), zone.leadership)
        await zone.flush()

    # What clients do

    async def write(self, *items: Put | Delete) -> list[Written]:
        outcomes = await self.zone.backend.write(items)
        for outcome in outcomes:
            if isinstance(outcome, MeshError):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Written)]

    async def register(self, *services: str) -> None:
        """Make MeshServices, as a user would through REST."""
        await self.write(*(self.put(service) for service in services))

    async def register_and_die(self, *services: str, steps: int) -> set[str]:
        """Killed after so many callbacks, while somebody registers; what it acknowledged."""
        self.kill_after(steps)
        acknowledged = set()
        for service in services:
            try:
                async with asyncio.timeout(0.02):
                    await self.register(service)
                acknowledged.add(service)
            except (UnavailableError, TimeoutError):
                pass
            await asyncio.sleep(0.002)
        await self.world.until(lambda: not self.alive)
        return acknowledged

    async def remove(self, *services: str) -> None:
        self.world.removals.update(services)
        await self.write(*(Delete("MeshService", self.key(service)) for service in services))

    async def run_dataplane(self, name: str, service: str) -> None:
        """Register a workload; its zone makes the service."""
        inbound = {"port": 6379, "tags": {"kuma.io/service": service}}
        spec = {"networking": {"address": "10.0.0.1", "inbound": [inbound]}}
        await self.write(Put("Dataplane", self.key(name), {}, spec))

    async def stop_dataplane(self, name: str) -> None:
        await self.write(Delete("Dataplane", self.key(name)))

    def key(self, name: str) -> Key:
        return Key(MESH, self.config.name, "", name)

    def put(self, service: str, port: int = 80) -> Put:
        spec = {"ports": [{"port": port, "targetPort": port, "appProtocol": "tcp"}]}
        return Put("MeshService", self.key(service), {}, spec)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
