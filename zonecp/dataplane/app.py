"""The composition root of the agent: the only place that makes its parts and ties them together."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from zonecp.dataplane import diagnostics
from zonecp.dataplane.config import Config
from zonecp.dataplane.coredns.front import Front
from zonecp.dataplane.coredns.hosts import HostsFile
from zonecp.dataplane.coredns.metrics import HostsFileCollector
from zonecp.dataplane.counts import Counts
from zonecp.dataplane.document import configured_dataplane
from zonecp.dataplane.early import Early
from zonecp.dataplane.envoy.binary import MISSING_EXTRA
from zonecp.dataplane.envoy.bootstrap import Node
from zonecp.dataplane.envoy.heldback import HeldBack
from zonecp.dataplane.envoy.status import status
from zonecp.dataplane.feed import INSTANCE, Feed, FeedOptions
from zonecp.dataplane.lookup import Lookup
from zonecp.dataplane.metrics import AgentCollector
from zonecp.dataplane.querylog import Wanted
from zonecp.dataplane.routes import QUERY_LOG_S
from zonecp.dataplane.token import Token
from zonecp.dataplane.workers import Workers
from zonecp.dataplane.workload import Workload
from zonemesh import __version__
from zonemesh.errors import ConfigError
from zonemesh.runtime import config as configuration
from zonemesh.runtime import http, main, metrics
from zonemesh.runtime.supervise import Backoff, Component, supervise

if TYPE_CHECKING:
    from zonecp.dataplane.envoy.sidecar import Sidecar

log = structlog.get_logger(__name__)

RECONNECT = Backoff(base_s=0.1, max_s=5.0)


class Agent:
    """Everything that one `zonedp run` is made of."""

    def __init__(self, config: Config, early: Early, document: dict[str, Any] | None) -> None:
        name = config.dataplane.name if document is None else document["name"]
        self.registry = metrics.new_registry()
        instance, token = secrets.token_hex(4), Token(config.dataplane_runtime)
        self.state, self.outbounds = early.state, early.outbounds
        self.dns, self.table = early.dns, early.table
        self.names, self.cache = early.names, early.cache
        self.workers = Workers(
            config.dns.workers - 1 if config.dns.enabled else 0,
            hello=self._configuration,
            secret=early.secret,
            table=self.table,
            outbounds=self.outbounds,
            query_log=lambda: self.dns.query_log.wanted,
        )
        self.sections: dict[str, diagnostics.Section] = {
            "version": lambda: __version__,
            "dataplane": lambda: {"mesh": config.dataplane.mesh, "name": name},
            "map": self._describe_map,
            "dns": self._describe_dns,
        }
        """Of the status document; components add their own."""

        self._options = FeedOptions(
            zones=config.control_plane.urls,
            mesh=config.dataplane.mesh,
            dataplane=str(name),
            instance=instance,
            headers=token.headers,
            domains=config.dns.own_domains,
            ttl_s=None if config.dns.ttl_s is None else round(config.dns.ttl_s),
            silence_s=config.control_plane.silence_s,
            drop_share_max=config.control_plane.drop_share_max,
            drop_patience_s=config.control_plane.drop_patience_s,
        )
        self.sidecar = self._sidecar(config, document)
        self._config = config
        self.front = self._front(config, token)
        self.hosts = self._hosts(config)
        self.workload: Workload | None = None
        if document is not None:
            self.workload = Workload(
                document,
                zones=config.control_plane.urls,
                state=self.state,
                headers=lambda: {INSTANCE: instance, **token.headers()},
                registry=self.registry,
            )
            self.sections["registration"] = self.workload.status
        self._clock = asyncio.get_running_loop().time
        self.registry.register(
            AgentCollector(
                counts=self.counts,
                table=self.table,
                forwarder=self.dns.forwarder,
                workers=self.workers,
                state=self.state,
                cache=self.cache,
                clock=self._clock,
                degraded=lambda: self._check_fresh() is not None,
            )
        )

    def components(self) -> dict[str, Component]:
        """In order of start; the last one is stopped first, so the workload is withdrawn before
        its names go.
        """
        feed = Feed(self._options, self.names, self.state, self.outbounds)
        components: dict[str, Component] = {
            "loop_stall": metrics.LoopStall(self.registry).run,
            "cache": self.cache.run,
            **({} if self.sidecar is None else self.sidecar.components()),
            **({} if self.hosts is None else {"hosts_file": self.hosts.run}),
            "feed": feed.run,
        }
        if self._config.dns.enabled:
            components = {**self.dns.components(), **self.workers.components(), **components}
        for part in (self.front, self.workload):
            components |= {} if part is None else part.components()
        return components

    async def drain(self, stop: asyncio.Event, drained: asyncio.Event) -> None:
        """Let the workload's connections end before anything stops; names are served meanwhile."""
        await stop.wait()
        try:
            if self.workload is not None:
                await self.workload.drain(self._config.dataplane.drain_time_s)
        finally:
            drained.set()

    def checks(self) -> dict[str, http.Check]:
        checks: dict[str, http.Check] = {"map": self._check_map}
        if self._config.dns.enabled:
            checks["dns"] = self._check_dns
        if self.sidecar is not None:
            checks["envoy"] = self.sidecar.check
        if self.front is not None:
            checks["coredns"] = self.front.check
        return checks

    def diagnostics(self) -> web.Application:
        app = http.make_diagnostics(
            self.registry, ready=self.checks(), fresh={"fresh": self._check_fresh}
        )
        lookup = Lookup(self.table, self.dns.forwarder, self.state, self._clock)
        on = self._config.dns.enabled
        diagnostics.add_routes(
            app, self.sections, lookup if on else None, self.dns.query_log if on else None
        )
        return app

    def counts(self) -> Counts:
        """Of this process and its workers."""
        found = Counts()
        found.add(self.dns.counts())
        for counts in self.workers.counts():
            found.add(counts)
        return found

    def toggle_query_log(self) -> None:
        """SIGUSR1."""
        query_log = self.dns.query_log
        query_log.want(Wanted() if query_log.on else Wanted(time.monotonic() + QUERY_LOG_S))

    def _sidecar(self, config: Config, document: dict[str, Any] | None) -> Sidecar | None:
        if self.outbounds is None or not isinstance(self.names, HeldBack):
            return None
        # Here, as it brings in protobuf and gRPC: 6 MB that an agent without Envoy does not need.
        try:
            from zonecp.dataplane.envoy import sidecar  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError([f"envoy.enabled: {MISSING_EXTRA} ({error})"]) from error

        options = sidecar.SidecarOptions(
            envoy=config.envoy,
            node=Node(
                mesh=config.dataplane.mesh,
                dataplane=self._options.dataplane,
                admin_address=config.envoy.admin_address,
                admin_port=config.dataplane.admin_port,
            ),
            data_dir=config.data_dir.absolute(),
            socket=config.envoy.socket_in(config.data_dir),
            binary=config.dataplane_runtime.binary_path,
            drain_s=round(config.dataplane.drain_time_s),
            document=document,
            vip_ranges=config.dns.vip_ranges,
            dns=(config.dns.own_addresses[0], config.dns.envoy_dns_port)
            if config.dns.filtered
            else None,
        )
        found = sidecar.Sidecar(options, self.names, self.outbounds, self.state, self.registry)
        self.sections["envoy"] = partial(status, found)
        return found

    def _front(self, config: Config, token: Token) -> Front | None:
        dns = config.dns
        if not (dns.enabled and dns.behind_coredns and dns.core_dns_start):
            return None
        front = Front(
            config,
            self.dns,
            dataplane=self._options.dataplane,
            state=self.state,
            headers=token.headers,
            registry=self.registry,
        )
        self.sections["coredns"] = front.status
        return front

    def _hosts(self, config: Config) -> HostsFile | None:
        if config.dns.hosts_file is None:
            return None
        hosts = HostsFile(config.dns.hosts_file, self.table, self.state)
        self.registry.register(HostsFileCollector(hosts))
        self.sections["hosts_file"] = hosts.status
        return hosts

    def _check_map(self) -> str | None:
        return None if self.table.loaded else "no map yet, neither from the zone nor from disk"

    def _check_fresh(self) -> str | None:
        age_s = self.state.age_s(self._clock())
        if age_s is None:
            return "the zone has not told since the start how old the map is"
        stale = age_s > self._config.control_plane.stale_after_s
        return f"the map is {age_s:.1f} s old" if stale else None

    def _check_dns(self) -> str | None:
        return None if self.dns.server.bound else "the DNS port is not bound"

    def _configuration(self) -> dict[str, Any]:
        """What workers are given: the port is the one that was taken."""
        shown = configuration.dump(self._config)
        key = "agentPort" if self._config.dns.behind_coredns else "proxyPort"
        shown["dns"][key] = self.dns.server.port
        return shown

    def _describe_map(self) -> dict[str, Any]:
        outbounds = None if self.outbounds is None else len(self.outbounds)
        return {
            "loaded": self.table.loaded,
            "names": len(self.table),
            "outbounds": outbounds,
            **self.state.describe(self._clock()),
        }

    def _describe_dns(self) -> dict[str, Any]:
        if not self._config.dns.enabled:
            return {"enabled": False}
        forwarder, counts = self.dns.forwarder, self.counts()
        return {
            "enabled": True,
            "mode": self._config.dns.mode,
            "addresses": list(self._config.dns.own_addresses),
            "port": self.dns.server.port,
            "workers": 1 + self.workers.running,
            "domains": sorted(name for name in self.table.domains if not name.endswith(".arpa")),
            "upstreams": [str(server) for server in forwarder.current()],
            "looping": [str(server) for server in forwarder.looping],
            "queries": sum(counts.queries.values()),
            "upstream_failures": counts.failures,
            "query_log": diagnostics.query_log_state(self.dns.query_log),
        }


async def run(config: Config, early: Early, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; `early` may be answering already.

    Raises:
        ConfigError: What keeps the agent from starting.
        ExceptionGroup: What ended it later.
    """
    agent = Agent(config, early, configured_dataplane(config))
    if config.envoy.enabled:
        agent.cache.load()
    main.freeze_heap()
    async with http.serving(
        agent.diagnostics(),
        config.dataplane.readiness_address,
        config.dataplane.readiness_port,
        name="diagnostics",
    ):
        with _on_signal(agent):
            drained = asyncio.Event()
            draining = asyncio.create_task(agent.drain(stop, drained), name="drain")
            try:
                await supervise(agent.components(), RECONNECT, random.Random(), stop=drained)
            finally:
                draining.cancel()


@contextmanager
def _on_signal(agent: Agent) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, agent.toggle_query_log)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
