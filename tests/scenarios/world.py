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
import contextlib
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from globalcp.app import Replica
from globalcp.config import GlobalConfig
from tests.scenarios.virtualtime import Process, current
from zonecp.config import MultizoneConfig, ZoneConfig, ZoneNameConfig
from zonecp.feed import Feed
from zonecp.liveness import Subscriber
from zonecp.revision import Revision
from zonecp.zone import Zone
from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import MeshError, UnavailableError
from zonemesh.ipam import Binding, ipv4_text, pool_of, vip_kind
from zonemesh.legacy import service_key, services_of
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log import fence
from zonemesh.log.clock import Clock
from zonemesh.log.leadership import Leadership
from zonemesh.log.memory import Clone, MemoryLog, MemoryStore, Way, _Stream
from zonemesh.log.port import Head, Lease, Raw, SnapshotInfo
from zonemesh.model import Key, Record, zone_of
from zonemesh.registry import Index, Registry
from zonemesh.runtime.sections import RedisConfig as ZoneRedis
from zonemesh.runtime.supervise import Backoff, Component, supervise
from zonemesh.travel import own_log
from zonemesh.wire import NO_HASH, Entry, decode

MESH = "default"
WALL_MS = 1_790_000_000_000
POLL_S = 0.02
HEARTBEAT_S = 1.0
SILENCE_S = 5.0
"""An agent that hears nothing for so long goes on elsewhere (`controlPlane.silence`)."""
REFUSED_S = 0.1

Address = str

_LOG: deque[str] = deque(maxlen=400)


def note_log(_: Any, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: keeps the newest lines, for whoever has to explain a failure."""
    facts = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
    _LOG.append(f"{_time():9.3f} {current():9} {level:7} {event.get('event')} {facts}")
    raise structlog.DropEvent


def newest_log(lines: int = 60) -> str:
    return "\n".join(list(_LOG)[-lines:])


def _time() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


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


class Auditor:
    """An index on every registry there is: a key has one address for ever, and it alone has it.

    For ever, since the usual quarantine is longer than any scenario.
    """

    def __init__(self, fail: Callable[[str], None]) -> None:
        self._fail = fail
        self._address_of: dict[tuple[str, str], int] = {}
        self._holder_of: dict[int, tuple[str, str]] = {}
        self.reuse = False
        """The scenario's quarantine ends: addresses may find other keys."""

    def of(self, name: str, registry: Registry) -> Index:
        """The index for one registry of a node."""
        del name, registry
        return self

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        pool = pool_of(kind)
        if pool is None or new is None or self.reuse:
            return
        binding = Binding.unpack(new)
        if binding.address is None:
            return
        place = pool, key
        address = self._address_of.setdefault(place, binding.address)
        if address != binding.address:
            self._fail(f"{key} moved from {ipv4_text(address)} to {ipv4_text(binding.address)}")
        holder = self._holder_of.setdefault(binding.address, place)
        if holder != place:
            self._fail(f"{ipv4_text(binding.address)} of {holder[1]} was given to {key}")


@dataclass(frozen=True, slots=True)
class Shown:
    """One event as an agent got it."""

    time_s: float
    event: str
    put: frozenset[str]
    removed: frozenset[str]
    """Names: of a delta its tombstones, of a snapshot those it lacks."""


class Agent:
    """A subscriber of one zone's feed that keeps its map, as zonedp does, across everything."""

    def __init__(self, world: World, *, strict: bool = True, dataplane: Key | None = None) -> None:
        self._world = world
        self.strict = strict
        self.dataplane = dataplane
        """Whose agent it is, if anybody's."""
        self._following: asyncio.Task[None] | None = None
        self.names: dict[str, Address] = {}
        self.revision: Revision | None = None
        self.shown: list[Shown] = []
        self.heartbeats = 0
        self.at: ZoneNode | None = None
        """Whom a roaming agent is connected to, or tries."""
        self._heard_s = 0.0

    @property
    def removed(self) -> list[str]:
        return [name for each in self.shown for name in each.removed]

    def serve(self, process: Process, zone: Zone) -> asyncio.Task[None]:
        """Be served by a zone's process from now on."""
        self._following = process.spawn(self._subscribe(zone))
        return self._following

    async def roam(self, nodes: Sequence[ZoneNode]) -> None:
        """Be served by one of these, by the next one whenever that is heard of no more."""
        for node in itertools.cycle(nodes):
            if node.process is None or not node.composed:
                await asyncio.sleep(REFUSED_S)
                continue
            self._heard_s = _time()
            self.at = node
            serving = self.serve(node.process, node.zone)
            while not (serving.done() or node.process.dead or self._silent):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)  # a process that is killed tells nobody
            # A process that is frozen learns of the end of the connection once it wakes.
            serving.cancel()
            await asyncio.sleep(REFUSED_S)

    @property
    def _silent(self) -> bool:
        return _time() - self._heard_s > SILENCE_S

    async def leave(self) -> None:
        """Close the subscription."""
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait({self._following})

    async def _subscribe(self, zone: Zone) -> None:
        with contextlib.ExitStack() as stack:
            if self.dataplane is not None:
                subscriber = Subscriber("agent", "1.0")
                stack.enter_context(zone.liveness.following(self.dataplane.packed, subscriber))
            await self.follow(zone.feed)

    async def follow(self, feed: Feed) -> None:
        """Subscribe as `zonecp.routes` lets one do; runs in the zone's process."""
        while True:
            if feed.ready() is not None:
                await asyncio.sleep(0.05)
                continue
            try:
                if self.revision is not None:
                    await feed.wait_for(self.revision)
            except UnavailableError:
                continue
            async for pieces in feed.events(
                MESH, self.revision, outbounds=True, heartbeat_s=HEARTBEAT_S
            ):
                for text in b"".join(pieces).split(b"\n\n"):
                    if text and not text.startswith(b":"):
                        self._take(text.decode())

    def _take(self, text: str) -> None:
        lines = [line.partition(": ") for line in text.split("\n")]
        revision = Revision.parse(next(value for name, _, value in lines if name == "id"))
        event = next(value for name, _, value in lines if name == "event")
        body = json.loads("".join(value for name, _, value in lines if name == "data"))
        if self.revision is not None and self.revision.ahead_of(revision):
            self._world.fail(f"the feed went back from {self.revision} to {revision}")
        self.revision = revision
        self._heard_s = _time()
        if event == "heartbeat":
            self.heartbeats += 1
            return
        put = {each["name"]: each["ips"][0] for each in body.get("put", body.get("records"))}
        removed = (
            frozenset(self.names) - put.keys() if event == "snapshot" else frozenset(body["remove"])
        )
        self._check(put, removed)
        self.names = {name: ip for name, ip in self.names.items() if name not in removed} | put
        self.shown.append(Shown(_time(), event, frozenset(put), removed))

    def _check(self, put: Mapping[str, Address], removed: Iterable[str]) -> None:
        if not self.strict:
            return
        for name, address in put.items():
            if self.names.get(name, address) != address:
                self._world.fail(f"{name} moved from {self.names[name]} to {address}")
        for name in removed:
            if service_of(name) not in self._world.removals:
                self._world.fail(f"{name} was taken from an agent, and nobody had removed it")


def service_of(name: str) -> str:
    """The service that a default hostname stands for; tests name services uniquely."""
    return name.partition(".")[0]


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
            wall_ms=lambda: WALL_MS + round(_time() * 1000) + self.wall_offset_ms, mono_s=_time
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
        _LOG.clear()
        self.rng = random.Random(self.seed)
        self.store = MemoryStore(_time, delay_s=lambda: self.rng.uniform(0.0002, 0.002))
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
        self.own_stores[zone] = MemoryStore(_time, delay_s=lambda: self.rng.uniform(0.0002, 0.002))
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

    async def start(self) -> None:
        """Start everything and wait until every zone serves and has blocks to bind from."""
        for node in self.nodes:
            node.start()
        await self.until(self.has_leader)
        await self.until(lambda: all(self.settled(each) for each in self.zone_nodes.values()))

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
        started_s = _time()
        while True:
            self.check()
            if predicate():
                return _time() - started_s
            if _time() - started_s > limit_s:
                found = "\n".join([what, *self.differences()])
                raise AssertionError(f"not within {limit_s} s: {found}\n{newest_log()}")
            await asyncio.sleep(POLL_S)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.check()

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        self.failures.append(f"at {_time():.3f}: {what}")
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


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
