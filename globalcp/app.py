"""The composition root of globalcp: the only place that makes adapters and ties parts together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from globalcp import metrics as global_metrics
from globalcp.backend import GlobalBackend
from globalcp.config import GlobalConfig
from globalcp.contenders import Contenders
from globalcp.ingest import Rates
from globalcp.inputs import Begin
from globalcp.leader import GlobalPlane
from globalcp.state import GlobalState
from zonemesh import __version__
from zonemesh.errors import UnavailableError
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper, CopyLog
from zonemesh.log.followed import known_term
from zonemesh.log.follower import Follower
from zonemesh.log.history import History
from zonemesh.log.leadership import Leadership
from zonemesh.log.port import Lease, Store
from zonemesh.log.presence import Presence
from zonemesh.log.redisrights import GLOBAL
from zonemesh.log.restore import Restorer
from zonemesh.log.scrub import scrub
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.sqlite import SqliteLog
from zonemesh.log.tail import Tail
from zonemesh.members import Members
from zonemesh.model import Change, Cursor
from zonemesh.origins import Origins
from zonemesh.recovery import Recovery
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest.addresses import add_addresses
from zonemesh.rest.routes import make_app
from zonemesh.runtime import http, metrics
from zonemesh.runtime.datadir import data_dir
from zonemesh.runtime.plane import (
    advertised,
    because,
    check_redis,
    freeze_as_it_grows,
    global_store,
    run_until,
)
from zonemesh.runtime.supervise import Component
from zonemesh.travel import GLOBAL_LOG
from zonemesh.wire import Sealed, known

log = structlog.get_logger()


class Replica:
    """One global replica, wired; knows nothing of sockets or signals (simulation runs it too)."""

    def __init__(
        self,
        config: GlobalConfig,
        store: Store,
        disk: CopyLog,
        *,
        clock: Clock,
        url: str,
        formats: Collection[int] | None = None,
    ) -> None:
        """`formats` are those of logs that it reads; None for all that this build knows."""
        formats = known() if formats is None else formats
        self.clock = clock
        self._writer_id = secrets.token_hex(8)
        self.state = GlobalState(config.dns_server.naming)
        registry = self.state.registry
        members = Members()
        registry.add_index(members)
        self.target = store.log(GLOBAL_LOG)
        self.origins = Origins(registry)
        self.copy = CopyKeeper(disk, registry, formats=formats)
        self._stale_after_s = config.diagnostics.stale_after
        self.entries = 0
        self.bytes = 0
        self.tail = Tail()
        self.presence = Presence(
            store,
            GLOBAL_LOG,
            self._writer_id,
            url=url,
            place=lambda: registry.place,
            unbridged=lambda: self.follower.unbridged,
            formats=formats,
        )
        self.restorer = Restorer(
            self.target,
            registry,
            History(self.tail, self.copy),
            self.presence,
            writer=self._writer_id,
            clock=clock,
            known_term=partial(known_term, store),
            first_changes=self._begin_recovery,
            founded=self._replaced,
        )
        self.follower = Follower(
            self.target,
            registry,
            clock=clock,
            on_entries=self._applied,
            on_replaced=self._replaced,
            healer=self.restorer,
            formats=formats,
        )
        self.snapshotter = Snapshotter(
            self.target,
            registry,
            entries=config.snapshots.entries,
            size=config.snapshots.bytes,
            on_snapshot=self._snapshot_kept,
        )
        self.plane = GlobalPlane(
            store,
            self.state,
            self.snapshotter,
            clock=clock,
            begin=Begin(
                config.settings,
                skip_mesh=config.defaults.skip_mesh_creation,
                skip_generators=config.defaults.skip_hostname_generators,
            ),
            heartbeat_s=config.heartbeat,
            zone_ages_s=lambda: self.origins.ages_s(clock.mono_s()),
            presence=self.presence,
            on_committed=self._applied,
            readable=formats,
            rates=Rates(
                entries_per_s=config.zones.quota.entries_per_second,
                bytes_per_s=config.zones.quota.bytes_per_second,
            ),
            stream_bytes_max=config.zones.quota.stream_bytes,
        )
        self.leadership = Leadership(
            self.target,
            registry,
            self.follower,
            self.plane,
            lease=Lease(writer=self._writer_id, url=url),
            clock=clock,
        )
        self.contenders = Contenders(store, clock)
        self.backend = GlobalBackend(
            self.state,
            members,
            self.follower,
            lambda: self.leadership,
            settings=config.settings,
            format_held_back_by=lambda: (
                self.plane.format_held_back_by if self.leadership.writer is not None else ()
            ),
            zone_ages_s=lambda: self.origins.ages_s(clock.mono_s()),
            about=self._about,
            contender=self.contenders.of,
        )

    def ready(self) -> str | None:
        """Why this replica should not be asked, or None."""
        if (why := self._unread()) is not None:
            return why
        writer = self.leadership.writer
        if writer is not None:
            blocked_s = writer.blocked_s
            stale = blocked_s > self._stale_after_s
            return f"Redis takes no entry since {blocked_s:.1f} s" if stale else None
        lag_s = self.follower.lag_s
        if lag_s is None:
            return "the end of global's log has not been read yet"
        if lag_s > self._stale_after_s:
            return f"what it has of global's log is {lag_s:.1f} s old"
        return None

    def _unread(self) -> str | None:
        """Why the log is not followed, or could not be led."""
        if self.follower.newer_format:
            return f"cannot read on in global's log: {self.follower.halted}"
        if self.state.registry.incarnation == "":
            return "global's log has not been read yet"
        if self.follower.missing is not None:
            return f"its log is not there: {self.follower.missing}"
        if self.follower.halted is not None:
            return f"stopped following the log: {self.follower.halted}"
        return None

    def _about(self) -> Mapping[str, Any]:
        writer = self.leadership.writer
        return {
            "plane": "global",
            "version": __version__,
            "now_ms": self.clock.wall_ms(),
            "ready": self.ready(),
            "blocked_s": None if writer is None else round(writer.blocked_s, 3),
        }

    def components(self) -> Mapping[str, Component]:
        return {
            "copy": self.copy.run,
            "leadership": self.leadership.run,
            "scrub": lambda: scrub(self.state.registry, self._damaged),
            "presence": self.presence.run,
            "contenders": self.contenders.run,
        }

    async def load_copy(self) -> None:
        """Take up the log where the copy on disk ends: the rest is read from the store.

        Also what is left if the store's log was trimmed beyond its snapshots.
        """
        await self.copy.load()
        self.plane.notice_settings()
        self._date_origins()

    def _begin_recovery(self, first: Cursor) -> Sequence[Change]:
        """A log founded again may lack what a replica that is gone had committed."""
        registry = self.state.registry
        reason = f"global's log was lost, and restored as of {registry.cursor}"
        return [Recovery.founded(first, registry, reason).change()]

    def _applied(self, entries: Sequence[Sealed]) -> None:
        self._date_origins(entries[-1].entry.mono_delta_ms)
        self.entries += len(entries)
        self.bytes += sum(len(sealed.data) for sealed in entries)
        self.copy.applied(entries)
        for sealed in entries:
            self.tail.push(sealed)
        self.plane.notice_settings()
        self.backend.applied()
        if entries[-1].entry.note.get("resign"):
            self.leadership.resignation_seen()

    def _replaced(self) -> None:
        self._date_origins()
        self.copy.replaced()
        self.plane.notice_settings()
        self.backend.applied()

    def _date_origins(self, delta_ms: int = 0) -> None:
        age_s = self.follower.lag_s
        if self.leadership.writer is not None or age_s is None:
            # An entry of our own, however long the store did not take it, or one from disk.
            age_s = max(0, self.clock.wall_ms() - self.state.registry.time_ms) / 1000
        self.origins.date(age_s, self.clock.mono_s(), delta_ms=delta_ms)

    def _damaged(self, parts: str) -> None:
        """Go back to what the log says; as its leader, not before somebody may lead who has it."""
        why = f"records of {parts} are not what was put"
        self.follower.distrust(why)
        if self.leadership.writer is not None:
            self.leadership.writer.depose(why)

    async def _snapshot_kept(self, cursors: Mapping[str, Any]) -> None:
        try:
            await self.plane.trim_up(cursors)
        except UnavailableError as error:
            log.info("trim_postponed", error=str(error))


def rest(replica: Replica, config: GlobalConfig, config_dump: Mapping[str, Any]) -> web.Application:
    """The replica's API."""
    app = make_app(
        replica.backend,
        catalogue=KINDS,
        config_dump=config_dump,
        version=__version__,
        read_only=config.api_server.read_only,
    )
    state = replica.state
    add_addresses(
        app,
        state.registry,
        zone="",
        uid=lambda: "",
        zones=state.uids,
        settings=lambda: state.settings,
    )
    return app


def check(config: GlobalConfig) -> None:
    """Raise ConfigError for what cannot work; connects nothing."""
    global_store(config.redis)


async def run(config: GlobalConfig, config_dump: Mapping[str, Any], stop: asyncio.Event) -> None:
    """Run one global replica until `stop` is set, then resign and leave.

    Raises:
        ConfigError: Something that an operator must change.
    """
    with data_dir(config.data_dir):
        await _run(config, config_dump, stop)


async def _run(config: GlobalConfig, config_dump: Mapping[str, Any], stop: asyncio.Event) -> None:
    clock = Clock()
    registry = metrics.new_registry()
    stall = metrics.LoopStall(registry)
    store = global_store(config.redis)
    disk = SqliteLog(config.data_dir / "global.db", GLOBAL_LOG, durable=False)
    try:
        address = config.api_server.http
        url = advertised(address)
        replica = Replica(config, store, disk, clock=clock, url=url)
        await replica.load_copy()
        global_metrics.register(
            registry,
            state=replica.state,
            follower=replica.follower,
            leadership=replica.leadership,
            snapshotter=replica.snapshotter,
            counts=replica.plane.counts,
            contender=replica.contenders.of,
            committed=lambda: (replica.entries, replica.bytes),
            unreplicated=lambda: store.unreplicated,
            lag_s=replica.backend.own_lag_s,
            zone_lag_s=replica.backend.zone_lag_s,
            ready=replica.ready,
        )
        app = rest(replica, config, config_dump)
        diagnostics = http.make_diagnostics(
            registry, ready={"log": lambda: because(replica.ready(), store)}
        )
        async with (
            http.serving(
                diagnostics,
                config.diagnostics.address,
                config.diagnostics_port,
                name="diagnostics",
            ),
            http.serving(app, address.address, address.port, name="rest"),
        ):
            components = {
                **replica.components(),
                "redis_check": lambda: check_redis(store, GLOBAL),
                "stall": stall.run,
                "heap": lambda: freeze_as_it_grows(replica.state.registry.__len__),
            }
            await run_until(components, stop, replica.leadership)
            await replica.copy.flush()
    finally:
        await disk.close()
        await store.close()
