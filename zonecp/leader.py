"""What a zone's control plane does while it leads: adopt, copy up, take in grants, beat."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import structlog

from zonecp.adoption import adopt
from zonecp.downlink import Downlink
from zonecp.inputs import Begin, Tick
from zonecp.liveness import Liveness
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh.errors import RefusedError, StaleLogError
from zonemesh.formats import Formats
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Store
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.writer import Writer
from zonemesh.model import Position
from zonemesh.runtime.supervise import keep
from zonemesh.settings import Settings
from zonemesh.travel import own_log
from zonemesh.wire import Sealed

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
        store: Store | None,
        downlink: Downlink | None,
        uplink: Callable[[str, bool], Uplink],
        on_committed: Callable[[Sequence[Sealed]], None],
        formats: Formats,
    ) -> None:
        """`store` and `downlink` are None for a zone without a global; `uplink` takes the UID and
        whether the zone has adopted anew what its own log lacked.
        """
        self._state = state
        self._snapshotter = snapshotter
        self._clock = clock
        self._settings = settings
        self._heartbeat_s = heartbeat_s
        self._cleanup_s = cleanup_s
        self._liveness = liveness
        self._store = store
        self._downlink = downlink
        self._make_uplink = uplink
        self._on_committed = on_committed
        self._formats = formats
        self.uplink: Uplink | None = None
        self._stale = False
        self._stale_term = 0
        self.renumbered = 0
        """Services that had to give up their address, since another zone owns it."""

    async def found(self, appender: Appender) -> None:
        sealed = await appender.create(secrets.token_hex(8), term=1)
        log.info("log_created", zone=self._state.zone, incarnation=sealed.entry.incarnation)
        self._apply(sealed)

    async def open(self, appender: Appender) -> None:
        self._stale_term = max(self._stale_term, appender.place.position.term)
        if appender.place.position == Position(1, 0) and self._state.registry.h == appender.place.h:
            return
        self._apply(await appender.open(self._stale_term + 1))

    def writer(self, appender: Appender) -> Writer:
        return Writer(
            appender,
            self._state.registry,
            self._state.decide,
            clock=self._clock,
            on_committed=self._committed,
        )

    async def lead(self, writer: Writer) -> None:
        note = self._state.note
        uid = secrets.token_hex(8) if note is None else note.uid
        alone = self._store is None
        begin = Begin(
            uid,
            self._settings,
            adopted=alone,
            cleanup_ms=round(self._cleanup_s * 1000) or None,
            stale=self._stale,
        )
        await writer.submit(begin)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(writer), name="heartbeat")
            group.create_task(keep("snapshots", self._snapshotter.run), name="snapshots")
            if self._store is not None and self._downlink is not None:
                self.uplink = uplink = self._make_uplink(uid, self._stale)
                if not self._state.adopted:
                    await adopt(
                        self._store, self._state, writer, claim=uplink.claim, stale=self._stale
                    )
                # Adopted once: what comes after is this zone's own, and newer than any copy.
                self._stale = False
                group.create_task(self._copy_up(uplink), name="uplink")
                downlink = self._downlink
                downlink.look_again()
                group.create_task(keep("downlink", lambda: downlink.run(writer)), name="downlink")
            group.create_task(self._liveness.run(writer), name="liveness")

    async def _copy_up(self, uplink: Uplink) -> None:
        """Copy up until the own log proves older than the stream: then lead anew and adopt."""
        try:
            await keep("uplink", uplink.run)
        except StaleLogError as error:
            log.warning("own_log_stale", zone=self._state.zone, error=str(error))
            self._stale = True
            self._stale_term = max(self._stale_term, error.term)
            raise RefusedError(f"the own log is stale: {error}") from error

    async def _beat(self, writer: Writer) -> None:
        while True:
            note = {"hash": self._state.registry.digest, "formats": list(self._formats.readable)}
            await writer.submit(Tick(note))
            if writer.raise_format(self._formats.followed(writer.format)):
                log.warning("format_raised", log=own_log(self._state.zone), format=writer.format)
            await asyncio.sleep(self._heartbeat_s)

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
