"""One zone's control plane: what it is made of, and who is told when a log has moved on."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import structlog

from zonecp.ages import Ages
from zonecp.answering import Answering
from zonecp.backend import ZoneBackend
from zonecp.canaries import Canaries
from zonecp.config import ZoneConfig
from zonecp.downlink import Downlink
from zonecp.explaining import View
from zonecp.feed import Feed
from zonecp.holding import Holding
from zonecp.leader import ZonePlane
from zonecp.liveness import MOVE_S, Liveness
from zonecp.overquota import OverQuota
from zonecp.ownership import Ownership
from zonecp.ownlog import OwnLog
from zonecp.readiness import Readiness
from zonecp.replicas import Replicas, told
from zonecp.revision import Revision
from zonecp.shrink import GuardedCopy, Limits
from zonecp.shrinkguard import ShrinkGuard
from zonecp.state import ZoneState
from zonecp.uplink import Uplink
from zonemesh import __version__, travel
from zonemesh.errors import UnavailableError
from zonemesh.formats import Formats
from zonemesh.ipam import Binding
from zonemesh.legacybinding import LegacyBindings
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper, CopyLog
from zonemesh.log.follower import Follower
from zonemesh.log.leadership import Leadership
from zonemesh.log.port import Lease, Log, Store
from zonemesh.log.presence import Presence
from zonemesh.log.scrub import scrub
from zonemesh.log.snapshotter import Snapshotter
from zonemesh.origins import Origins
from zonemesh.registry import Registry
from zonemesh.rest.plane import describe_reader
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
        self.downlink = Downlink(self.state, self.copy)
        self.copy.add_index(self.downlink)
        self.over_quota = OverQuota(config.name)
        self.copy.add_index(self.over_quota)
        self._disk = disk
        self.keeper: CopyKeeper | None = None
        if disk is not None and store is not None:
            self.keeper = CopyKeeper(disk, self.copy, formats=readable)
        self.follower = self._follow_global(store)
        self.ages = Ages(
            config.name,
            self.copy,
            self.follower,
            self.origins,
            clock,
            catching_up=lambda: self.feed.catching_up,
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
        self.readiness = Readiness(
            self.state,
            self.own,
            self.copy,
            self.follower,
            plane=self.plane,
            leadership=self.leadership,
            replicas=self.replicas,
            ages=self.ages,
            canaries=self.canaries,
            clock=clock,
            stale_after_s=config.diagnostics.stale_after,
            map_made=lambda: self.feed.begun,
        )
        self.feed = Feed(
            self.vipmap,
            lambda: Revision(self.state.registry.cursor, self.copy.cursor),
            uid=lambda: self.state.note.uid if self.state.note else "",
            lag_s=self.ages.map_lag_s,
            ready=self.readiness.ready,
            behind=self.readiness.shows_less,
        )
        self.backend = ZoneBackend(
            self.state,
            self.copy,
            self.vipmap,
            lambda: self.leadership,
            lag_s=self.ages.lag_s,
            own_lag_s=self.own_lag_s,
            uplink_refused=self._uplink_refused,
            over_quota=self.over_quota.describe,
            held_back=self.shrink_guard.describe,
            about=self._about,
            unread=self.readiness.unread,
            replicas=self.replicas,
        )

    def _about(self) -> Mapping[str, Any]:
        writer = self.leadership.writer
        reader = {} if self.follower is None else describe_reader(self.follower)
        return {
            "plane": "zone",
            "version": __version__,
            "now_ms": self.clock.wall_ms(),
            "federated": self._store is not None,
            "ready": self.readiness.ready(),
            "stale": self.readiness.stale(),
            "map_lag_s": round(self.ages.map_lag_s(), 3),
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

    def view(self) -> View:
        """What questions about names are answered from."""
        return View(
            vipmap=self.vipmap,
            own=self.state.registry,
            copy=self.copy,
            shortages=self.state.shortages,
            mesh_exists=self.backend.mesh_exists,
            lag_s=self.ages.lag_s,
            ready=self.readiness.ready,
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
            self.readiness.copy_loaded = True
            self.origins.date(self.ages.lag_s(), self.clock.mono_s())
            log.info("copy_served", age_s=round(self.ages.lag_s(), 3), until="global's log is read")
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
        if not self.readiness.copy_loaded:
            if await self.follower.catch_up() is None:
                raise UnavailableError("global's log does not exist yet: no globalcp has led")
            self.readiness.copy_loaded = True
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
                "lag_ms": round(self.ages.lag_s() * 1000),
            },
        )

    def _publish(self) -> None:
        # While logs are loaded nobody may read, and each step would be made over again by the next.
        if self.readiness.complete():
            self.ages.news()
            self.feed.publish()
            if not self.feed.catching_up:
                now_s = self.clock.mono_s()
                self.canaries.passed(self.origins.ages_s(now_s), now_s)

    async def flush(self) -> None:
        """Write what copies on disk lack yet."""
        await self.own.flush()
        if self.keeper is not None:
            await self.keeper.flush()

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
        self.origins.date(self.ages.lag_s(), self.clock.mono_s(), delta_ms=delta_ms)
        if self.keeper is not None:
            self.keeper.applied(entries)
        self._publish()

    def _copy_replaced(self) -> None:
        self.origins.date(self.ages.lag_s(), self.clock.mono_s())
        if self.keeper is not None:
            self.keeper.replaced()
        self._publish()
