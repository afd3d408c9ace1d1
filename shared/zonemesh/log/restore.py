"""Healing a log that its store has lost or turned back, by those who hold it.

  head behind me, and in my history    what is missing is appended again, byte for byte
  no head, no entries                  everybody posts what they hold; after a window the longest
                                       history founds the log anew: its state as a snapshot, a new
                                       incarnation, a term above every one that is known
  another history at the head          not ours to undo: the reader resynchronises

Nothing here needs a lease. What is appended is fenced by the head, a snapshot by the announced one,
and a log is founded once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from zonemesh.errors import LogFaultError, RefusedError
from zonemesh.log import snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.history import History, replay
from zonemesh.log.port import Head, Log
from zonemesh.log.presence import Presence, longest
from zonemesh.model import START, Change, Cursor, Position
from zonemesh.registry import Registry
from zonemesh.replica import RESTORED
from zonemesh.wire import NO_HASH, Sealed, decode

WINDOW_S = 2.0
"""In which live replicas post the history that they hold; each does so within a second."""
_LOOK_S = 0.1

log = structlog.get_logger()


class Restorer:
    """One replica's part in restoring a log."""

    def __init__(
        self,
        target: Log,
        registry: Registry,
        history: History,
        presence: Presence,
        *,
        writer: str,
        clock: Clock,
        known_term: Callable[[], Awaitable[int]],
        first_changes: Callable[[Cursor], Sequence[Change]] = lambda _: (),
        founded: Callable[[], None],
    ) -> None:
        """Take part.

        Args:
            target: The log.
            registry: The state of it that this replica holds.
            history: The entries that led there.
            presence: Who else holds some.
            writer: Of the first entry, if this replica comes to write it.
            clock: The clocks of that entry.
            known_term: The highest term that anybody elsewhere has heard of.
            first_changes: What the first entry, whose cursor is given, changes in the state.
            founded: Called once the registry stands at the first entry of a new incarnation.
        """
        self._log = target
        self._registry = registry
        self._history = history
        self._presence = presence
        self._writer = writer
        self._clock = clock
        self._known_term = known_term
        self._first_changes = first_changes
        self._founded = founded
        self._missing_s: float | None = None
        """Since when the log has been missing: who is broken off goes on with the same window."""
        self.replayed = 0
        """Entries that were appended again."""
        self.restored: Counter[str] = Counter()
        """Faults that were healed without a resynchronisation, by reason."""

    async def restore(self, fault: LogFaultError) -> bool:
        """Whether the log leads on from this replica's place again; else it must resynchronise.

        Raises:
            UnavailableError: The store does not answer.
        """
        try:
            healed = await self._restore(fault)
        except RefusedError as error:
            log.info("restore_overtaken", log=self._log.name, error=str(error))
            return False
        self.restored[fault.code] += healed
        return healed

    async def _restore(self, fault: LogFaultError) -> bool:
        head = await self._log.head()
        if head is None and await self._headed():
            return True
        if head is not None and not await self._log.read(head.position.before(), count=1):
            head = None if await self._log.repair() else head  # a head and nothing below it
        if head is None:
            return await self._found_again(fault)
        place = self._registry.place
        if head.incarnation != place.incarnation and head.position.term < place.position.term:
            # Terms rise from incarnation to incarnation: the store is as it was before the log was
            # founded again, and what has been written since is here.
            return await self._found_again(fault, replacing=head)
        self._missing_s = None
        if head.incarnation != place.incarnation:
            return False
        if head.position < place.position:
            count = await replay(self._log, self._history, head)
            self.replayed += count or 0
            return count is not None
        return await self._continues(head)

    async def _headed(self) -> bool:
        """Whether entries that somebody has taken the head from have it again."""
        newest = await self._newest(self._registry.position.before()) or await self._newest(START)
        return await self._log.repair(newest) and newest is not None

    async def _newest(self, after: Position) -> Sealed | None:
        newest = None
        while raws := await self._log.read(after):
            newest, _ = decode(raws[-1].data, NO_HASH)
            after = raws[-1].position
        return newest

    async def _continues(self, head: Head) -> bool:
        """Whether the log goes on from here by now: another replica was quicker."""
        place = self._registry.place
        for raw in await self._log.read(place.position, count=1):
            sealed, chained = decode(raw.data, place.h)
            return chained and sealed.entry.previous == place.position
        return (head.position, head.h) == (place.position, place.h)

    async def _found_again(self, fault: LogFaultError, replacing: Head | None = None) -> bool:
        await self._presence.say()
        if self._missing_s is None:
            self._missing_s = self._clock.mono_s()
            log.warning(
                "log_missing",
                log=self._log.name,
                error=str(fault),
                held=str(self._registry.position),
                restored_in_s=WINDOW_S,
            )
        if await self._founded_by(self._missing_s + WINDOW_S, replacing):
            return False
        others = await self._presence.others()
        best = longest(others)
        if best is not None and best.place.position > self._registry.position:
            log.info("restore_left_to", log=self._log.name, writer=best.writer, url=best.url)
            if await self._founded_by(self._missing_s + 2 * WINDOW_S, replacing):
                return False
        await self._found(max((each.place.position.term for each in others), default=0), replacing)
        return True

    async def _founded_by(self, until_s: float, replacing: Head | None) -> bool:
        """Whether somebody else has founded the log."""
        former = None if replacing is None else replacing.incarnation
        while self._clock.mono_s() < until_s:
            await asyncio.sleep(_LOOK_S)
            head = await self._log.head()
            if head is not None and head.incarnation != former:
                return True
        return False

    async def _found(self, others_term: int, replacing: Head | None) -> None:
        registry = self._registry
        term = max(registry.position.term, others_term, await self._known_term()) + 1
        appender = Appender(
            self._log,
            writer=self._writer,
            clock=self._clock,
            log_time_ms=registry.log_time_ms,
            version=registry.format,
        )
        if replacing is not None:
            former, replacing = replacing.incarnation, await self._log.head()  # it may have gone on
            if replacing is not None and replacing.incarnation != former:
                raise RefusedError(f"the log was founded at {replacing.cursor} by another replica")
        await found(
            self._log,
            appender,
            registry,
            term=term,
            first_changes=self._first_changes,
            replacing=replacing,
        )
        log.warning(
            "log_restored",
            log=self._log.name,
            incarnation=registry.incarnation,
            term=term,
            records=len(registry),
        )
        self._missing_s = None
        self._founded()


async def found(
    target: Log,
    appender: Appender,
    registry: Registry,
    *,
    term: int,
    first_changes: Callable[[Cursor], Sequence[Change]],
    replacing: Head | None = None,
) -> None:
    """Found a log with a state, which then stands at its first entry.

    Args:
        target: The log.
        appender: An unused one of it.
        registry: The state.
        term: Above every one that is known.
        first_changes: What the first entry, whose cursor is given, changes in the state.
        replacing: The head of the log that is there and gives way.

    Raises:
        RefusedError: Somebody else has founded it.
    """
    incarnation = secrets.token_hex(8)
    changes = first_changes(Cursor(incarnation, Position(term, 0)))
    note = {RESTORED: str(registry.cursor)}
    sealed = appender.first(incarnation, term=term, note=note, changes=changes)
    frozen = registry.frozen_after(sealed)
    if replacing is None:
        # The snapshot first: nobody may find a log that begins with nothing.
        await snapshotter.write(target, frozen)
        await appender.found(sealed)
    else:
        # No snapshot is announced beside the head of another incarnation. Until there is one, the
        # first entry says that readers are to wait for it.
        await appender.found(sealed, replacing=replacing)
        await snapshotter.write(target, frozen)
    registry.apply(sealed)
