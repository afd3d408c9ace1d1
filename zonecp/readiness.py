"""Whether a zone's map may be served yet, whether it may be out of date, and who knows better."""

from __future__ import annotations

from collections.abc import Callable

from zonecp.ages import Ages
from zonecp.canaries import Canaries
from zonecp.leader import ZonePlane
from zonecp.ownlog import OwnLog
from zonecp.replicas import Replicas
from zonecp.revision import Revision
from zonecp.state import ZoneState
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.registry import Registry


class Readiness:
    """Each answer is a reason, for people and probes, or None."""

    def __init__(
        self,
        state: ZoneState,
        own: OwnLog,
        copy: Registry,
        follower: Follower | None,
        *,
        plane: ZonePlane,
        leadership: Leadership,
        replicas: Replicas | None,
        ages: Ages,
        canaries: Canaries,
        clock: Clock,
        stale_after_s: float,
        map_made: Callable[[], bool],
    ) -> None:
        """`follower` and `replicas` are None where there is no global, or no other replica."""
        self._state = state
        self._own = own
        self._copy = copy
        self._follower = follower
        self._plane = plane
        self._leadership = leadership
        self._replicas = replicas
        self._ages = ages
        self._canaries = canaries
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._map_made = map_made
        self.copy_loaded = follower is None
        """Whether global's log has been read, or a copy of it on disk, if there is a global."""

    def complete(self) -> bool:
        """Whether all is known that a map is made of."""
        return self.unread() is None and self.copy_loaded

    def ready(self) -> str | None:
        """Why no map may be served yet, or None: an early map would lack names that exist."""
        if self._own.follower.newer_format:
            return f"cannot read the zone's own log: {self._own.follower.halted}"
        if (why := self.unread() or self._unproven()) is not None:
            return why
        if not self.copy_loaded and self._follower is not None and self._follower.newer_format:
            return f"cannot read global's log: {self._follower.halted}"
        if not self.copy_loaded:
            return "global's log has not been read yet, and there is no copy of it on disk"
        if not self._map_made():
            return "the map of names is being made"
        return None

    def _unproven(self) -> str | None:
        """Why the own log may be an old one, or None."""
        alone = self._replicas is None  # nobody else leads: until this one does, nothing is known
        if alone and not self._plane.has_led:
            return "the zone does not lead its own log yet"
        if (alone or self._leadership.writer is not None) and not self._plane.compared:
            return "the zone looks whether its log holds all that it has published to global"
        return None

    def unread(self) -> str | None:
        """Why some of what was registered here may not be known yet, or None."""
        if (why := self._own.incomplete()) is not None:
            return why
        if not self._state.adopted:
            return "the zone waits for global's copy of what was registered and bound here"
        return None

    def stale(self) -> str | None:
        """Why what is served may be out of date, or None. It goes on being served: a zone that is
        cut off is still the best that its agents have.
        """
        if (lag_s := self._ages.lag_s()) > self._stale_after_s:
            return f"what is known of other zones is {lag_s:.1f} s old"
        if self._follower is not None and self._follower.halted is not None:
            return f"stopped following global's log: {self._follower.halted}"
        missing_s = self._canaries.missing_s(self._clock.mono_s())
        if missing_s > self._stale_after_s:
            return f"what is registered here has not come back from global for {missing_s:.1f} s"
        if (map_lag_s := self._ages.map_lag_s()) > self._stale_after_s:
            return f"what the map holds of other zones is {map_lag_s:.1f} s old"
        return None

    def behind(self) -> str | None:
        """Why others should be asked instead, though what is here is sound; None if not."""
        if self._replicas is None or self._leadership.writer is not None:
            return None
        return self._own.behind()

    def shows_less(self, wanted: Revision) -> bool:
        """Whether an agent may have been shown more of global's log than is shown here.

        That is if it was shown another history, and what is shown here is of one that has ended
        (`Holding`), off an old disk perhaps. Until global's log was read nobody can tell.
        """
        if self._follower is None or wanted.copy.incarnation in ("", self._copy.incarnation):
            return False
        return self._follower.held or not self._follower.reached
