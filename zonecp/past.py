"""Whether a zone's own log holds all that is known of it elsewhere, or is an old backup."""

from __future__ import annotations

import asyncio

from zonecp.state import ZoneState
from zonemesh.errors import StaleLogError
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.port import Log
from zonemesh.model import Cursor
from zonemesh.seen import Seen
from zonemesh.wire import NO_HASH, Place, decode

_GLOBAL_READ_S = 3.0
"""How long a stream that is to begin anew waits for what global says of it; global may be away."""
_GLOBAL_LOOK_S = 0.05


class Past:
    """The own log against what is known of it elsewhere."""

    def __init__(
        self, state: ZoneState, own: Log, follower: Follower, *, clock: Clock, adopted_anew: bool
    ) -> None:
        """`adopted_anew`: what the own log lacked has been taken over."""
        self._state = state
        self._own = own
        self._global = follower
        self._clock = clock
        self._adopted_anew = adopted_anew

    async def check_merged(self) -> None:
        """What global has merged stands in for a stream that was lost, or went back, as well.

        Raises:
            StaleLogError: As `lacks`.
        """
        until_s = self._clock.mono_s() + _GLOBAL_READ_S
        while not self._global.current:
            if self._clock.mono_s() >= until_s:
                break
            await asyncio.sleep(_GLOBAL_LOOK_S)
        seen = Seen.of(self._global.newest, self._state.zone)
        if seen is not None and seen.published is not None:
            await self.lacks(Place(*seen.published, b""), "global has merged")

    def check_continued(self, src: Cursor) -> None:
        """Make sure that an own log that was lost and restored holds all that was published.

        Raises:
            StaleLogError: It was restored from a history that ends before that.
        """
        note = self._state.note
        if note is None or not note.continues or self._adopted_anew:
            return
        held = Cursor.parse(note.continues)
        if held.incarnation == src.incarnation and held.position < src.position:
            raise StaleLogError(
                f"own log was restored as of {held.position}, and {src.position} is published",
                term=0,
            )

    async def lacks(self, place: Place, how_known: str) -> bool:
        """Whether the own log does not lead through a place of its that is known elsewhere.

        Args:
            place: Its hash is empty if that is not known: a log that was set back and led in the
                same term again has other entries of the same positions.
            how_known: For people.

        Raises:
            StaleLogError: It does not, and what it lacks has not been adopted: an old backup.
        """
        registry = self._state.registry
        if place.incarnation != registry.incarnation or await self._leads_through(place):
            return False
        if self._adopted_anew:
            return True
        raise StaleLogError(
            f"own log, which ends at {registry.position}, does not lead through {place.position},"
            f" which {how_known}",
            term=place.position.term,
        )

    async def _leads_through(self, place: Place) -> bool:
        position = place.position
        if position > self._state.registry.position:
            return False
        # The entry there, unless it is trimmed, and the next one.
        for raw in await self._own.read(position.before(), count=2):
            sealed, _ = decode(raw.data, NO_HASH)
            if sealed.entry.position > position:
                return sealed.entry.previous >= position
            if place.h not in (b"", sealed.h):
                return False
        return True
