"""Subscribers of a zone's feed, as zonedp is one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.scenarios.virtualtime import Process, now_s
from zonecp.feed import Feed
from zonecp.liveness import Subscriber
from zonecp.revision import Revision
from zonecp.zone import Zone
from zonemesh.errors import UnavailableError
from zonemesh.model import Key

if TYPE_CHECKING:
    from tests.scenarios.nodes import ZoneNode
    from tests.scenarios.world import World

MESH = "default"
POLL_S = 0.02
HEARTBEAT_S = 1.0
SILENCE_S = 5.0
"""An agent that hears nothing for so long goes on elsewhere (`controlPlane.silence`)."""
REFUSED_S = 0.1

Address = str


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
            self._heard_s = now_s()
            self.at = node
            serving = self.serve(node.process, node.zone)
            while not (serving.done() or node.process.dead or self._silent):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)  # a process that is killed tells nobody
            # A process that is frozen learns of the end of the connection once it wakes.
            serving.cancel()
            await asyncio.sleep(REFUSED_S)

    @property
    def _silent(self) -> bool:
        return now_s() - self._heard_s > SILENCE_S

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
        self._heard_s = now_s()
        if event == "heartbeat":
            self.heartbeats += 1
            return
        put = {each["name"]: each["ips"][0] for each in body.get("put", body.get("records"))}
        removed = (
            frozenset(self.names) - put.keys() if event == "snapshot" else frozenset(body["remove"])
        )
        self._check(put, removed)
        self.names = {name: ip for name, ip in self.names.items() if name not in removed} | put
        self.shown.append(Shown(now_s(), event, frozenset(put), removed))

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
