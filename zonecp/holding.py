"""What a zone goes on showing of global's log while that may lack something.

A history that does not lead on from what this zone had applied, or one that is being recovered,
lacks records that exist: shown at once, it would take names away that come back a moment later. So
it is followed aside, and the map stays as it was until the recovery is over. Absence from a log is
not a deletion.
"""

from __future__ import annotations

from zonemesh.errors import ForkError, LogFaultError, RolledBackError, StoreLostError, WireError
from zonemesh.log.clock import Clock
from zonemesh.model import Cursor
from zonemesh.recovery import Recovery
from zonemesh.registry import Registry

SETTLE_S = 5.0
"""At least for so long: global begins a recovery once it has heard of what is lacking."""

_LOSSES = (ForkError, RolledBackError, StoreLostError)


class Holding:
    """Decides when another history of global's log may be shown (`follower.Hold`)."""

    def __init__(self, shown: Registry, clock: Clock) -> None:
        self._shown = shown
        self._clock = clock
        self._until_s = 0.0
        self.lost: Cursor | None = None
        """What is shown and global's log does not lead on from, until global knows."""

    def begin(self, fault: LogFaultError | WireError) -> None:
        if isinstance(fault, _LOSSES) and not self._shown.blank:
            self._until_s = self._clock.mono_s() + SETTLE_S
            self.lost = self._shown.cursor

    def over(self, fresh: Registry) -> bool:
        if self._is_put_back(fresh):
            self._until_s = self._clock.mono_s() + SETTLE_S
            return False
        recovery = Recovery.of(fresh)
        if recovery is not None:
            if not self._is_former(recovery):
                self.lost = None  # global knows
                self._until_s = 0.0
            return False
        if self._clock.mono_s() < self._until_s:
            return False
        self.lost = None
        return True

    def _is_put_back(self, fresh: Registry) -> bool:
        """Whether what follows was lost too: whoever goes on without it begins a higher term."""
        lost = self.lost
        if lost is None or fresh.incarnation != lost.incarnation:
            return False
        return fresh.position < lost.position

    def _is_former(self, recovery: Recovery) -> bool:
        """Whether one was known before the fault."""
        if self.lost is None:
            return False
        begun = Cursor.parse(recovery.id)
        return begun.incarnation == self.lost.incarnation and begun.position <= self.lost.position
