"""How long what left global's log unproven is kept in the map, and how operators hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from zonecp.shrink import GuardedCopy
from zonemesh.log.clock import Clock

_LOOK_EVERY_S = 1.0
_SLICE = 250
"""Records let go of between two turns of the event loop, about 10 ms with what follows."""

log = structlog.get_logger()


class ShrinkGuard:
    """Lets go of what a copy holds once its removal is proven, confirmed, or old enough."""

    def __init__(
        self, copy: GuardedCopy, *, patience_s: float, clock: Clock, publish: Callable[[], None]
    ) -> None:
        """`publish` is called after the copy has changed."""
        self._copy = copy
        self._patience_s = patience_s
        self._clock = clock
        self._publish = publish
        self._since_s: float | None = None
        self._confirmed = False

    @property
    def holding(self) -> Mapping[str, int]:
        """Services held, by origin zone ("" is global); 0 where only other records are."""
        return self._copy.holding

    def confirm(self) -> None:
        """An operator says that what is held is gone indeed."""
        self._confirmed = True

    def describe(self) -> str | None:
        """What is held and until when, or None."""
        if not (holding := self.holding):
            return None
        passed_s = 0.0 if self._since_s is None else self._clock.mono_s() - self._since_s
        zones = ", ".join(
            f"{count} of {zone or 'global'}" for zone, count in holding.items() if count
        )
        left_s = max(0.0, self._patience_s - passed_s)
        return (
            f"services that global's log lacks and nobody removed are kept: {zones};"
            f" for {left_s:.0f} s more, or until their zones are merged again"
        )

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        holding = self.holding
        if not holding:
            if self._since_s is not None:
                log.info("shrink_resolved", after_s=round(self._clock.mono_s() - self._since_s, 1))
            self._since_s, self._confirmed = None, False
            return
        if self._since_s is None:
            self._since_s = self._clock.mono_s()
            log.warning("shrink_held_back", services=dict(holding), patience_s=self._patience_s)
        if self._confirmed or self._clock.mono_s() - self._since_s >= self._patience_s:
            why = "confirmed" if self._confirmed else "patience"
            await self._let_go(list(holding), why)
        else:
            await self._let_go(self._copy.proven(), "merged")

    async def _let_go(self, zones: list[str], why: str) -> None:
        for zone in zones:
            services = self.holding.get(zone, 0)
            while self._copy.release(zone, _SLICE):
                self._publish()
                await asyncio.sleep(0)
            self._publish()
            log.warning("shrink_let_through", zone=zone, services=services, why=why)
