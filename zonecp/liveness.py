"""Tells the log which Dataplanes have an agent: those whose feed subscription is open here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from zonecp.inputs import Heard
from zonecp.state import ZoneState
from zonemesh.agents import AGENT
from zonemesh.log.clock import Clock
from zonemesh.log.writer import Writer
from zonemesh.members import DATAPLANE

SETTLE_S = 0.5
"""Between two looks: an agent that is back within it changes nothing, and many share an entry."""

RETURN_S = 10.0
"""After a start, agents have so long to come back before they count as lost."""

KEYS_MAX = 500
"""Dataplanes of one entry."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who follows a Dataplane's feed."""

    agent: str
    version: str
    named: bool = False
    """It is a process of the agent that says which one it is; not, for example, a curl."""


class Liveness:
    """Follows the open subscriptions of this process; its leader writes what has changed."""

    def __init__(self, state: ZoneState, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._started_s = clock.mono_s()
        self._open: dict[str, list[Subscriber]] = {}
        self._due: set[str] = set()
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def following(self, dataplane: str, subscriber: Subscriber) -> Iterator[None]:
        """For as long as a subscription that names a Dataplane (packed key) is open."""
        self._open.setdefault(dataplane, []).append(subscriber)
        self._look_at(dataplane)
        try:
            yield
        finally:
            others = self._open[dataplane]
            others.remove(subscriber)
            if not others:
                del self._open[dataplane]
            self._look_at(dataplane)

    def holding(self, dataplane: str) -> str | None:
        """The process of the agent that was the first of those that are connected now."""
        named = (each.agent for each in self._open.get(dataplane, ()) if each.named)
        return next(named, None)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        """An index of the zone's registry: an agent may be there before its Dataplane is."""
        del old, new
        if (kind == DATAPLANE and key in self._open) or kind == AGENT:
            self._look_at(key)

    def _look_at(self, key: str) -> None:
        self._due.add(key)
        self._news.set()

    async def run(self, writer: Writer) -> None:
        """Write for ever, as the zone's leader."""
        mono_s = self._clock.mono_s
        until_s = self._started_s + RETURN_S
        # What an earlier term had taken up and not written is looked at again.
        self._due.update(self._open)
        self._news.set()
        returned = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if returned else max(0.0, until_s - mono_s())):
                    await self._news.wait()
            self._news.clear()
            await asyncio.sleep(SETTLE_S)
            if not returned and mono_s() >= until_s:
                returned = True
                self._due |= self._state.agents.online
            await self._write(writer, returned=returned)

    async def _write(self, writer: Writer, *, returned: bool) -> None:
        due, self._due = self._due, set()
        changed = [key for key in sorted(due) if self._differs(key, returned=returned)]
        for start in range(0, len(changed), KEYS_MAX):
            heard = {key: self._subscriber(key) for key in changed[start : start + KEYS_MAX]}
            await writer.submit(Heard(heard))

    def _differs(self, key: str, *, returned: bool) -> bool:
        """Whether the log says something else of a Dataplane than its subscriptions do."""
        if self._state.registry.get(DATAPLANE, key) is None:
            return False
        noted = key in self._state.agents.online
        return not noted if key in self._open else noted and returned

    def _subscriber(self, key: str) -> tuple[str, str] | None:
        subscribers = self._open.get(key)
        return (subscribers[0].agent, subscribers[0].version) if subscribers else None
