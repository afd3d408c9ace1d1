"""What a global replica does while it leads: open a term, merge zones, beat, snapshot, trim."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from globalcp.ingest import Counts, Ingest
from globalcp.inputs import Begin, Tick
from globalcp.state import GlobalState
from zonemesh.errors import ConfigError, UnavailableError, WireError, WrongKeyError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Store
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.writer import Writer, cursors_note
from zonemesh.model import Cursor, Position
from zonemesh.runtime.supervise import keep
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings
from zonemesh.travel import up_log
from zonemesh.wire import FORMAT, NO_HASH, Sealed, decode

log = structlog.get_logger()
_INCARNATION_MAX = 100


class GlobalPlane:
    """The leader's side of a global replica (`leadership.Plane`)."""

    def __init__(
        self,
        store: Store,
        state: GlobalState,
        snapshotter: Snapshotter,
        *,
        clock: Clock,
        begin: Begin,
        heartbeat_s: float,
        knows_mesh: Callable[[], bool],
        zone_ages_s: Callable[[], Mapping[str, float]],
        on_committed: Callable[[Sequence[Sealed]], None],
    ) -> None:
        """`knows_mesh`: whether this replica has ever held a copy of this mesh's log."""
        self._store = store
        self._state = state
        self._snapshotter = snapshotter
        self._clock = clock
        self._begin = begin
        self._heartbeat_s = heartbeat_s
        self._knows_mesh = knows_mesh
        self._zone_ages_s = zone_ages_s
        self._on_committed = on_committed
        self.counts = Counts()

    async def found(self, appender: Appender) -> None:
        """Create the log, if nobody anywhere has ever seen it."""
        if self._knows_mesh():
            raise UnavailableError(
                "global's log is missing from Redis, and this replica holds a copy of it: it is not"
                " created anew, since that would forget every address; restore Redis from a backup"
                " or a replica"
            )
        for zone in sorted(await self._store.zones()):
            seen = await self._incarnation_seen_by(zone)
            if seen is not None:
                raise UnavailableError(
                    f"global's log is missing from Redis, and zone {zone} has followed its"
                    f" incarnation {seen}: it is not created anew; restore Redis, or start the"
                    " replica that holds a copy"
                )
        sealed = await appender.create(secrets.token_hex(8), term=1)
        log.info("log_created", log="global", incarnation=sealed.entry.incarnation)
        self._apply(sealed)

    async def open(self, appender: Appender) -> None:
        self._check_settings(self._begin.settings)
        if appender.place.position == Position(1, 0) and self._state.registry.h == appender.place.h:
            return  # just founded: that entry opened the term
        self._apply(await appender.open(appender.place.position.term + 1))

    def writer(self, appender: Appender) -> Writer:
        return Writer(
            appender,
            self._state.registry,
            self._state.decide,
            clock=self._clock,
            on_committed=self._committed,
        )

    async def lead(self, writer: Writer) -> None:
        await writer.submit(self._begin)
        ingest = Ingest(
            self._store, self._state, writer, self._clock, zone_ages_s=self._zone_ages_s
        )
        ingest.counts = self.counts
        async with asyncio.TaskGroup() as group:
            group.create_task(keep("ingest", ingest.run), name="ingest")
            group.create_task(self._beat(writer, ingest), name="heartbeat")
            group.create_task(keep("snapshots", self._snapshotter.run), name="snapshots")

    async def trim_up(self, cursors: Mapping[str, Cursor]) -> None:
        """Let go of what zones' streams hold before the older snapshot of global."""
        for zone in await self._store.zones():
            cursor = cursors.get(up_log(zone))
            try:
                head = await self._store.log(up_log(zone)).head()
                if cursor and head and head.incarnation == cursor.incarnation:
                    await self._store.log(up_log(zone)).trim(cursor.position)
            except WrongKeyError as error:
                log.warning("zone_not_trimmed", zone=zone, error=str(error))

    async def _beat(self, writer: Writer, ingest: Ingest) -> None:
        while True:
            registry = self._state.registry
            note = {
                "applied": cursors_note(registry.cursors),
                "formats": [FORMAT],
            }
            await writer.submit(Tick(note, ingest.moved()))
            await asyncio.sleep(self._heartbeat_s)

    def _apply(self, sealed: Sealed) -> None:
        self._state.registry.apply(sealed)
        self._committed([sealed])

    def _committed(self, entries: Sequence[Sealed]) -> None:
        self._snapshotter.committed(entries)
        for sealed in entries:
            for zone, kind, key, why in sealed.entry.note.get("rejected", ()):
                log.warning("record_rejected", zone=zone, kind=kind, key=key, error=why)
        self._on_committed(entries)

    def _check_settings(self, wanted: Settings) -> None:
        faults = self.settings_faults(wanted)
        if faults:
            raise ConfigError(faults)

    def settings_faults(self, wanted: Settings | None = None) -> list[str]:
        """Pools are replicated: a replica with others must not decide by them in silence."""
        wanted = wanted or self._begin.settings
        packed = self._state.registry.get(SETTINGS, GLOBAL_KEY)
        if packed is None:
            return []
        held = Settings.unpack(packed)
        return [
            f"ipam pool {name}: configured {', '.join(wanted.pools.get(name, ()))}, but this mesh"
            f" runs with {', '.join(cidrs)}; addresses are bound in it: set it back"
            for name, cidrs in held.pools.items()
            if wanted.pools.get(name) != cidrs
        ]

    async def _incarnation_seen_by(self, zone: str) -> str | None:
        """Global's incarnation that a zone's newest entry says it follows, if it can be read."""
        up = self._store.log(up_log(zone))
        try:
            head = await up.head()
            raws = () if head is None else await up.read(head.position.before(), count=1)
            for raw in raws:
                sealed, _ = decode(raw.data, NO_HASH)
                return _followed(sealed.entry.note)
        except (WireError, WrongKeyError) as error:
            log.warning("zone_stream_unreadable", zone=zone, error=str(error))
        return None


def _followed(note: Mapping[str, Any]) -> str | None:
    """Global's incarnation by a zone's heartbeat, whose note may have any shape."""
    match note.get("applied"):
        case {"global": [str(incarnation), *_]} if 0 < len(incarnation) <= _INCARNATION_MAX:
            return incarnation
        case _:
            return None
