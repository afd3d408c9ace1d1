"""The composition root of zonecp: the only place that makes adapters and ties parts together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from zonecp import metrics as zone_metrics
from zonecp.agent_guard import agent_guard
from zonecp.bootstrap_route import add_bootstrap, read_corefile_template
from zonecp.config import ZoneConfig
from zonecp.explain_route import add_explain
from zonecp.held_route import add_held
from zonecp.leaving import leave
from zonecp.routes import FeedRoute
from zonecp.zone import Zone
from zonemesh import __version__, travel
from zonemesh.errors import ConfigError, DamagedFileError, UnavailableError
from zonemesh.log.clock import Clock
from zonemesh.log.pools import Named
from zonemesh.log.port import Log
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisrights import Role
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import Position
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
    lead_alone,
    run_until,
)
from zonemesh.runtime.supervise import Component
from zonemesh.travel import GLOBAL_LOG

LEAVE_BEATS = 3
"""Heartbeats for which a zone must be silent to be taken for stopped."""
LEAVE_S = 30.0
"""The longest that saying goodbye may take."""

log = structlog.get_logger()


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
            lag_s=zone.ages.lag_s,
            map_lag_s=zone.ages.map_lag_s,
            origin_lags_s=zone.ages.origin_lags_s,
            canaries=zone.canaries,
            mono_s=zone.clock.mono_s,
            degraded=lambda: (zone.readiness.ready() or zone.readiness.stale()) is not None,
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
                "map": lambda: because(zone.readiness.ready(), store),
                "log": lambda: because(zone.readiness.behind(), own_store),
            },
            fresh={"fresh": lambda: because(zone.readiness.stale(), store)},
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
