"""Tells the log which Dataplanes have an agent: those whose feed subscription is open somewhere.

That is here, or at another replica of the zone, which reports its own (`replicas`). Only the leader
writes; the others but keep count.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
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
"""After a term has begun, agents have so long to come back before they count as lost."""

MOVE_S = 6.0
"""With several replicas, an agent that is seen at none for so long is lost: longer than a replica
that has said nothing is believed (`Store.present`), and than an agent needs to find the next."""

_LATE_LOOK_S = 0.5

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

    def __init__(self, state: ZoneState, clock: Clock, *, move_s: float = 0.0) -> None:
        """`move_s`: for how long an agent may be away on its way to another replica."""
        self._state = state
        self._clock = clock
        self._move_s = move_s
        self._open: dict[str, list[Subscriber]] = {}
        self._elsewhere: Mapping[str, Subscriber] = {}
        self._missed_s: dict[str, float] = {}
        """Since when a Dataplane with an agent has been without subscription."""
        self._leading = False
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

    @property
    def here(self) -> Mapping[str, Subscriber]:
        """Dataplanes whose agent is connected to this process, and the first of each."""
        return {key: _first(subscribers) for key, subscribers in self._open.items()}

    def heard_elsewhere(self, subscribers: Mapping[str, Subscriber]) -> None:
        """Told by the leader's look at the other replicas what they say, all together."""
        changed = subscribers.keys() ^ self._elsewhere.keys()
        self._elsewhere = subscribers
        for key in changed:
            self._look_at(key)

    def holding(self, dataplane: str) -> str | None:
        """The process of the agent that was the first of those that are connected now."""
        found = self._found(dataplane)
        return found.agent if found is not None and found.named else None

    def _found(self, dataplane: str) -> Subscriber | None:
        subscribers = list(self._open.get(dataplane, ()))
        if (elsewhere := self._elsewhere.get(dataplane)) is not None:
            subscribers.append(elsewhere)
        return _first(subscribers) if subscribers else None

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        """An index of the zone's registry: an agent may be there before its Dataplane is."""
        del old, new
        if (kind == DATAPLANE and self._found(key) is not None) or kind == AGENT:
            self._look_at(key)

    def _look_at(self, key: str) -> None:
        if self._leading:
            self._due.add(key)
            self._news.set()

    async def run(self, writer: Writer) -> None:
        """Write for ever, as the zone's leader."""
        self._leading = True
        # What an earlier term had taken up and not written is looked at again.
        self._due = {*self._open, *self._elsewhere}
        self._news.set()
        try:
            await self._run(writer)
        finally:
            self._leading = False
            self._due.clear()
            self._missed_s.clear()

    async def _run(self, writer: Writer) -> None:
        mono_s = self._clock.mono_s
        until_s = mono_s() + RETURN_S
        returned = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(None if returned else until_s)):
                    await self._news.wait()
            self._news.clear()
            await asyncio.sleep(SETTLE_S)
            if not returned and mono_s() >= until_s:
                returned = True
                self._due |= self._state.agents.online
            await self._write(writer, returned=returned)

    def _pause_s(self, until_s: float | None) -> float | None:
        """How long nothing needs to be looked at, unless there is news; None: for ever."""
        if self._due:
            return _LATE_LOOK_S
        return None if until_s is None else max(0.0, until_s - self._clock.mono_s())

    async def _write(self, writer: Writer, *, returned: bool) -> None:
        due, self._due = self._due, set()
        changed = [key for key in sorted(due) if self._differs(key, returned=returned)]
        for start in range(0, len(changed), KEYS_MAX):
            heard = {key: self._subscriber(key) for key in changed[start : start + KEYS_MAX]}
            await writer.submit(Heard(heard))

    def _differs(self, key: str, *, returned: bool) -> bool:
        """Whether the log says something else of a Dataplane than its subscriptions do."""
        if self._state.registry.get(DATAPLANE, key) is None:
            self._missed_s.pop(key, None)
            return False
        noted = key in self._state.agents.online
        if self._found(key) is not None:
            self._missed_s.pop(key, None)
            return not noted
        return noted and returned and not self._moves(key)

    def _moves(self, key: str) -> bool:
        """Whether an agent that is nowhere may still be on its way to another replica."""
        if self._move_s == 0.0:
            return False
        now_s = self._clock.mono_s()
        if now_s - self._missed_s.setdefault(key, now_s) < self._move_s:
            self._due.add(key)
            return True
        del self._missed_s[key]
        return False

    def _subscriber(self, key: str) -> tuple[str, str] | None:
        found = self._found(key)
        return None if found is None else (found.agent, found.version)


def _first(subscribers: Sequence[Subscriber]) -> Subscriber:
    """The first that says who it is, else the first."""
    return next((each for each in subscribers if each.named), subscribers[0])
