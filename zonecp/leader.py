"""What a zone's control plane does while it leads: adopt, copy up, take in grants, beat."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from zonecp.adoption import adopt
from zonecp.canaries import Canaries
from zonecp.deciding import decide
from zonecp.downlink import Downlink
from zonecp.inputs import Begin, Proven, Tick
from zonecp.liveness import Liveness
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh.errors import (
    ForeignLogError,
    RefusedError,
    StaleLogError,
    UnavailableError,
    WireError,
)
from zonemesh.formats import Formats
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Store
from zonemesh.log.presence import Presence, longest
from zonemesh.log.restore import WINDOW_S
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.writer import Writer
from zonemesh.model import START, Position
from zonemesh.runtime.supervise import keep
from zonemesh.settings import Settings
from zonemesh.travel import own_log
from zonemesh.wire import NOWHERE, Sealed

_COMPARE_S = 2.0
"""How long a zone that starts waits to learn whether its log is an old one."""

log = structlog.get_logger()


class ZonePlane:
    """The leader's side of a zone's control plane (`leadership.Plane`)."""

    def __init__(
        self,
        state: ZoneState,
        snapshotter: Snapshotter,
        *,
        clock: Clock,
        settings: Settings,
        heartbeat_s: float,
        cleanup_s: float,
        liveness: Liveness,
        canaries: Canaries,
        store: Store | None,
        downlink: Downlink | None,
        uplink: Callable[[str, bool], Uplink],
        on_committed: Callable[[Sequence[Sealed]], None],
        formats: Formats,
        presence: Presence | None = None,
        known_term: Callable[[], Awaitable[int]],
    ) -> None:
        """`store` and `downlink` are None for a zone without a global; `uplink` takes the UID and
        whether the zone has adopted anew what its own log lacked. `presence`: of other control
        planes of this zone, which may hold its log; `known_term`: the highest term of it that
        anybody has heard of.
        """
        self._state = state
        self._snapshotter = snapshotter
        self._clock = clock
        self._settings = settings
        self._heartbeat_s = heartbeat_s
        self._cleanup_s = cleanup_s
        self._liveness = liveness
        self._canaries = canaries
        self._store = store
        self._downlink = downlink
        self._make_uplink = uplink
        self._on_committed = on_committed
        self._formats = formats
        self._presence = presence
        self._known_term = known_term
        self._founded_h = b""
        self.uplink: Uplink | None = None
        self._stale: StaleLogError | None = None
        """Why what is known elsewhere must be adopted, whatever the own log says."""
        self._stale_term = 0
        self._end = START
        """Where the log ended before this term."""
        self._began: Position | None = None
        """Where it ended before the first one of this process."""
        self.has_led = False
        self.compared = store is None
        """Whether the own log was compared with what was published of it, or that was given up."""
        self.renumbered = 0
        """Services that had to give up their address, since another zone owns it."""

    async def found(self, appender: Appender) -> None:
        term = 1
        if self._presence is not None:
            await self._leave_to_holders(self._presence)
            term = await self._known_term() + 1
        sealed = await appender.create(secrets.token_hex(8), term=term)
        self._founded_h = sealed.h
        log.info("log_created", zone=self._state.zone, incarnation=sealed.entry.incarnation)
        self._apply(sealed)

    async def _leave_to_holders(self, presence: Presence) -> None:
        """Raises UnavailableError: another control plane of this zone holds the missing log."""
        await asyncio.sleep(WINDOW_S)
        best = longest(await presence.others())
        if best is not None and best.place != NOWHERE:
            raise UnavailableError(
                f"the own log of zone {self._state.zone} is missing from its Redis; the control"
                f" plane {best.url or best.writer} holds it up to {best.place.position} and"
                " restores it"
            )

    async def open(self, appender: Appender) -> None:
        self._end = appender.place.position
        if self._began is None:
            self._began = self._end
        self._stale_term = max(self._stale_term, self._end.term)
        if appender.place.h == self._founded_h:
            return  # just founded: that entry opened the term
        self._apply(await appender.open(self._stale_term + 1))

    def writer(self, appender: Appender) -> Writer:
        return Writer(
            appender,
            self._state.registry,
            partial(decide, self._state),
            clock=self._clock,
            on_committed=self._committed,
        )

    async def lead(self, writer: Writer) -> None:
        note = self._state.note
        uid = secrets.token_hex(8) if note is None else note.uid
        alone = self._store is None
        self.has_led = True
        begin = Begin(
            uid,
            self._settings,
            adopted=alone,
            cleanup_ms=round(self._cleanup_s * 1000) or None,
            stale=self._stale is not None,
            foreign=isinstance(self._stale, ForeignLogError),
            end=self._end,
        )
        await writer.submit(begin)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(writer), name="heartbeat")
            group.create_task(keep("snapshots", self._snapshotter.run), name="snapshots")
            if self._store is not None and self._downlink is not None:
                # Also what the last process, or the last leader, had not come to take over.
                adopts = not self._state.adopted
                self.uplink = uplink = self._make_uplink(uid, self._stale is not None or adopts)
                if adopts:
                    await self._adopt(self._store, writer, uplink)
                elif self._stale is None:
                    await self._compare(uplink)
                # Adopted once: what comes after is this zone's own, and newer than any copy.
                self._stale = None
                self.compared = True
                group.create_task(self._copy_up(uplink), name="uplink")
                group.create_task(self._prove(uplink, writer), name="proof")
                downlink = self._downlink
                downlink.look_again()
                group.create_task(keep("downlink", lambda: downlink.run(writer)), name="downlink")
            group.create_task(self._liveness.run(writer), name="liveness")

    async def _adopt(self, store: Store, writer: Writer, uplink: Uplink) -> None:
        began = self._began or START
        try:
            await adopt(store, self._state, writer, began=began, claim=uplink.claim)
        except StaleLogError as error:
            raise self._is_stale(error) from error

    async def _copy_up(self, uplink: Uplink) -> None:
        """Copy up until the own log proves older than the stream: then lead anew and adopt."""
        try:
            await keep("uplink", uplink.run)
        except StaleLogError as error:
            raise self._is_stale(error) from error

    async def _prove(self, uplink: Uplink, writer: Writer) -> None:
        await uplink.opened.wait()
        await writer.submit(Proven())

    async def _compare(self, uplink: Uplink) -> None:
        """Wait a little for what the store says of the own log; without it the zone goes on."""
        try:
            async with asyncio.timeout(_COMPARE_S):
                await uplink.compare()
        except StaleLogError as error:
            raise self._is_stale(error) from error
        except (UnavailableError, WireError, TimeoutError) as error:
            log.info("own_log_not_compared", zone=self._state.zone, error=repr(error))

    def _is_stale(self, error: StaleLogError) -> RefusedError:
        """Lead anew, and adopt."""
        log.warning("own_log_stale", zone=self._state.zone, reason=error.code, error=str(error))
        self._stale = error
        self._stale_term = max(self._stale_term, error.term)
        return RefusedError(f"the own log is stale: {error}")

    async def _beat(self, writer: Writer) -> None:
        while True:
            canary = self._canaries.next(self._clock.wall_ms(), self._clock.mono_s())
            await writer.submit(Tick({"formats": list(self._formats.mine)}, canary))
            await self._hear_formats()
            if writer.raise_format(self._formats.followed(writer.format)):
                log.warning("format_raised", log=own_log(self._state.zone), format=writer.format)
            await asyncio.sleep(self._heartbeat_s)

    async def _hear_formats(self) -> None:
        if self._presence is None:
            return
        try:
            self._formats.heard([each.formats for each in await self._presence.others()])
        except UnavailableError:
            return  # as heard before

    def _apply(self, sealed: Sealed) -> None:
        self._state.registry.apply(sealed)
        self._committed([sealed])

    def _committed(self, entries: Sequence[Sealed]) -> None:
        self._snapshotter.committed(entries)
        for sealed in entries:
            for kind, key, address in sealed.entry.note.get("renumbered", ()):
                self.renumbered += 1
                log.error("vip_renumbered", zone=self._state.zone, kind=kind, key=key, was=address)
        self._on_committed(entries)
