"""The composition root of zonecp: the only place that makes adapters and ties parts together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from zonecp import metrics as zone_metrics
from zonecp.agent_guard import agent_guard
from zonecp.answering import Answering
from zonecp.backend import ZoneBackend
from zonecp.bootstrap_route import add_bootstrap, read_corefile_template
from zonecp.canaries import Canaries
from zonecp.config import ZoneConfig
from zonecp.downlink import Downlink
from zonecp.explain_route import add_explain
from zonecp.explaining import View
from zonecp.feed import Feed
from zonecp.held_route import add_held
from zonecp.holding import Holding
from zonecp.leader import ZonePlane
from zonecp.leaving import leave
from zonecp.liveness import MOVE_S, Liveness
from zonecp.overquota import OverQuota
from zonecp.ownership import Ownership
from zonecp.ownlog import OwnLog
from zonecp.replicas import Replicas, told
from zonecp.revision import Revision
from zonecp.routes import FeedRoute
from zonecp.shrink import GuardedCopy, Limits
from zonecp.shrinkguard import ShrinkGuard
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh import __version__, travel
from zonemesh.errors import ConfigError, DamagedFileError, UnavailableError
from zonemesh.formats import Formats
from zonemesh.ipam import Binding
from zonemesh.legacybinding import LegacyBindings
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper, CopyLog
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.pools import Named
from zonemesh.log.port import Lease, Log, Store
from zonemesh.log.presence import Presence
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisrights import Role
from zonemesh.log.scrub import scrub
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import Position
from zonemesh.origins import Origins
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest.addresses import add_addresses
from zonemesh.rest.plane import describe_reader
from zonemesh.rest.routes import make_app
from zonemesh.runtime import http, metrics
from zonemesh.runtime.datadir import data_dir
from zonemesh.runtime.plane import (
    advertised,
    because,
    check_redis,
    freeze_as_it_grows,
    global_store,
    lead_alone,
    run_until,
)
from zonemesh.runtime.supervise import Component
from zonemesh.travel import GLOBAL_LOG, held_back, kept_by
from zonemesh.vipmap import VipMap
from zonemesh.wire import Sealed, known

LEAVE_BEATS = 3
"""Heartbeats for which a zone must be silent to be taken for stopped."""
LEAVE_S = 30.0
"""The longest that saying goodbye may take."""

log = structlog.get_logger()


class Zone:
    """One zone's control plane, wired; knows nothing of sockets or signals (simulation runs it)."""

    def __init__(
        self,
        config: ZoneConfig,
        own: Log,
        *,
        store: Store | None,
        disk: CopyLog | None,
        clock: Clock,
        url: str,
        formats: Collection[int] | None = None,
        own_store: Store | None = None,
        own_disk: CopyLog | None = None,
        takeover: bool = False,
    ) -> None:
        """`store` is global's, None for a zone alone; `disk` holds the copy of global's log, for a
        zone alone that of the time when it followed one.

        `own_store` is where `own` is, if other control planes of this zone may share it; `own_disk`
        then holds a copy of it.
        `takeover`: an operator says that this zone is this one's, whoever runs under its name.
        `formats` are those of logs that it reads; None for all that this build knows.
        """
        readable = known() if formats is None else tuple(formats)
        self.clock = clock
        self._started_s = clock.mono_s()
        self.url = url
        self.state = ZoneState(
            config.name, federated=store is not None, naming=config.dns_server.naming
        )
        guard = config.shrink_guard
        self.copy = GuardedCopy(
            config.name,
            limits=Limits(services=guard.services, share=guard.share),
            keeps=kept_by(config.name),
            drops=held_back,
        )
        self.shrink_guard = ShrinkGuard(
            self.copy, patience_s=guard.patience, clock=clock, publish=self._publish
        )
        newest = max(readable)
        self.formats = Formats(readable, lambda: newest if store is None else self.copy.format)
        self.holding = Holding(self.copy, clock)
        self._store = store
        self._copy_loaded = store is None
        self._heartbeat_s = config.heartbeat
        self.entries = 0
        self.bytes = 0
        self.writer_id = secrets.token_hex(8)
        self._ownership = None
        if store is not None:
            self._ownership = Ownership(
                store,
                config.name,
                writer=self.writer_id,
                clock=clock,
                heartbeat_s=config.heartbeat,
                url=url,
                alone=own_store is None,
                takeover=takeover,
            )
        self.vipmap = VipMap(
            config.name,
            self.state.registry,
            self.copy,
            members=self.state.members,
            user_services=self.state.user_services,
            federated=store is not None,
        )
        self.origins = Origins(self.copy)
        self._stale_after_s = config.diagnostics.stale_after
        self._behind_s: float | None = None
        """Since when the map is being brought up to date with more than one turn can do."""
        self.downlink = Downlink(self.state, self.copy)
        self.copy.add_index(self.downlink)
        self.over_quota = OverQuota(config.name)
        self.copy.add_index(self.over_quota)
        self._disk = disk
        self.keeper: CopyKeeper | None = None
        if disk is not None and store is not None:
            self.keeper = CopyKeeper(disk, self.copy, formats=readable)
        self.follower = self._follow_global(store)
        self.feed = Feed(
            self.vipmap,
            lambda: Revision(self.state.registry.cursor, self.copy.cursor),
            uid=lambda: self.state.note.uid if self.state.note else "",
            lag_s=self.map_lag_s,
            ready=self.ready,
            behind=self._shows_less,
        )
        self.snapshotter = Snapshotter(
            own, self.state.registry, entries=config.snapshots.entries, size=config.snapshots.bytes
        )
        self.canaries = Canaries(
            config.name,
            self.state.registry,
            self.copy,
            every_s=0.0 if store is None else config.canary,
        )
        self.liveness = Liveness(self.state, clock, move_s=MOVE_S if own_store is not None else 0.0)
        self.own = OwnLog(
            own,
            self.state,
            presence=self._presence(own_store),
            disk=own_disk,
            store=store,
            writer=self.writer_id,
            clock=clock,
            on_entries=self._own_applied,
            on_replaced=self._own_replaced,
            formats=readable,
        )
        self.state.registry.add_index(self.liveness)
        self.plane = ZonePlane(
            self.state,
            self.snapshotter,
            clock=clock,
            settings=config.settings,
            heartbeat_s=config.heartbeat,
            cleanup_s=config.runtime.universal.dataplane_cleanup_age,
            liveness=self.liveness,
            canaries=self.canaries,
            store=store,
            downlink=self.downlink if store is not None else None,
            uplink=self._uplink,
            on_committed=self._own_applied,
            formats=self.formats,
            presence=self.own.presence,
            known_term=self.own.known_term,
        )
        self.leadership = Leadership(
            own,
            self.state.registry,
            self.own.follower,
            self.plane,
            lease=Lease(writer=self.writer_id, url=url),
            clock=clock,
        )
        self.replicas = None
        if self.own.presence is not None:
            self.replicas = Replicas(
                self.own.presence, self.liveness, leads=lambda: self.leadership.writer is not None
            )
        self.backend = ZoneBackend(
            self.state,
            self.copy,
            self.vipmap,
            lambda: self.leadership,
            lag_s=self.lag_s,
            own_lag_s=self.own_lag_s,
            uplink_refused=self._uplink_refused,
            over_quota=self.over_quota.describe,
            held_back=self.shrink_guard.describe,
            about=self._about,
            unread=self._unread,
            replicas=self.replicas,
        )

    def lag_s(self) -> float:
        """Age of what is known of other zones; 0 for a zone alone.

        Until global's head was read: that of the copy by the wall clock, as nothing else is there.
        """
        if self.follower is None:
            return 0.0
        lag_s = self.follower.lag_s
        return self._copy_age_s() if lag_s is None else lag_s

    def map_lag_s(self) -> float:
        """Age of what the map holds of other zones: every hop on the way here.

        That is the age of global's log here, or of the worst zone that counts as online, and for
        how long the map has not been brought up to date with that.
        """
        behind_s = 0.0
        if self.feed.catching_up and self._behind_s is not None:
            behind_s = self.clock.mono_s() - self._behind_s
        oldest_s = self.origins.oldest_s(self.clock.mono_s(), but=self.state.zone)
        return max(self.lag_s(), oldest_s) + behind_s

    def origin_lags_s(self) -> dict[str, float]:
        """Age of what is known of each other zone, those that are offline included."""
        ages_s = self.origins.ages_s(self.clock.mono_s())
        return {zone: age_s for zone, age_s in ages_s.items() if zone != self.state.zone}

    def stale(self) -> str | None:
        """Why what is served may be out of date, or None. It goes on being served: a zone that is
        cut off is still the best that its agents have.
        """
        if (lag_s := self.lag_s()) > self._stale_after_s:
            return f"what is known of other zones is {lag_s:.1f} s old"
        if self.follower is not None and self.follower.halted is not None:
            return f"stopped following global's log: {self.follower.halted}"
        missing_s = self.canaries.missing_s(self.clock.mono_s())
        if missing_s > self._stale_after_s:
            return f"what is registered here has not come back from global for {missing_s:.1f} s"
        if (map_lag_s := self.map_lag_s()) > self._stale_after_s:
            return f"what the map holds of other zones is {map_lag_s:.1f} s old"
        return None

    def _about(self) -> Mapping[str, Any]:
        writer = self.leadership.writer
        reader = {} if self.follower is None else describe_reader(self.follower)
        return {
            "plane": "zone",
            "version": __version__,
            "now_ms": self.clock.wall_ms(),
            "federated": self._store is not None,
            "ready": self.ready(),
            "stale": self.stale(),
            "map_lag_s": round(self.map_lag_s(), 3),
            "canary_round_trip_s": self.canaries.round_trip_s,
            "blocked_s": None if writer is None else round(writer.blocked_s, 3),
            "renumbered": self.plane.renumbered,
            "subscribers": self.feed.subscribers,
            **reader,
            "zones": self._zones(),
        }

    def _zones(self) -> dict[str, dict[str, Any]]:
        """What global's log says of all zones, as this copy of it has it."""
        now_s = self.clock.mono_s()
        ages_s, canaries_s = self.origins.ages_s(now_s), self.canaries.ages_s(now_s)
        return {
            zone: {
                "online": origin.online,
                "lagSeconds": round(ages_s[zone], 3) if zone in ages_s else None,
                "canarySeconds": round(canaries_s[zone], 3) if zone in canaries_s else None,
                "version": origin.version,
                "url": origin.url,
            }
            for zone, origin in self.origins
        }

    def own_lag_s(self) -> float | None:
        """Age of what is applied of the zone's own log: 0 for its writer; None: not known yet."""
        return 0.0 if self.leadership.writer is not None else self.own.follower.lag_s

    def _presence(self, own_store: Store | None) -> Presence | None:
        if own_store is None:
            return None
        registry = self.state.registry
        return Presence(
            own_store,
            travel.own_log(self.state.zone),
            self.writer_id,
            url=self.url,
            place=lambda: registry.place,
            more=lambda: told(self.liveness),
            formats=self.formats.mine,
        )

    def _uplink_refused(self) -> str | None:
        return None if self.plane.uplink is None else self.plane.uplink.refused

    def _copy_age_s(self) -> float:
        running_s = self.clock.mono_s() - self._started_s
        if self.copy.incarnation == "":
            return running_s
        return max(running_s, (self.clock.wall_ms() - self.copy.time_ms) / 1000)

    def ready(self) -> str | None:
        """Why no map may be served yet, or None: an early map would lack names that exist."""
        if self.own.follower.newer_format:
            return f"cannot read the zone's own log: {self.own.follower.halted}"
        if (why := self._unread() or self._unproven()) is not None:
            return why
        if not self._copy_loaded and self.follower is not None and self.follower.newer_format:
            return f"cannot read global's log: {self.follower.halted}"
        if not self._copy_loaded:
            return "global's log has not been read yet, and there is no copy of it on disk"
        if not self.feed.begun:
            return "the map of names is being made"
        return None

    def _unproven(self) -> str | None:
        """Why the own log may be an old one, or None."""
        alone = self.replicas is None  # nobody else leads: until this one does, nothing is known
        if alone and not self.plane.has_led:
            return "the zone does not lead its own log yet"
        if (alone or self.leadership.writer is not None) and not self.plane.compared:
            return "the zone looks whether its log holds all that it has published to global"
        return None

    def _unread(self) -> str | None:
        """Why some of what was registered here may not be known yet, or None."""
        if (why := self.own.incomplete()) is not None:
            return why
        if not self.state.adopted:
            return "the zone waits for global's copy of what was registered and bound here"
        return None

    def _shows_less(self, wanted: Revision) -> bool:
        """Whether an agent may have been shown more of global's log than is shown here.

        That is if it was shown another history, and what is shown here is of one that has ended
        (`Holding`), off an old disk perhaps. Until global's log was read nobody can tell.
        """
        if self.follower is None or wanted.copy.incarnation in ("", self.copy.incarnation):
            return False
        return self.follower.held or not self.follower.reached

    def behind(self) -> str | None:
        """Why others should be asked instead, though what is here is sound; None if not."""
        if self.replicas is None or self.leadership.writer is not None:
            return None
        return self.own.behind()

    def view(self) -> View:
        """What questions about names are answered from."""
        return View(
            vipmap=self.vipmap,
            own=self.state.registry,
            copy=self.copy,
            shortages=self.state.shortages,
            mesh_exists=self.backend.mesh_exists,
            lag_s=self.lag_s,
            ready=self.ready,
        )

    def components(self) -> Mapping[str, Component]:
        found: dict[str, Component] = {
            **self.own.components(),
            "feed": self.feed.run,
            "leadership": self.leadership.run,
            "scrub": lambda: scrub(self.state.registry, self._own_damaged),
            "scrub_copy": lambda: scrub(self.copy, self._copy_damaged),
        }
        if self.keeper is not None:
            found["copy"] = self.keeper.run
        if self.follower is not None:
            found["downlink"] = self._run_follower
            found["shrink_guard"] = self.shrink_guard.run
        if self.replicas is not None:
            found["replicas"] = self.replicas.run
        return found

    async def load_copy(self) -> None:
        """Take up logs where their copies on disk end, before anything is reached."""
        await self.own.load()
        if self.keeper is not None and await self.keeper.load():
            self._copy_loaded = True
            self.origins.date(self.lag_s(), self.clock.mono_s())
            log.info("copy_served", age_s=round(self.lag_s(), 3), until="global's log is read")
        if self.state.legacy is not None and self._disk is not None:
            await self._remember_names(self.state.legacy, self._disk)

    async def _remember_names(self, legacy: LegacyBindings, disk: CopyLog) -> None:
        """Where legacy names were while this zone followed a global: they are to stay there."""
        former = Registry(keeps=lambda kind, _: kind == LEGACY_VIP)
        if not await CopyKeeper(disk, former).load():
            return

        def remembered(key: str) -> int | None:
            packed = former.get(LEGACY_VIP, key)
            return None if packed is None else Binding.unpack(packed).address

        legacy.remembered = remembered

    def _follow_global(self, store: Store | None) -> Follower | None:
        if store is None:
            return None
        return Follower(
            store.log(GLOBAL_LOG),
            self.copy,
            clock=self.clock,
            on_entries=self._copy_applied,
            on_replaced=self._copy_replaced,
            told=self._told,
            hold=self.holding,
            formats=self.formats.readable,
        )

    def _told(self, note: Mapping[str, Any]) -> object:
        states = note.get("states")
        return states.get(self.state.zone) if isinstance(states, dict) else None

    def _own_damaged(self, parts: str) -> None:
        why = f"records of {parts} are not what was put"
        self.own.follower.distrust(why)
        if self.leadership.writer is not None:
            self.leadership.writer.depose(why)

    def _copy_damaged(self, parts: str) -> None:
        if self.follower is not None:
            self.follower.distrust(f"records of {parts} are not what was put")

    async def _run_follower(self) -> None:
        assert self.follower is not None
        if not self._copy_loaded:
            if await self.follower.catch_up() is None:
                raise UnavailableError("global's log does not exist yet: no globalcp has led")
            self._copy_loaded = True
            self._publish()
        await self.follower.run()

    def _uplink(self, uid: str, adopted_anew: bool) -> Uplink:  # noqa: FBT001 -- a callback
        assert self._store is not None
        assert self._ownership is not None
        assert self.follower is not None
        answering = Answering(self._store, self.state, self.copy, self.follower, self.holding)
        return Uplink(
            self._store,
            self.state,
            self.own.log,
            self.own.tail,
            self.follower,
            uid=uid,
            ownership=self._ownership,
            writer=self.writer_id,
            clock=self.clock,
            heartbeat_s=self._heartbeat_s,
            adopted_anew=adopted_anew,
            formats=self.formats,
            answers=answering.notes,
            describe=lambda: {
                "url": self.url,
                "version": __version__,
                "lag_ms": round(self.lag_s() * 1000),
            },
        )

    def _publish(self) -> None:
        # While logs are loaded nobody may read, and each step would be made over again by the next.
        if self._map_complete():
            if not self.feed.catching_up:
                self._behind_s = self.clock.mono_s()
            self.feed.publish()
            if not self.feed.catching_up:
                now_s = self.clock.mono_s()
                self.canaries.passed(self.origins.ages_s(now_s), now_s)

    async def flush(self) -> None:
        """Write what copies on disk lack yet."""
        await self.own.flush()
        if self.keeper is not None:
            await self.keeper.flush()

    def _map_complete(self) -> bool:
        return self.own.incomplete() is None and self.state.adopted and self._copy_loaded

    def _own_applied(self, entries: Sequence[Sealed]) -> None:
        self.own.applied(entries, led=self.leadership.terms_led > 0)
        self.entries += len(entries)
        self.bytes += sum(len(sealed.data) for sealed in entries)
        self._publish()
        self.backend.applied()
        if entries[-1].entry.note.get("resign"):
            self.leadership.resignation_seen()

    def _own_replaced(self) -> None:
        self._publish()
        self.backend.applied()

    def _copy_applied(self, entries: Sequence[Sealed]) -> None:
        delta_ms = entries[-1].entry.mono_delta_ms
        self.origins.date(self.lag_s(), self.clock.mono_s(), delta_ms=delta_ms)
        if self.keeper is not None:
            self.keeper.applied(entries)
        self._publish()

    def _copy_replaced(self) -> None:
        self.origins.date(self.lag_s(), self.clock.mono_s())
        if self.keeper is not None:
            self.keeper.replaced()
        self._publish()


def rest(zone: Zone, config: ZoneConfig, config_dump: Mapping[str, Any]) -> web.Application:
    """The zone's API."""
    app = make_app(
        zone.backend,
        catalogue=KINDS,
        config_dump=config_dump,
        version=__version__,
        read_only=config.api_server.read_only,
        origin_required=not config.multizone.zone.disable_origin_label_validation,
    )
    FeedRoute(
        feed=zone.feed,
        liveness=zone.liveness,
        zone=zone.state.zone,
        registry=zone.state.registry,
        mesh_exists=zone.backend.mesh_exists,
    ).add_to(app)
    app.middlewares.append(agent_guard(config.name, zone.liveness.holding))
    add_explain(app, zone.view())
    add_held(app, zone.shrink_guard)
    state = zone.state
    add_addresses(
        app,
        state.registry,
        zone=state.zone,
        uid=lambda: "" if state.note is None else state.note.uid,
        zones=dict,
        settings=lambda: state.settings,
    )
    add_bootstrap(
        app,
        corefile_template=read_corefile_template(config.bootstrap_server.template),
        settings=lambda: zone.state.settings,
        mesh_exists=zone.backend.mesh_exists,
    )
    return app


def check(config: ZoneConfig) -> None:
    """Raise ConfigError for what cannot work; connects nothing."""
    if config.redis.url:
        global_store(config.redis)
    own_log(config)
    read_corefile_template(config.bootstrap_server.template)


async def run(
    config: ZoneConfig,
    config_dump: Mapping[str, Any],
    stop: asyncio.Event,
    *,
    takeover: bool = False,
) -> None:
    """Run one zone's control plane until `stop` is set; `takeover` as for `Zone`.

    Raises:
        ConfigError: Something that an operator must change.
    """
    with data_dir(config.data_dir):
        await _run(config, config_dump, stop, takeover=takeover)


async def _run(
    config: ZoneConfig, config_dump: Mapping[str, Any], stop: asyncio.Event, *, takeover: bool
) -> None:
    registry = metrics.new_registry()
    stall = metrics.LoopStall(registry)
    store = global_store(config.redis) if config.redis.url else None
    disk = SqliteLog(config.data_dir / "global.db", GLOBAL_LOG, durable=False)
    own, own_store = own_log(config)
    own_disk = SqliteLog(config.data_dir / "own-copy.db", own.name, durable=False)
    try:
        address = config.api_server.http
        url = advertised(address)
        zone = Zone(
            config,
            own,
            store=store,
            disk=disk,
            clock=Clock(),
            url=url,
            own_store=own_store,
            own_disk=own_disk if own_store is not None else None,
            takeover=takeover,
        )
        if isinstance(own, SqliteLog):
            await lead_alone(own, zone.writer_id)
        await _load(zone, own, federated=store is not None)
        zone_metrics.register(
            registry,
            zone.state,
            zone.leadership,
            zone.feed,
            follower=zone.follower,
            own_follower=zone.own.follower,
            own_lag_s=None if own_store is None else zone.own_lag_s,
            uplink=lambda: zone.plane.uplink,
            lag_s=zone.lag_s,
            map_lag_s=zone.map_lag_s,
            origin_lags_s=zone.origin_lags_s,
            canaries=zone.canaries,
            mono_s=zone.clock.mono_s,
            degraded=lambda: (zone.ready() or zone.stale()) is not None,
            committed=lambda: (zone.entries, zone.bytes),
            unreplicated=lambda: 0 if store is None else store.unreplicated,
            renumbered=lambda: zone.plane.renumbered,
            over_quota=lambda: zone.over_quota.refused,
            holding=lambda: zone.shrink_guard.holding,
        )
        app = rest(zone, config, config_dump)
        diagnostics = http.make_diagnostics(
            registry,
            ready={
                "map": lambda: because(zone.ready(), store),
                "log": lambda: because(zone.behind(), own_store),
            },
            fresh={"fresh": lambda: because(zone.stale(), store)},
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
            components: dict[str, Component] = {
                **zone.components(),
                "stall": stall.run,
                "heap": lambda: freeze_as_it_grows(
                    lambda: len(zone.state.registry) + len(zone.copy)
                ),
            }
            if store is not None:
                components["redis_check"] = lambda: check_redis(store, Role(config.name))
            if own_store is not None:
                role = Role(config.name, own_log=True)
                components["own_redis_check"] = lambda: check_redis(own_store, role)
            await run_until(components, stop, zone.leadership)
            await zone.flush()
    finally:
        await disk.close()
        await own_disk.close()
        await own.close()
        for each in (store, own_store):
            if each is not None:
                await each.close()


async def _load(zone: Zone, own: Log, *, federated: bool) -> None:
    """Load what is on disk; a damaged own log is set aside where others hold what was in it.

    Raises:
        ConfigError: Nobody does.
    """
    try:
        await zone.load_copy()
    except DamagedFileError as error:
        if not federated:
            advice = "restore it from a backup, or move the file away to begin with nothing"
            raise ConfigError([f"{error}; only this zone has what was in it: {advice}"]) from error
        why = str(error)
    else:
        return
    assert isinstance(own, SqliteLog)
    aside = await own.set_aside()
    log.error(
        "own_log_damaged",
        log=own.name,
        error=why,
        kept_as=str(aside),
        next="the zone adopts what global holds of it",
    )
    await zone.load_copy()


async def say_goodbye(config: ZoneConfig) -> Position:
    """Tell global that this zone, of which nothing runs any more, is gone for good.

    Raises:
        ConfigError: It runs, or follows no global.
        UnavailableError: Global's Redis does not answer.
    """
    if not config.redis.url:
        raise ConfigError(["redis.url: not set: this zone follows no global that it could leave"])
    store = global_store(config.redis)
    try:
        async with asyncio.timeout(LEAVE_S):
            watch_s = LEAVE_BEATS * config.heartbeat
            return await leave(store, config.name, Clock(), watch_s=watch_s)
    except TimeoutError as error:
        raise UnavailableError("global's Redis has not taken it in time; try again") from error
    finally:
        await store.close()


def own_log(config: ZoneConfig) -> tuple[Log, RedisStore | None]:
    """The zone's own log: a file unless `log.url` names a Redis; connects and opens nothing."""
    name = travel.own_log(config.name)
    url = config.log.url
    if not url:
        return SqliteLog(config.data_dir / "own.db", name), None
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:///")
        if path in ("", url):
            raise ConfigError([f"log.url: {url!r} names no file: sqlite:///<path>"])
        return SqliteLog(Path(path), name), None
    store = RedisStore(
        url,
        prefix=config.redis.key_prefix,
        password_path=config.log.password_path,
        named=Named("log.url", "log.passwordPath"),
    )
    return store.log(name), store
