"""What a global replica does while it leads: open a term, merge zones, beat, snapshot, trim."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from globalcp import copies
from globalcp.deciding import decide
from globalcp.ingest import Counts, Ingest, Rates
from globalcp.inputs import Begin, Doubt, Tick
from globalcp.state import GlobalState
from globalcp.streamcut import STREAM_BYTES_MAX, StreamCutter
from zonemesh import formats
from zonemesh.errors import (
    RefusedError,
    UnavailableError,
    WrongKeyError,
)
from zonemesh.ipam import ipv4_text
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.followed import followed, known_term
from zonemesh.log.port import Store
from zonemesh.log.presence import Presence, longest
from zonemesh.log.restore import WINDOW_S
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.writer import Writer, cursors_note
from zonemesh.model import Change, Cursor, Position, zone_of
from zonemesh.recovery import RECOVERY, Recovery
from zonemesh.runtime.supervise import keep
from zonemesh.seen import Seen
from zonemesh.settings import GLOBAL_KEY, SETTINGS
from zonemesh.travel import GLOBAL_LOG, SEEN, up_log
from zonemesh.wire import NOWHERE, Place, Sealed

log = structlog.get_logger()
_LOOK_S = 0.1
_RECOVER_LOOK_S = 0.5
_BRIDGE_LOOK_S = 2.0
_FORMATS_LOOK_S = 1.0


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
        presence: Presence,
        zone_ages_s: Callable[[], Mapping[str, float]],
        on_committed: Callable[[Sequence[Sealed]], None],
        readable: Collection[int],
        rates: Rates | None = None,
        stream_bytes_max: int = STREAM_BYTES_MAX,
    ) -> None:
        """`readable`: the formats of logs that this build knows."""
        self._store = store
        self._log = store.log(GLOBAL_LOG)
        self._state = state
        self._snapshotter = snapshotter
        self._clock = clock
        self._begin = begin
        self._heartbeat_s = heartbeat_s
        self._rates = rates
        self._cutter = StreamCutter(store, state.registry, stream_bytes_max)
        self._presence = presence
        self._zone_ages_s = zone_ages_s
        self._on_committed = on_committed
        self._formats = tuple(readable)
        self._founded_h = b""
        self._doubt = ""
        self._noticed: bytes | None = None
        self.counts = Counts()
        self.format_held_back_by: tuple[str, ...] = ()
        """Who cannot read the latest format that this leader could write the log in."""

    async def found(self, appender: Appender) -> None:
        """Create the log: empty, or to be filled by those who have followed a lost one."""
        heard = await followed(self._store)
        if heard:
            # Somebody may hold all of it, and is to be given the time to say so.
            await asyncio.sleep(WINDOW_S)
        best = longest(await self._presence.others())
        if best is not None and best.place != NOWHERE:
            raise UnavailableError(
                f"global's log is missing from Redis; the replica {best.url or best.writer} holds"
                f" it up to {best.place.position} and restores it"
            )
        incarnation = secrets.token_hex(8)
        terms = [each.cursor.position.term for each in heard.values()]
        term = max([*terms, await known_term(self._store)]) + 1
        changes: Sequence[Change] = ()
        if heard:
            zone, newest = max(heard.items(), key=lambda each: each[1].cursor.position)
            cursor = newest.cursor
            log.warning("log_lost", followed_by=sorted(heard), up_to=str(cursor.position))
            recovery = Recovery(
                id=str(Cursor(incarnation, Position(term, 0))),
                reason=f"nothing is left of the log that zone {zone} has followed to {cursor}",
                since_ms=0,
                wants=True,
            )
            # Only the newest: what another one knows beyond it has been forgotten since.
            settings = self._begin.settings.remembering(newest.ranges)
            changes = [
                recovery.change(),
                Change(SETTINGS, GLOBAL_KEY, settings.pack()),
            ]
        sealed = await appender.create(incarnation, term=term, changes=changes)
        log.info("log_created", log="global", incarnation=sealed.entry.incarnation)
        self._founded_h = sealed.h
        self._apply(sealed)

    async def open(self, appender: Appender) -> None:
        if appender.place.h == self._founded_h:
            return  # just founded: that entry opened the term
        await self._wait_for_longer(appender.place)
        recovery = Recovery.of(self._state.registry)
        lost = 0 if recovery is None else recovery.above
        self._apply(await appender.open(max(appender.place.position.term, lost) + 1))

    async def _wait_for_longer(self, place: Place) -> None:
        """Let a replica that holds more than the log bring it back, for as long as that may take.

        Raises:
            RefusedError: It did: this term is to begin behind that.
        """
        self._doubt = ""
        until_s = self._clock.mono_s() + WINDOW_S
        while True:
            best = longest(
                each
                for each in await self._presence.others()
                if each.place.incarnation == place.incarnation
                or each.place.position.term > place.position.term
            )
            if best is None or best.place.position <= place.position:
                return
            head = await self._log.head()
            if head is None or head.position != place.position:
                raise RefusedError(f"what follows {place.position} was brought back")
            if self._clock.mono_s() >= until_s:
                self._doubt = f"a replica has applied {best.cursor}, and the log ends before that"
                return
            await asyncio.sleep(_LOOK_S)

    def writer(self, appender: Appender) -> Writer:
        return Writer(
            appender,
            self._state.registry,
            partial(decide, self._state),
            clock=self._clock,
            on_committed=self._committed,
        )

    async def lead(self, writer: Writer) -> None:
        changed = self._state.differs(self._begin.settings)
        await writer.submit(self._begin)
        if changed:
            log.warning("settings_changed", **_told(changed, "was", "now"))
        if self._doubt:
            await writer.submit(Doubt(self._doubt))
        ingest = Ingest(
            self._store,
            self._state,
            writer,
            self._clock,
            rates=self._rates,
            zone_ages_s=self._zone_ages_s,
        )
        ingest.counts = self.counts
        async with asyncio.TaskGroup() as group:
            group.create_task(keep("ingest", ingest.run), name="ingest")
            group.create_task(self._beat(writer, ingest), name="heartbeat")
            group.create_task(keep("streams", self._cutter.run), name="streams")
            group.create_task(keep("snapshots", self._snapshotter.run), name="snapshots")
            group.create_task(keep("recovery", lambda: self._recover(writer)), name="recovery")
            group.create_task(keep("bridging", lambda: self._bridge(ingest)), name="bridging")
            group.create_task(keep("formats", lambda: self._agree(writer)), name="formats")

    async def trim_up(self, cursors: Mapping[str, Cursor]) -> None:
        """Let go of what zones' streams hold before the older snapshot of global."""
        for zone in sorted(await self._store.zones()):
            cursor = cursors.get(up_log(zone))
            try:
                head = await self._store.log(up_log(zone)).head()
                if cursor and head and head.incarnation == cursor.incarnation:
                    await self._store.log(up_log(zone)).trim(cursor.position)
            except WrongKeyError as error:
                log.warning("zone_not_trimmed", zone=zone, error=str(error))

    async def _beat(self, writer: Writer, ingest: Ingest) -> None:
        while True:
            begun_s = self._clock.mono_s()
            registry = self._state.registry
            note = {
                "applied": cursors_note(registry.cursors),
                "formats": list(self._formats),
            }
            await writer.submit(Tick(note, ingest.moved()))
            # At once if the store took it late: it tells of the time before.
            await asyncio.sleep(max(0.0, begun_s + self._heartbeat_s - self._clock.mono_s()))

    def _apply(self, sealed: Sealed) -> None:
        self._state.registry.apply(sealed)
        self._committed([sealed])

    def _committed(self, entries: Sequence[Sealed]) -> None:
        self._snapshotter.committed(entries)
        for sealed in entries:
            for zone, kind, key, why in sealed.entry.note.get("rejected", ()):
                log.warning("record_rejected", zone=zone, kind=kind, key=key, error=why)
            for zone, state, why in sealed.entry.note.get("zones", ()):
                log.warning("zone_state_changed", zone=zone, state=state, why=why)
            for zone, why in sealed.entry.note.get("over_quota", ()):
                log.warning("zone_over_quota", zone=zone, refused=why)
            for zone, pool, first in sealed.entry.note.get("returned", ()):
                log.info("block_handed_back", zone=zone, pool=pool, first=ipv4_text(first))
            if (ranges := sealed.entry.note.get("ranges")) is not None:
                log.warning("former_ranges_learned", **ranges)
            for zone in sealed.entry.note.get("readmitted", ()):
                log.info("zone_asked_again", zone=zone, why="there is room for what was refused")
            _tell_recovery(sealed)
        self._on_committed(entries)

    def notice_settings(self) -> None:
        """Say once if the mesh runs with other settings than this replica would bring."""
        packed = self._state.registry.get(SETTINGS, GLOBAL_KEY)
        if packed is self._noticed:
            return
        self._noticed = packed
        differs = self._state.differs(self._begin.settings)
        if differs:
            log.warning("settings_differ", **_told(differs, "mesh", "configured"))

    async def _bridge(self, ingest: Ingest) -> None:
        """Take a snapshot for readers whom nothing else leads on: the log has a hole."""
        while True:
            await asyncio.sleep(_BRIDGE_LOOK_S)
            stuck = sorted(ingest.unbridged)
            stuck += [each.url for each in await self._presence.others() if each.unbridged]
            ingest.unbridged.clear()
            if stuck:
                log.warning("snapshot_asked_for", log=GLOBAL_LOG, readers=stuck)
                self._snapshotter.ask()

    async def _agree(self, writer: Writer) -> None:
        """Write in a later format once all readers have been able to read it for a while."""
        offered, since_s = writer.format, self._clock.mono_s()
        while True:
            await asyncio.sleep(_FORMATS_LOOK_S)
            verdict = formats.agreed(writer.format, self._formats, await self._readers())
            self.format_held_back_by = verdict.held_back_by
            now_s = self._clock.mono_s()
            if verdict.format != offered:
                offered, since_s = verdict.format, now_s
            if now_s - since_s >= formats.SETTLE_S and writer.raise_format(offered):
                log.warning("format_raised", log=GLOBAL_LOG, format=offered)

    async def _readers(self) -> dict[str, Collection[int]]:
        found: dict[str, Collection[int]] = {
            f"globalcp {each.url or each.writer}": each.formats
            for each in await self._presence.others()
        }
        for key, packed in self._state.registry.table(SEEN).items():
            seen = Seen.unpack(packed)
            if not seen.deleted:
                found[f"zone {zone_of(key)}"] = seen.formats
        return found

    async def _recover(self, writer: Writer) -> None:
        """Take what is lost of global's own part from the newest copy, once all have offered."""
        while True:
            await asyncio.sleep(_RECOVER_LOOK_S)
            registry = self._state.registry
            recovery = Recovery.of(registry)
            if recovery is not None and recovery.above >= registry.position.term:
                writer.depose(f"term {recovery.above} was used in what the log has lost")
            if recovery is None or not recovery.wants:
                continue
            zones = set(await self._store.zones())
            if recovery.held:
                zones |= self._known_zones()
            if recovery.takes_copies(zones, registry.log_time_ms):
                await copies.take(self._store, zones, writer, beyond=recovery.beyond)

    def _known_zones(self) -> set[str]:
        """Those that were not deleted, whether they are there or not."""
        table = self._state.registry.table(SEEN)
        return {zone_of(key) for key, packed in table.items() if not Seen.unpack(packed).deleted}


def _told(changed: Mapping[str, tuple[Any, Any]], former: str, latter: str) -> dict[str, Any]:
    return {name: {former: each[0], latter: each[1]} for name, each in changed.items()}


def _tell_recovery(sealed: Sealed) -> None:
    for kind, _, payload in sealed.entry.changes:
        if kind != RECOVERY:
            continue
        if payload is None:
            _, missing = sealed.entry.note.get("recovered", ("", ()))
            log.warning("recovery_over", not_heard_from=list(missing))
        else:
            recovery = Recovery.unpack(payload)
            if recovery.settles:
                continue
            log.warning(
                "recovering",
                reason=recovery.reason,
                reported=list(recovery.reported),
                takes_copies=recovery.wants and not recovery.held,
                takes_addresses=recovery.wants and bool(recovery.held),
            )
