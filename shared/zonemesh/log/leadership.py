"""Standing by and leading: one log has one writer at a time, and who it is can change at any time.

  standing by --lease acquired--> catching up --first entry of a term appended--> leading
  leading --append refused, or the lease is another's--> standing by
  leading --graceful stop--> resigned (entry and lease in one step; standbys try at once)

The lease is for liveness only. What keeps two leaders apart is that an append is refused unless it
follows exactly what its writer last saw.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from zonemesh.errors import RefusedError, UnavailableError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.port import Head, Lease, Log
from zonemesh.log.writer import Writer
from zonemesh.registry import Registry

ACQUIRE_EVERY_S = 0.5
RENEW_EVERY_S = 0.5
_DRAIN_S = 2.0
_RESIGN_S = 2.0

log = structlog.get_logger()


def _reasons(errors: BaseExceptionGroup[RefusedError]) -> str:
    """What the exceptions of a group say, whatever it is nested like."""
    found = (
        _reasons(error) if isinstance(error, BaseExceptionGroup) else str(error)
        for error in errors.exceptions
    )
    return "; ".join(dict.fromkeys(found))


class Plane(Protocol):
    """What a control plane does with leadership."""

    async def found(self, appender: Appender) -> None:
        """Create the log that does not exist, or raise UnavailableError if that is not ours."""

    def writer(self, appender: Appender) -> Writer:
        """Make the write path of a new term."""

    async def open(self, appender: Appender) -> None:
        """Append what a term must begin with, the `<term>-0` entry first."""

    async def lead(self, writer: Writer) -> None:
        """Do a leader's work for ever; cancelled when leadership ends."""


class Leadership:
    """Runs one replica's side of a log: follower until the lease is its own, then leader."""

    def __init__(
        self,
        target: Log,
        registry: Registry,
        follower: Follower,
        plane: Plane,
        *,
        lease: Lease,
        clock: Clock,
    ) -> None:
        self._log = target
        self._registry = registry
        self._follower = follower
        self._plane = plane
        self._lease = lease
        self._clock = clock
        self._resigned_by_other = asyncio.Event()
        self.writer: Writer | None = None
        """The write path while leading."""
        self.leading_url: str | None = None
        """REST address of whoever leads, as last seen; None if nobody."""
        self.terms_led = 0

    def resignation_seen(self) -> None:
        """Told by whoever applies entries: try for the lease now instead of at the next tick."""
        self._resigned_by_other.set()

    async def run(self) -> None:
        """Stand by and lead, for ever; UnavailableError where the store does not answer."""
        fruitless = 0
        while True:
            await self._stand_by()
            refused, led = False, self.terms_led
            try:
                await self._lead()
            except* RefusedError as refusals:
                refused = True
                log.warning("leadership_lost", log=self._log.name, reason=_reasons(refusals))
            except* UnavailableError as errors:
                # With a refusal come those who waited for the writer that it ended.
                if not refused:
                    raise UnavailableError(str(errors.exceptions[0])) from errors
            finally:
                self.writer = None
            fruitless = fruitless + 1 if refused and self.terms_led == led else 0
            if fruitless > 1:
                # A log that takes nobody's entries (an outsider has written into its stream) must
                # not be tried in a tight loop.
                await asyncio.sleep(ACQUIRE_EVERY_S)

    async def _stand_by(self) -> None:
        """Follow until the lease is ours."""
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow())
                await self._acquire()
                following.cancel()
        except* UnavailableError as errors:
            raise UnavailableError(str(errors.exceptions[0])) from errors

    async def _follow(self) -> None:
        # A log that does not exist yet cannot be followed; whoever gets the lease creates it.
        # (Another process does: no event of ours could tell.)
        while (  # noqa: ASYNC110
            await self._log.head() is None and self._registry.incarnation == ""
        ):
            await asyncio.sleep(ACQUIRE_EVERY_S / 2)
        await self._follower.run()

    async def _acquire(self) -> None:
        # Who cannot read the log cannot lead it; the lease is left to those who can.
        while self._follower.newer_format or not await self._log.acquire(self._lease):
            holder = await self._log.holder()
            self.leading_url = None if holder is None else holder.url
            self._resigned_by_other.clear()
            try:
                async with asyncio.timeout(ACQUIRE_EVERY_S):
                    await self._resigned_by_other.wait()
            except TimeoutError:
                continue
        self.leading_url = self._lease.url

    async def _lead(self) -> None:
        appender: Appender | None = None
        try:
            head = await self._follower.catch_up()
            appender = Appender(
                self._log,
                writer=self._lease.writer,
                clock=self._clock,
                place=self._follower.place,
                log_time_ms=self._registry.log_time_ms,
                version=self._registry.format,
                there_s=self._follower.there_s,
            )
            await self._begin(appender, head)
            writer = self._plane.writer(appender)
            self.writer = writer
            self.terms_led += 1
            self._follower.halted = None  # whatever stopped it, this log takes our entries
            term = appender.place.position.term
            log.info("leading", log=self._log.name, term=term, position=str(appender.place[1]))
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.run(), name="writer")
                group.create_task(self._plane.lead(writer), name="lead")
                await self._renew()
        except asyncio.CancelledError:
            raise
        except BaseException:
            if appender is not None and appender.written_s is not None:
                self._follower.wrote(appender.written_s)
            await self._let_go()
            raise

    async def _begin(self, appender: Appender, head: Head | None) -> None:
        if head is None:
            await self._plane.found(appender)
        elif not await self._log.renew(self._lease):
            # What was caught up on may have been the entries of whoever leads by now.
            raise RefusedError("the lease is held by another")
        try:
            await self._plane.open(appender)
        except RefusedError:
            await self._log.repair()  # a head whose entries somebody has deleted takes nothing
            raise

    async def _renew(self) -> None:
        """Renew for ever; RefusedError once the lease is somebody else's."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                if not await self._log.renew(self._lease):
                    raise RefusedError("the lease is held by another")
            except UnavailableError:
                # Nobody else can take it either; appends say whether we still lead.
                continue

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(_RESIGN_S):
                await self._log.release(self._lease)
        except (UnavailableError, TimeoutError):
            return

    async def resign(self) -> None:
        """Give up leadership gracefully: commit what waits, then hand over in one step.

        Standbys see the entry and try for the lease at once.
        """
        writer = self.writer
        if writer is None:
            return
        self.writer = None
        await writer.drain(_DRAIN_S)
        try:
            async with asyncio.timeout(_RESIGN_S):
                await writer.resign(self._lease)
        except (UnavailableError, RefusedError, TimeoutError) as error:
            log.info("resign_failed", log=self._log.name, error=str(error))
