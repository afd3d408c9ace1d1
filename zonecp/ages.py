"""How old what a zone knows of others is, and what its map holds of them."""

from __future__ import annotations

from collections.abc import Callable

from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.origins import Origins
from zonemesh.registry import Registry


class Ages:
    """Of one process, by its own clock."""

    def __init__(
        self,
        zone: str,
        copy: Registry,
        follower: Follower | None,
        origins: Origins,
        clock: Clock,
        *,
        catching_up: Callable[[], bool],
    ) -> None:
        """`copy` is that of global's log, which `follower` follows: None for a zone alone.
        `catching_up`: whether the map is being brought up to date with more than one turn can do.
        """
        self._zone = zone
        self._copy = copy
        self._follower = follower
        self._origins = origins
        self._clock = clock
        self._catching_up = catching_up
        self._started_s = clock.mono_s()
        self._behind_s: float | None = None
        """Since when the map has been behind what is known."""

    def news(self) -> None:
        """Something is known that is not in the map yet."""
        if not self._catching_up():
            self._behind_s = self._clock.mono_s()

    def lag_s(self) -> float:
        """Age of what is known of other zones; 0 for a zone alone.

        Until global's head was read: that of the copy by the wall clock, as nothing else is there.
        """
        if self._follower is None:
            return 0.0
        lag_s = self._follower.lag_s
        return self._copy_age_s() if lag_s is None else lag_s

    def map_lag_s(self) -> float:
        """Age of what the map holds of other zones: every hop on the way here.

        That is the age of global's log here, or of the worst zone that counts as online, and for
        how long the map has not been brought up to date with that.
        """
        behind_s = 0.0
        if self._catching_up() and self._behind_s is not None:
            behind_s = self._clock.mono_s() - self._behind_s
        oldest_s = self._origins.oldest_s(self._clock.mono_s(), but=self._zone)
        return max(self.lag_s(), oldest_s) + behind_s

    def origin_lags_s(self) -> dict[str, float]:
        """Age of what is known of each other zone, those that are offline included."""
        ages_s = self._origins.ages_s(self._clock.mono_s())
        return {zone: age_s for zone, age_s in ages_s.items() if zone != self._zone}

    def _copy_age_s(self) -> float:
        running_s = self._clock.mono_s() - self._started_s
        if self._copy.incarnation == "":
            return running_s
        return max(running_s, (self._clock.wall_ms() - self._copy.time_ms) / 1000)
