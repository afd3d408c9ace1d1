"""What the control planes of one zone let each other know besides their log: who follows them.

An agent follows one replica, and only the leader writes the log. So each replica says every second
which Dataplanes' agents are connected to it, with what it says of itself to the others of its log
(`log.presence`), and the leader reads them all. Not over REST: what the leader hears it can only
write while the store answers, so nothing is gained by a second way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from zonecp.liveness import Liveness, Subscriber
from zonemesh.errors import UnavailableError
from zonemesh.log.presence import EVERY_S, Presence, Replica

_AGENTS = "agents"

log = structlog.get_logger()


class Replicas:
    """One replica's side of it; a component for `supervise`."""

    def __init__(
        self, presence: Presence, liveness: Liveness, *, leads: Callable[[], bool]
    ) -> None:
        self._presence = presence
        self._liveness = liveness
        self._leads = leads
        self._others: Sequence[Replica] = ()

    def describe(self) -> list[dict[str, Any]]:
        """The other replicas as the leader last heard of them; for `GET /_state`."""
        return [
            {"url": each.url, "applied": str(each.cursor), "agents": len(_agents(each))}
            for each in sorted(self._others, key=lambda each: each.writer)
        ]

    async def run(self) -> None:
        """Say and hear, for ever. Without the store, what was heard last stays."""
        while True:
            try:
                await self._presence.say()
                await self._hear()
            except UnavailableError as error:
                log.debug("replicas_unknown", error=str(error))
            await asyncio.sleep(EVERY_S)

    async def _hear(self) -> None:
        self._others = await self._presence.others() if self._leads() else ()
        found: dict[str, Subscriber] = {}
        for each in self._others:
            found.update(_agents(each))
        self._liveness.heard_elsewhere(found)


def told(liveness: Liveness) -> Mapping[str, Any]:
    """What a replica says besides its place (`Presence`)."""
    return {
        _AGENTS: [
            (key, each.agent, each.version, each.named) for key, each in liveness.here.items()
        ]
    }


def _agents(replica: Replica) -> dict[str, Subscriber]:
    try:
        return {
            str(key): Subscriber(str(agent), str(version), named=bool(named))
            for key, agent, version, named in replica.more.get(_AGENTS, ())
        }
    except (TypeError, ValueError) as error:  # another build's: a leader must not stumble over it
        log.warning("replica_unreadable", writer=replica.writer, error=repr(error))
        return {}
