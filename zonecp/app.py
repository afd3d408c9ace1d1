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
from zonecp.config import ZoneConfig
from zonecp.downlink import Downlink
from zonecp.explain_route import add_explain
from zonecp.explaining import View
from zonecp.feed import Feed
from zonecp.holding import Holding
from zonecp.leader import ZonePlane
from zonecp.liveness import Liveness
from zonecp.revision import Revision
from zonecp.routes import FeedRoute
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh import __version__, travel
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.formats import Formats
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper, CopyLog
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.port import Lease, Log, Store
from zonemesh.log.redis import RedisStore
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.log.sqlite import SqliteLog
from zonemesh.log.tail import Tail
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest.routes import make_app
from zonemesh.runtime import http, metrics
from zonemesh.runtime.datadir import data_dir
from zonemesh.runtime.plane import (
    advertised,
    because,
    check_redis,
    freeze_as_it_grows,
    lead_alone,
    run_until,
)
from zonemesh.runtime.supervise import Component
from zonemesh.travel import GLOBAL_LOG, held_back, kept_by
from zonemesh.vipmap import VipMap
from zonemesh.wire import Sealed, known

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
    ) -> None:
        """`store` is global's and `disk` holds the copy of its log; None for a zone alone.
        `formats` are those of logs that it reads; None for all that this build knows.
        """
        readable = known() if formats is None else tuple(formats)
        self.clock = clock
        self._started_s = clock.mono_s()
        self.url = url
        self.state = ZoneState(
            config.name, federated=store is not None, naming=config.dns_server.naming
        )
        self.copy = Registry(keeps=kept_by(config.name), drops=held_back)
        newest = max(readable)
        self.formats = Formats(readable, lambda: newest if store is None else self.copy.format)
        self.holding = Holding(self.copy, clock)
        self.tail = Tail()
        self._own = own
        self._store = store
        self._copy_loaded = store is None
        self._heartbeat_s = config.heartbeat
        self.entries = 0
        self.bytes = 0
        self.writer_id = secrets.token_hex(8)
        self.vipmap = VipMap(
            config.name,
            self.state.registry,
            self.copy,
            members=self.state.members,
            user_services=self.state.user_services,
            federated=store is not None,
        )
        self.downlink = Downlink(self.state, self.copy)
        self.copy.add_index(self.downlink)
        self.keeper = None if disk is None else CopyKeeper(disk, self.copy)
        self.follower = self._follow_global(store)
        self.feed = Feed(
            self.vipmap,
            lambda: Revision(self.state.registry.cursor, self.copy.cursor),
            uid=lambda: self.state.note.uid if self.state.note else "",
            lag_s=self.lag_s,
            ready=self.ready,
        )
        self.snapshotter = Snapshotter(
            own, self.state.registry, entries=config.snapshots.entries, size=config.snapshots.bytes
        )
        self.own_follower = own_follower = Follower(
            own, self.state.registry, clock=clock, on_entries=self._own_applied, formats=readable
        )
        self.liveness = Liveness(self.state, clock)
        self.state.registry.add_index(self.liveness)
        self.plane = ZonePlane(
            self.state,
            self.snapshotter,
            clock=clock,
            settings=config.settings,
            heartbeat_s=config.heartbeat,
            cleanup_s=config.runtime.universal.dataplane_cleanup_age,
            liveness=self.liveness,
            store=store,
            downlink=self.downlink if store is not None else None,
            uplink=self._uplink,
            on_committed=self._own_applied,
            formats=self.formats,
        )
        self.leadership = Leadership(
            own,
            self.state.registry,
            own_follower,
            self.plane,
            lease=Lease(writer=self.writer_id, url=url),
            clock=clock,
        )
        self.backend = ZoneBackend(
            self.state,
            self.copy,
            self.vipmap,
            lambda: self.leadership,
            lag_s=self.lag_s,
            uplink_refused=self._uplink_refused,
        )

    def lag_s(self) -> float:
        """Age of what is known of other zones; 0 for a zone alone.

        Until global's head was read: that of the copy by the wall clock, as nothing else is there.
        """
        if self.follower is None:
            return 0.0
        lag_s = self.follower.lag_s
        return self._copy_age_s() if lag_s is None else lag_s

    def _uplink_refused(self) -> str | None:
        return None if self.plane.uplink is None else self.plane.uplink.refused

    def _copy_age_s(self) -> float:
        running_s = self.clock.mono_s() - self._started_s
        if self.copy.incarnation == "":
            return running_s
        return max(running_s, (self.clock.wall_ms() - self.copy.time_ms) / 1000)

    def ready(self) -> str | None:
        """Why no map may be served yet, or None: an early map would lack names that exist."""
        if self.own_follower.newer_format:
            return f"cannot read the zone's own log: {self.own_follower.halted}"
        if self.leadership.terms_led == 0:
            return "the zone's own log has not been read yet"
        if not self.state.adopted:
            return "the zone waits for global's copy of what was registered and bound here"
        if not self._copy_loaded and self.follower is not None and self.follower.newer_format:
            return f"cannot read global's log: {self.follower.halted}"
        if not self._copy_loaded:
            return "global's log has not been read yet, and there is no copy of it on disk"
        if not self.feed.begun:
            return "the map of names is being made"
        return None

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
        found: dict[str, Component] = {"feed": self.feed.run, "leadership": self.leadership.run}
        if self.keeper is not None:
            found["copy"] = self.keeper.run
        if self.follower is not None:
            found["downlink"] = self._run_follower
        return found

    async def load_copy(self) -> None:
        """Take up global's log where the copy on disk ends, before anything is reached."""
        if self.keeper is not None and await self.keeper.load():
            self._copy_loaded = True
            log.info("copy_served", age_s=round(self.lag_s(), 3), until="global's log is read")

    def _follow_global(self, store: Store | None) -> Follower | None:
        if store is None:
            return None
        return Follower(
            store.log(GLOBAL_LOG),
            self.copy,
            clock=self.clock,
            on_entries=self._copy_applied,
            on_replaced=self._copy_replaced,
            hold=self.holding,
            formats=self.formats.readable,
        )

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
        assert self.follower is not None
        answering = Answering(self._store, self.state, self.copy, self.follower, self.holding)
        return Uplink(
            self._store,
            self.state,
            self._own,
            self.tail,
            self.follower,
            uid=uid,
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
            self.feed.publish()

    def _map_complete(self) -> bool:
        return self.leadership.terms_led > 0 and self.state.adopted and self._copy_loaded

    def _own_applied(self, entries: Sequence[Sealed]) -> None:
        self.entries += len(entries)
        self.bytes += sum(len(sealed.data) for sealed in entries)
        for sealed in entries:
            self.tail.push(sealed)
        self._publish()
        self.backend.applied()

    def _copy_applied(self, entries: Sequence[Sealed]) -> None:
        if self.keeper is not None:
            self.keeper.applied(entries)
        self._publish()

    def _copy_replaced(self) -> None:
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
        RedisStore(config.redis.url, prefix=config.redis.key_prefix)
    own_log(config)
    read_corefile_template(config.bootstrap_server.template)


async def run(config: ZoneConfig, config_dump: Mapping[str, Any], stop: asyncio.Event) -> None:
    """Run one zone's control plane until `stop` is set.

    Raises:
        ConfigError: Something that an operator must change.
    """
    with data_dir(config.data_dir):
        await _run(config, config_dump, stop)


async def _run(config: ZoneConfig, config_dump: Mapping[str, Any], stop: asyncio.Event) -> None:
    registry = metrics.new_registry()
    stall = metrics.LoopStall(registry)
    store = (
        RedisStore(config.redis.url, prefix=config.redis.key_prefix) if config.redis.url else None
    )
    disk = SqliteLog(config.data_dir / "global.db", GLOBAL_LOG, durable=False)
    own, own_store = own_log(config)
    try:
        address = config.api_server.http
        url = advertised(address)
        zone = Zone(
            config,
            own,
            store=store,
            disk=disk if store is not None else None,
            clock=Clock(),
            url=url,
        )
        if isinstance(own, SqliteLog):
            await lead_alone(own, zone.writer_id)
        await zone.load_copy()
        zone_metrics.register(
            registry,
            zone.state,
            zone.leadership,
            zone.feed,
            follower=zone.follower,
            uplink=lambda: zone.plane.uplink,
            lag_s=zone.lag_s,
            committed=lambda: (zone.entries, zone.bytes),
            renumbered=lambda: zone.plane.renumbered,
        )
        app = rest(zone, config, config_dump)
        diagnostics = http.make_diagnostics(
            registry, ready={"map": lambda: because(zone.ready(), store)}
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
                components["redis_check"] = lambda: check_redis(store)
            await run_until(components, stop, zone.leadership)
            if zone.keeper is not None:
                await zone.keeper.flush()
    finally:
        await disk.close()
        await own.close()
        for each in (store, own_store):
            if each is not None:
                await each.close()


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
    try:
        store = RedisStore(url, prefix=config.redis.key_prefix)
    except ConfigError as error:
        faults = [fault.replace("redis.url:", "log.url:") for fault in error.faults]
        raise ConfigError(faults) from error
    return store.log(name), store
