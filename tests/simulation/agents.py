"""Agents that follow a zone's feed with zonedp's own code: its table, guard and file on disk."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections import Counter
from pathlib import Path
from socket import AF_INET, inet_ntop

from tests.scenarios.agents import HEARTBEAT_S, MESH, Agent, Shown, service_of
from tests.scenarios.world import World
from tests.simulation.invariants import DROP_NAMES, DROP_SHARE, Watch
from zonecp.dataplane import events
from zonecp.dataplane.cache import Cache
from zonecp.dataplane.entry import addresses_of
from zonecp.dataplane.feed import FeedOptions, Follower, StreamEndError
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.message import text_name, wire_name
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.revision import is_older
from zonecp.feed import Feed
from zonecp.revision import Revision
from zonemesh.errors import UnavailableError

DOMAIN = "mesh.local"
OPTIONS = FeedOptions(
    zones=("http://simulated",), mesh=MESH, dataplane="agent", domains=(DOMAIN, "mesh")
)
_NOT_READY_S = 0.2
_SERVFAIL, _NXDOMAIN = 2, 3


class WatchedTable(Table):
    """Tells its agent of each name that comes, changes or goes."""

    def __init__(self, agent: SimulatedAgent) -> None:
        super().__init__(OPTIONS.domains)
        self._agent = agent

    def put(self, key: bytes, entry: bytes) -> bool:
        changed = super().put(key, entry)
        self._agent.put(text_name(key), entry, changed=changed)
        return changed

    def remove(self, key: bytes) -> bool:
        there = super().remove(key)
        if there:
            self._agent.lost(text_name(key))
        return there


class SimulatedAgent(Agent):
    """An agent that survives its zone's restarts, and, by its file, its own."""

    def __init__(self, world: World, watch: Watch, directory: Path) -> None:
        super().__init__(world)
        self._watch = watch
        self._directory = directory
        self._came: Counter[str] = Counter()
        """How often each name came to be there."""
        self._newest: str | None = None
        """The newest revision that any process of this agent has shown."""
        self._put = 0
        self._news = 0
        self._gone: list[str] = []
        self._held = 0
        self._begin()

    def _begin(self) -> None:
        self.names = {}
        self.state = FeedState()
        self.table = WatchedTable(self)
        self._follower: Follower | None = None
        self._loading = True
        self._cache = Cache(self._directory, self.table, self.state)
        self._cache.load()
        self._loading = False

    async def restart(self, *, forget: bool = False) -> None:
        """The process ends and starts again; `forget`: on a new machine.

        Whoever serves it has to be told (`ZoneNode._serve`).
        """
        if self._following is not None:
            self._following.cancel()
            self._following = None
        await self._cache.write()
        before = dict(self.names)
        if forget:
            shutil.rmtree(self._directory)
            self._directory.mkdir()
            self._newest = None
            self._came.clear()
        self._begin()
        if not forget and self.state.whole and self.names != before:
            told = f"{len(self.names)} of {len(before)} names"
            self._watch.violated("I16", f"a restarted agent serves {told}")
        self.look()

    async def follow(self, feed: Feed) -> None:
        self._follower = Follower(OPTIONS, self.table, self.state)
        while True:
            if feed.ready() is not None:
                await asyncio.sleep(_NOT_READY_S)
                continue
            after = self._follower.resume()
            known = None if after is None else Revision.parse(after)
            try:
                if known is not None:
                    await feed.wait_for(known)
                await self._stream(feed, known)
            except StreamEndError:
                await asyncio.sleep(OPTIONS.refused_pause_s)
            except UnavailableError:
                continue

    async def _stream(self, feed: Feed, known: Revision | None) -> None:
        assert self._follower is not None
        reader = events.Reader()
        first = True
        async for pieces in feed.events(MESH, known, outbounds=False, heartbeat_s=HEARTBEAT_S):
            for line in b"".join(pieces).split(b"\n")[:-1]:
                for part in reader.line(line):
                    await self._take_part(part, first=first)
                    first = first and isinstance(part, events.Heartbeat)

    async def _take_part(self, part: events.Part, *, first: bool) -> None:
        assert self._follower is not None
        self._put = self._news = 0
        self._gone = []
        self._held = len(self.names)
        await self._follower.take(part)
        head = self.state.head
        revision = None if head is None else head.revision
        if self._newest is not None and revision is not None and is_older(revision, self._newest):
            self._watch.violated("I8", f"an agent went back from {self._newest} to {revision}")
        self._newest = revision or self._newest
        if isinstance(part, events.Heartbeat):
            self.heartbeats += 1
            return
        if (
            isinstance(part, events.Delta)
            and not first
            and self._put
            and not (self._news or self._gone or part.remove)
        ):
            self._watch.violated("I12", f"{self._put} names were pushed as they were before")
        unasked = [name for name in self._gone if not self._asked(name)]
        if len(self._gone) >= DROP_NAMES and len(unasked) > DROP_SHARE * self._held:
            told = f"{len(unasked)} of {self._held} names went at once"
            self._watch.violated("I22", told)
        if self.state.changed.is_set():
            self.state.changed.clear()
            await self._cache.write()
        self.shown.append(
            Shown(
                asyncio.get_running_loop().time(),
                type(part).__name__,
                frozenset(),
                frozenset(self._gone),
            )
        )

    def put(self, name: str, entry: bytes, *, changed: bool) -> None:
        self._put += 1
        self._news += changed
        address = inet_ntop(AF_INET, addresses_of(entry)[0])
        before = self.names.get(name)
        self.names[name] = address
        if self._loading or not changed:
            return
        shared = name.endswith(f".shared.{DOMAIN}")
        moved = before is not None and before != address
        if moved and not shared and not self._watch.reuse and not self._forgiven(name):
            self._watch.violated("I2", f"{name} moved from {before} to {address}")
        if before is None:
            self._came[name] += 1
            made = self._watch.made[service_of(name)]
            if self._came[name] > made and not self._forgiven(name):
                self._watch.violated("I5", f"{name} is back, and was made only {made} times")

    def lost(self, name: str) -> None:
        self.names.pop(name, None)
        self._gone.append(name)
        if not self._asked(name):
            self._watch.violated("I6", f"{name} was taken from an agent, and nobody had removed it")

    def _asked(self, name: str) -> bool:
        return service_of(name) in self._world.removals or self._forgiven(name)

    def _forgiven(self, name: str) -> bool:
        return service_of(name).partition("-")[0] in self._watch.forgiven

    def look(self) -> None:
        """I15: what a client is told of a name that is there, and of one that is not."""
        there = next(iter(self.names), None)
        whole = self.state.head is not None
        if there is not None and whole:
            for qtype, wanted in ((1, True), (28, True), (16, False)):
                rcode, answers, authorities = self._ask(there, qtype)
                if rcode != 0 or bool(answers) != wanted or (not wanted and not authorities):
                    told = f"type {qtype} of {there}: rcode {rcode}, {answers} answers"
                    self._watch.violated("I15", told)
        rcode, _, authorities = self._ask(f"nobody.svc.{DOMAIN}", 1)
        # Of a map from disk nobody knows yet what it lacks.
        sure = whole and self.state.confirmed
        if (rcode, authorities > 0) != ((_NXDOMAIN, True) if sure else (_SERVFAIL, False)):
            which = "a whole map" if sure else "none that is confirmed"
            self._watch.violated("I15", f"an unknown name with {which}: rcode {rcode}")

    def _ask(self, name: str, qtype: int) -> tuple[int, int, int]:
        """Its code, and the numbers of answers and authorities."""
        packet = (
            struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0)
            + wire_name(name)
            + struct.pack("!2H", qtype, 1)
        )
        answer = self.table.answer(packet, 1232)
        assert isinstance(answer, bytes)
        _, flags, _, answers, authorities, _ = struct.unpack_from("!6H", answer)
        return flags & 15, answers, authorities
