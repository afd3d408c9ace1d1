"""What a zone answers when global's log is being recovered: what it holds, in its own up stream.

The blocks that its own log says it has, with each opening of the stream and in each recovery; and,
where nothing is left of global's own part, the copy of it that this zone has followed.
"""

from __future__ import annotations

from typing import Any

import structlog

from zonecp.holding import Holding
from zonecp.state import ZoneState
from zonemesh.errors import RefusedError
from zonemesh.ipam import BLOCK, Block
from zonemesh.log import snapshotter
from zonemesh.log.follower import Follower
from zonemesh.log.port import Store
from zonemesh.model import Key, Position, zone_of
from zonemesh.recovery import Claim, Recovery
from zonemesh.registry import Registry
from zonemesh.travel import copy_log

RETURNED_MAX = 1_000
"""Handed-back blocks that one heartbeat names."""

log = structlog.get_logger()


class Answering:
    """Made anew for each leadership of a zone: the first answer comes without a question."""

    def __init__(
        self,
        store: Store,
        state: ZoneState,
        shown: Registry,
        follower: Follower,
        holding: Holding,
    ) -> None:
        """`shown` is the copy of global's log, after a fault as it was before."""
        self._store = store
        self._state = state
        self._shown = shown
        self._global = follower
        self._holding = holding
        self._answered: str | None = None

    async def notes(self) -> dict[str, Any]:
        """For the next heartbeat: what has not been said yet.

        Raises:
            UnavailableError: The store does not answer.
        """
        notes: dict[str, Any] = {}
        lost = self._holding.lost
        if lost is not None:
            notes["lost"] = lost.told()
        if returned := self._returned():
            notes["returned"] = returned
        recovery = Recovery.of(self._global.newest)
        asked = "" if recovery is None else recovery.id
        heard = recovery is None or self._state.zone in recovery.reported
        if asked == self._answered and heard:
            return notes
        if recovery is not None and recovery.wants and asked != self._answered:
            await self._offer(recovery.beyond)
        self._answered = asked
        claims = [claim.pack() for claim in claims_of(self._state.registry, self._state.zone)]
        return {**notes, "claims": claims, "recovery": asked}

    def _returned(self) -> list[tuple[str, int]]:
        """Blocks that this zone has handed back, as long as global has them as in use."""
        own = {
            (Key.parse(key).namespace, Block.unpack(payload).first)
            for key, payload in self._state.registry.table(BLOCK).items()
            if Block.unpack(payload).retired
        }
        if not own:
            return []
        told = []
        for key, payload in self._global.newest.table(BLOCK).items():
            place = Key.parse(key).namespace, Block.unpack(payload).first
            if place in own and self._state.has_handed_back(key, payload):
                told.append(place)
        return sorted(told)[:RETURNED_MAX]

    async def _offer(self, beyond: Position | None) -> None:
        shown, newest = self._shown, self._global.newest
        if shown.blank or shown is newest:
            return
        if beyond is None and shown.incarnation == newest.incarnation:
            return
        if beyond is not None and shown.position <= beyond:
            return  # nothing that the log has not
        target = self._store.log(copy_log(self._state.zone))
        try:
            info = await snapshotter.write(target, shown.freeze())
        except RefusedError:
            return  # what is offered there already is as new
        log.warning("copy_offered", zone=self._state.zone, position=str(info.position))


def claims_of(registry: Registry, zone: str) -> list[Claim]:
    """The blocks that a zone's own log says are its."""
    found = []
    for key, payload in registry.table(BLOCK).items():
        block = Block.unpack(payload)
        if zone_of(key) == zone and not block.retired:
            found.append(Claim(Key.parse(key).namespace, block.first, block.size, block.granted_ms))
    return sorted(found, key=lambda claim: (claim.pool, claim.first))
