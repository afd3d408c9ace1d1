"""Following a log: read, check, apply; notice what was lost and resynchronise."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import structlog

from zonemesh.agreement import Agreement
from zonemesh.errors import (
    GapError,
    LogFaultError,
    NewerFormatError,
    NotFoundError,
    StateMismatchError,
    StoreLostError,
    UnavailableError,
    WireError,
)
from zonemesh.freshness import Freshness, paused_ms
from zonemesh.log import snapshotter
from zonemesh.log.clock import Clock
from zonemesh.log.port import Head, Log, Raw, SnapshotInfo
from zonemesh.registry import Registry
from zonemesh.replica import Patience, check_head, follows
from zonemesh.runtime.supervise import check_cancelled
from zonemesh.wire import NOWHERE, Entry, Place, Sealed, check_format, decode

_READ_COUNT = 512
_READ_BLOCK_S = 0.5
"""Bounds how late a stop is noticed; news wakes the read at once."""
_HEAD_EVERY_S = 1.0
"""How often the head is read, idle or busy: within this, loss is noticed and a lag is known."""
_SLICE_CHANGES = 250
"""Changes applied between two turns of the event loop, about 10 ms with what follows from them."""
_MISSING_LOOK_S = 0.2
"""Between two looks for a log that is missing: somebody restores it."""
_BRIDGE_LOOK_S = 0.5
"""Between two looks for a snapshot that leads over a hole: the log's leader is asked for one."""
_HALTED_RETRY_S = 10.0

log = structlog.get_logger()


class _UnbridgedError(UnavailableError):
    """Neither the log's beginning nor a snapshot leads to its head."""


class Healer(Protocol):
    """Whoever can bring back what a store has lost (`restore.Restorer`)."""

    async def restore(self, fault: LogFaultError) -> bool:
        """Whether the log leads on from where the registry stands again."""


class Hold(Protocol):
    """Whoever decides when a state that was loaded anew may be shown."""

    def begin(self, fault: LogFaultError | WireError) -> None:
        """A fault was met; what leads on from it is followed aside."""

    def over(self, fresh: Registry) -> bool:
        """Whether what was followed aside may be shown now."""


class Follower:
    """Keeps a registry in step with a log that somebody else writes.

    The registry is what is shown. After a fault it may be held as it was (`Hold`), while the log is
    followed in another: `newest` is always what was read last.
    """

    def __init__(
        self,
        target: Log,
        registry: Registry,
        *,
        clock: Clock,
        on_entries: Callable[[Sequence[Sealed]], None],
        on_replaced: Callable[[], None] = lambda: None,
        told: Callable[[Mapping[str, Any]], object] = lambda note: note.get("state"),
        healer: Healer | None = None,
        hold: Hold | None = None,
        formats: Collection[int] | None = None,
    ) -> None:
        """`on_entries` is called after entries were applied, `on_replaced` after a resync; the
        registry's indexes hear of single changes, in both cases. `told` is the end of the digest
        that a heartbeat's note says this copy has before that entry, if it says so. `formats` are
        those that are read; None for all that this build knows.
        """
        self._log = target
        self._shown = registry
        self._registry = registry
        self._healer = healer
        self._hold = hold
        self._formats = formats
        self._clock = clock
        self._on_entries = on_entries
        self._on_replaced = on_replaced
        self._told = told
        self.agreement = Agreement()
        self._distrusted: str | None = None
        self._patience = Patience()
        self.missing: str | None = None
        """Why the log is known to be missing; None while it is there."""
        self.unbridged = False
        """Neither the log's beginning nor a snapshot leads to its head: its leader is to make one.
        """
        self._head: Head | None = None
        self._head_s: float | None = None
        self._freshness = Freshness()
        self._shown_s: float | None = None
        """As of when what is shown is while it is held."""
        self.resyncs: Counter[str] = Counter()
        """Resynchronisations by reason (an error's code), and `start`."""
        self.bad_entries = 0
        self.halted: str | None = None
        """Why nothing more is applied until an operator acts; None while all is well."""
        self.newer_format = False
        """That is since the log is written in a format that this build does not read."""

    @property
    def newest(self) -> Registry:
        """The state as read last: another registry than the shown one while that is held."""
        return self._registry

    @property
    def current(self) -> bool:
        """Whether all that the log had when its head was last read has been applied."""
        return self._head is not None and self._head.position <= self._registry.position

    @property
    def reached(self) -> bool:
        """Whether the log's head was read and what leads to it, ever."""
        return self._head is not None

    @property
    def held(self) -> bool:
        """Whether what is shown is held back behind what was read."""
        return self._registry is not self._shown

    @property
    def place(self) -> Place:
        return self._registry.place

    @property
    def lag_s(self) -> float | None:
        """Age of the last applied entry: None until the log was read and something is applied.

        The writer's heartbeats make it small: it grows while they, or the link, or the applying of
        a backlog stand still. See `Freshness`; of a backlog it is at least what the head's time
        and the last applied entry's, both by the writer's clock, are apart.
        """
        now_s = self._clock.mono_s()
        if self.held:
            return None if self._shown_s is None else now_s - self._shown_s
        age_s = self._freshness.age_s(now_s)
        if age_s is None or self._registry.incarnation == "":
            return None
        if self._head is None or self._head_s is None or not self._is_behind(self._head):
            return age_s
        behind_ms = max(0, self._head.time_ms - self._registry.time_ms)
        return max(age_s, behind_ms / 1000 + now_s - self._head_s)

    @property
    def there_s(self) -> float | None:
        """A moment by which the last applied entry had been written; None: nothing is known."""
        return self._freshness.there_s

    def wrote(self, at_s: float) -> None:
        """What is held was written here until now: the newest of it then."""
        self._freshness.written(at_s, self._registry.log_time_ms)

    async def catch_up(self) -> Head | None:
        """Read until the head (as of now) is applied; None if there is no log.

        Raises:
            UnavailableError: The store does not answer, or the log cannot be followed yet, or not
                by this build.
        """
        while True:
            asked_s = self._clock.mono_s()
            head = await self._log.head()
            if head is None and self.place == NOWHERE:
                return None
            try:
                check_head(self.place, None if head is None else head.place, read_nothing=False)
                await self._read_on(block_s=0.0)
                if head is not None and self._registry.position >= head.position:
                    self._note_head(head, asked_s)
                    return head
                if head is not None and not await self._read_on(block_s=0.0):
                    check_head(self.place, head.place, read_nothing=True)
            except NewerFormatError as fault:
                self._stop_at(fault)
                raise UnavailableError(f"log {self._log.name}: {fault}") from fault
            except (LogFaultError, WireError) as fault:
                await self._heal(fault)
                if self.newer_format:
                    raise UnavailableError(f"log {self._log.name}: {self.halted}") from fault

    async def run(self) -> None:
        """Follow for ever.

        Raises:
            UnavailableError: The store does not answer; run again, nothing is lost.
        """
        while True:
            try:
                await self._follow()
            except (LogFaultError, WireError) as fault:
                await self._heal_or_wait(fault)

    async def _heal_or_wait(self, fault: LogFaultError | WireError) -> None:
        try:
            await self._heal(fault)
        except _UnbridgedError as error:
            why = str(error)
        else:
            return
        if self.halted is None:
            log.error("log_halted", log=self._log.name, reason=fault.code, error=why)
        self.halted = f"{fault.code}: {why}"
        # Not to be tried later and later, as what does not answer is: the snapshot comes soon.
        await asyncio.sleep(_BRIDGE_LOOK_S)

    async def _follow(self) -> None:
        while True:
            check_cancelled()  # a client of Redis may have lost it, between two timeouts of its own
            if self._head_s is None or self._clock.mono_s() >= self._head_s + _HEAD_EVERY_S:
                await self._look()
            await self._read_on(block_s=_READ_BLOCK_S)

    async def _look(self) -> None:
        """Read the head, and whether this copy leads to it."""
        asked_s = self._clock.mono_s()
        head = await self._log.head()
        if head is not None and self._is_behind(head):
            self._note_head(head, asked_s)  # before a read that may take long: the lag is known
        read_nothing = not await self._read_on(block_s=0.0)
        if read_nothing or head is None:
            check_head(self.place, None if head is None else head.place, read_nothing=read_nothing)
        if head is not None:
            self._note_head(head, asked_s)

    def _is_behind(self, head: Head) -> bool:
        registry = self._registry
        return head.incarnation == registry.incarnation and head.position > registry.position

    async def _read_on(self, *, block_s: float) -> bool:
        """Read once and apply; True if there was anything."""
        if self._distrusted is not None:
            raise StateMismatchError(self._distrusted)
        asked_s = self._clock.mono_s()
        raws = await self._log.read(self._registry.position, block_s=block_s, count=_READ_COUNT)
        self._know()
        await apply_all(
            self._registry, raws, self._applied, check=self._compare, formats=self._formats
        )
        if not raws:
            # Not as of now: the answer may have waited in a buffer, while this process was stopped.
            self._freshness.read_all(min(asked_s + block_s, self._clock.mono_s()))
        elif len(raws) < _READ_COUNT:
            self._freshness.read_all(asked_s)
        return bool(raws)

    def distrust(self, why: str) -> None:
        """Load the state anew before anything else is read."""
        if self.agreement.found(equal=False, what=why):
            self._distrusted = why
        log.error("state_mismatch", log=self._log.name, error=why, mended=bool(self._distrusted))

    def _compare(self, entry: Entry) -> None:
        told = self._told(entry.note)
        if not isinstance(told, str) or not self._registry.incarnation:
            return
        mine = self._registry.digest
        why = f"before {entry.position} the state is {mine}; its writer says …{told}"
        if mine.endswith(told):
            self.agreement.found(equal=True, what="")
            return
        self.distrust(why)
        if self._distrusted is not None:
            raise StateMismatchError(why)

    def _know(self) -> None:
        """Begin with what wall clocks say: nothing else tells how old a copy from disk is."""
        if not self._freshness.known and self._registry.incarnation:
            wall_s = (self._clock.wall_ms() - self._registry.time_ms) / 1000
            self._freshness.guess(wall_s, self._registry.log_time_ms, self._clock.mono_s())

    def _noted(self, entries: Sequence[Sealed] = ()) -> None:
        self._know()
        self._freshness.applied(
            self._registry.log_time_ms,
            self._clock.mono_s(),
            paused_ms=sum(paused_ms(sealed.entry.note) for sealed in entries),
        )

    def _applied(self, entries: Sequence[Sealed]) -> None:
        self._noted(entries)
        self._patience.progressed()
        self.halted = None
        self.newer_format = False
        if not self.held:
            self._on_entries(entries)
        elif self._hold is None or self._hold.over(self._registry):
            self._show()

    def _show(self) -> None:
        """End a hold: what was followed aside is shown, in one step."""
        fresh, self._registry = self._registry, self._shown
        self._shown.become(fresh)
        self._on_replaced()

    def _note_head(self, head: Head, asked_s: float) -> None:
        """What was read of the store, never what was applied: with a backlog they are not one."""
        self._head = head
        self._head_s = asked_s

    async def _heal(self, fault: LogFaultError | WireError) -> None:
        """Resynchronise; where only another build could read on, wait and say so."""
        try:
            if isinstance(fault, NewerFormatError):
                raise fault
            await self._heal_by_reading(fault)
        except NewerFormatError as newer:
            self._stop_at(newer)
            await asyncio.sleep(_HALTED_RETRY_S)

    async def _heal_by_reading(self, fault: LogFaultError | WireError) -> None:
        """After the same fault three times, wait and say so instead of spinning."""
        if await self._healed(fault):
            self._patience.progressed()
            return
        if isinstance(fault, WireError):
            self.bad_entries += 1
        asked_s = self._clock.mono_s()
        head = await self._log.head()
        if self.place != NOWHERE and self.missing is None and not self.unbridged:
            self._met(fault)
        self.missing = str(fault) if head is None else None
        if head is None:
            await asyncio.sleep(_MISSING_LOOK_S)
            return
        known = fault if isinstance(fault, LogFaultError) else GapError(str(fault))
        if not self._patience.met(known):
            if self.halted is None:
                log.error("log_halted", log=self._log.name, reason=fault.code, error=str(fault))
            self.halted = f"{fault.code}: {fault}"
            await asyncio.sleep(_HALTED_RETRY_S)
        await self._resync(fault, head, asked_s)

    def _stop_at(self, fault: NewerFormatError) -> None:
        """Say once that this build reads no further; what is held stays as it is."""
        if not self.newer_format:
            self.bad_entries += 1
            log.error("log_halted", log=self._log.name, reason=fault.code, error=str(fault))
        self.newer_format = True
        self.halted = f"{fault.code}: {fault}"

    async def _healed(self, fault: LogFaultError | WireError) -> bool:
        if (
            self._healer is None
            or isinstance(fault, (WireError, StateMismatchError))
            or self.place == NOWHERE
        ):
            return False
        return await self._healer.restore(fault)

    def _met(self, fault: LogFaultError | WireError) -> None:
        self.resyncs[fault.code] += 1
        log.warning(
            "log_fault_found",
            log=self._log.name,
            reason=fault.code,
            error=str(fault),
            position=str(self._registry.position),
        )

    async def _resync(self, fault: LogFaultError | WireError, head: Head, asked_s: float) -> None:
        fresh = await load(self._log, self._registry, head, self._formats)
        self.unbridged = fresh is None
        if fresh is None:
            self._patience.progressed()  # nothing was tried that could fail again
            raise _UnbridgedError(
                f"log {self._log.name} has neither its beginning nor a snapshot: {fault}"
            )
        self._note_head(head, asked_s)
        log.info("log_resynced", log=self._log.name, position=str(fresh.position))
        if not self.held:
            lag_s = self.lag_s
            self._shown_s = None if lag_s is None else self._clock.mono_s() - lag_s
        self._registry = fresh
        self._distrusted = None
        self._noted()
        if self._hold is not None:
            self._hold.begin(fault)
        if self._hold is None or self._shown.blank or self._hold.over(fresh):
            self._show()


async def load(
    target: Log, like: Registry, head: Head, formats: Collection[int] | None = None
) -> Registry | None:
    """The state at (or beyond) `head`, from the newest usable snapshot or the log's beginning.

    Answers `like` itself, loaded, if it was blank: a process that starts does everything once.
    Otherwise nothing of it but its filter is used. Either way a failure, or being broken off (a
    standby whose lease came), leaves no half-loaded state.
    None: the log's beginning is trimmed and no snapshot bridges it.

    Raises:
        NewerFormatError: The log goes on in a format that is not among `formats`, or that this
            build does not know.
    """
    check_format(f"log {target.name}", head.format, formats)
    blank = like.blank
    for info in [*await target.snapshots(), None]:
        if info is not None and info.incarnation != head.incarnation:
            continue
        fresh = like if blank else like.empty()
        try:
            await _load_from(target, info, fresh, head, formats)
        except (LogFaultError, WireError, NotFoundError) as fault:
            if blank:
                like.become(like.empty())
            name = "beginning" if info is None else f"snapshot {info.position}"
            log.info("snapshot_unusable", log=target.name, source=name, error=str(fault))
            continue
        except BaseException:
            if blank:
                like.become(like.empty())
            raise
        return fresh
    return None


async def _load_from(
    target: Log,
    info: SnapshotInfo | None,
    fresh: Registry,
    head: Head,
    formats: Collection[int] | None,
) -> None:
    if info is not None:
        await _load_snapshot(target, info, fresh, formats)
    while fresh.position < head.position:
        raws = await target.read(fresh.position)
        if not raws:
            raise GapError(f"nothing after {fresh.position}")
        await apply_all(fresh, raws, lambda _: None, formats=formats)


async def _load_snapshot(
    target: Log, info: SnapshotInfo, into: Registry, formats: Collection[int] | None
) -> None:
    await snapshotter.read(await target.load_snapshot(info), into, formats)
    if into.position != info.position or into.h != info.h:
        raise StoreLostError(f"snapshot {info.position} holds the state at {into.position}")


async def apply_all(
    registry: Registry,
    raws: Sequence[Raw],
    applied: Callable[[Sequence[Sealed]], None],
    *,
    formats: Collection[int] | None = None,
    check: Callable[[Entry], None] = lambda _: None,
) -> None:
    """Check and apply entries in order, giving the event loop a turn between slices.

    Raises:
        LogFaultError: What was read does not follow; everything before it is applied.
        WireError: An entry cannot be read; everything before it is applied.
    """
    done: list[Sealed] = []
    changes = 0
    try:
        for raw in raws:
            place = registry.place
            sealed, chained = decode(raw.data, place.h, formats=formats)
            if not follows(place, sealed, chained=chained):
                continue
            check(sealed.entry)
            if done and paused_ms(sealed.entry.note):
                # What was told before a pause is older than log time says of what is told after it.
                applied(done)
                done, changes = [], 0
            registry.apply(sealed)
            done.append(sealed)
            changes += len(sealed.entry.changes)
            if changes >= _SLICE_CHANGES:
                applied(done)
                done, changes = [], 0
                await asyncio.sleep(0)
    finally:
        if done:
            applied(done)
