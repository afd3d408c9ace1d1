"""The composition root of the agent: the only place that makes its parts and ties them together."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Mapping
from typing import Any

import structlog

from zonecp.dataplane.cache import Cache
from zonecp.dataplane.config import Config
from zonecp.dataplane.coredns.bootstrap import Bootstrap
from zonecp.dataplane.coredns.hosts import HostsFile
from zonecp.dataplane.coredns.metrics import CoreDnsCollector, HostsFileCollector
from zonecp.dataplane.coredns.parts import options as coredns_options
from zonecp.dataplane.coredns.parts import own_source
from zonecp.dataplane.coredns.process import CoreDns
from zonecp.dataplane.dns import Server
from zonecp.dataplane.feed import INSTANCE, Feed, FeedOptions, FeedState
from zonecp.dataplane.forward import Address, Forwarder, Servers, is_own, parse_address
from zonecp.dataplane.metrics import AgentCollector, RegistrationCollector, upstream_seconds
from zonecp.dataplane.probe import probes
from zonecp.dataplane.prober import ProbeCollector, Prober
from zonecp.dataplane.register import Registration, configured_dataplane
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.token import Token
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime import http, main, metrics
from zonemesh.runtime.datadir import data_dir
from zonemesh.runtime.supervise import Backoff, Component, supervise

log = structlog.get_logger(__name__)

RECONNECT = Backoff(base_s=0.1, max_s=5.0)


class Agent:
    """Everything that one `zonedp run` is made of."""

    def __init__(self, config: Config, document: dict[str, Any] | None) -> None:
        name = config.dataplane.name if document is None else document["name"]
        self.registry = metrics.new_registry()
        self.instance = secrets.token_hex(4)
        """Names this process to the zone."""

        self.token = Token(config.dataplane_runtime)
        self.state = FeedState()
        self.table = Table(config.dns.domains, negative_ttl_s=round(config.dns.negative_ttl_s))
        self.cache = Cache(config.data_dir, self.table, self.state)
        self.forwarder = Forwarder(
            Servers(
                [parse_address(upstream) for upstream in config.dns.upstreams],
                resolv_conf=config.dns.resolv_conf,
                own=self._is_own,
            ),
            timeout_s=config.dns.upstream_timeout_s,
            observe=upstream_seconds(self.registry).observe,
        )
        self.server = Server(
            self.table,
            self.forwarder,
            addresses=config.dns.own_addresses,
            port=config.dns.own_port,
        )
        self.coredns = self._make_coredns(config)
        self.hosts = self._make_hosts(config)
        self._options = FeedOptions(
            zones=config.control_plane.urls,
            mesh=config.dataplane.mesh,
            dataplane=str(name),
            instance=self.instance,
            headers=self.token.headers,
            domains=config.dns.domains,
            silence_s=config.control_plane.silence_s,
            drop_share_max=config.control_plane.drop_share_max,
            drop_patience_s=config.control_plane.drop_patience_s,
        )
        self.registration, self.prober = self._make_registration(document)
        self._dns = config.dns
        self.registry.register(
            AgentCollector(
                table=self.table,
                server=self.server,
                forwarder=self.forwarder,
                state=self.state,
                cache=self.cache,
                clock=asyncio.get_running_loop().time,
            )
        )

    def components(self) -> dict[str, Component]:
        """In order of start; the last one is stopped first, so the workload is withdrawn before
        its names go.
        """
        feed = Feed(self._options, self.table, self.state)
        components: dict[str, Component] = {
            "dns": self.server.run,
            "loop_stall": metrics.LoopStall(self.registry).run,
            "cache": self.cache.run,
            "feed": feed.run,
        }
        if self.hosts is not None:
            components["hosts_file"] = self.hosts.run
        components |= self._coredns_components()
        if self.prober is not None:
            components["probes"] = self.prober.run
        if self.registration is not None:
            components["registration"] = self.registration.run
        return components

    async def drain(self, stop: asyncio.Event, drained: asyncio.Event, wait_s: float) -> None:
        """Let the workload's connections end before anything stops; names are served meanwhile."""
        await stop.wait()
        try:
            if self.registration is not None:
                await self.registration.drain(wait_s)
        finally:
            drained.set()

    def _make_registration(
        self, document: dict[str, Any] | None
    ) -> tuple[Registration | None, Prober | None]:
        if document is None:
            return None, None
        wanted = probes(document)
        prober = Prober(wanted, self._tell) if wanted else None
        registration = Registration(
            self._options.zones,
            document,
            self.state,
            headers=lambda: {INSTANCE: self.instance, **self.token.headers()},
            settled=None if prober is None else prober.settled,
        )
        self.registry.register(RegistrationCollector(registration))
        if prober is not None:
            self.registry.register(ProbeCollector(prober))
        return registration, prober

    def _tell(self, ready: Mapping[int, bool]) -> None:
        assert self.registration is not None
        self.registration.set_ready(ready)

    def _make_hosts(self, config: Config) -> HostsFile | None:
        if config.dns.hosts_file is None:
            return None
        hosts = HostsFile(config.dns.hosts_file, self.table, self.state)
        self.registry.register(HostsFileCollector(hosts))
        return hosts

    def _make_coredns(self, config: Config) -> CoreDns | None:
        if not config.dns.behind_coredns:
            return None
        coredns = CoreDns(coredns_options(config), own_source(config.dns))
        self.registry.register(CoreDnsCollector(coredns))
        return coredns

    def _coredns_components(self) -> dict[str, Component]:
        coredns, dns = self.coredns, self._dns
        if coredns is None:
            return {}
        components: dict[str, Component] = {"coredns": coredns.run}
        if dns.core_dns_config_template_path is None:
            components["bootstrap"] = Bootstrap(
                self._options.zones,
                mesh=self._options.mesh,
                dataplane=self._options.dataplane,
                coredns=coredns,
                state=self.state,
                headers=self.token.headers,
            ).run
        if dns.core_dns_forward_to == "agent":
            components["dns_for_envoys_port"] = self._answer_on_envoys_port
        return components

    async def _answer_on_envoys_port(self) -> None:
        """Templates that were written for Kuma ask there, where no Envoy's filter is here."""
        assert self.coredns is not None
        await self.coredns.envoy_port_wanted.wait()
        server = Server(
            self.table,
            self.forwarder,
            addresses=self._dns.own_addresses,
            port=self._dns.envoy_dns_port,
        )
        try:
            server.bind()
        except ConfigError as error:
            raise UnavailableError(str(error)) from error
        await server.run()

    def checks(self) -> dict[str, http.Check]:
        checks: dict[str, http.Check] = {"map": self._check_map, "dns": self._check_dns}
        if self.coredns is not None:
            checks["coredns"] = self.coredns.check
        return checks

    def _check_map(self) -> str | None:
        return None if self.table.loaded else "no map yet, neither from the zone nor from disk"

    def _check_dns(self) -> str | None:
        return None if self.server.bound else "the DNS port is not bound"

    def _is_own(self, server: Address) -> bool:
        dns = self._dns
        return is_own(server, dns.own_addresses, self.server.port) or (
            dns.behind_coredns and is_own(server, dns.addresses, dns.core_dns_port)
        )


async def run(config: Config, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: What keeps the agent from starting.
        ExceptionGroup: What ended it later.
    """
    with data_dir(config.data_dir):
        await _run(config, stop)


async def _run(config: Config, stop: asyncio.Event) -> None:
    agent = Agent(config, configured_dataplane(config))
    agent.cache.load()
    agent.server.bind()
    app = http.make_diagnostics(agent.registry, ready=agent.checks())
    main.freeze_heap()
    try:
        async with http.serving(
            app,
            config.dataplane.readiness_address,
            config.dataplane.readiness_port,
            name="diagnostics",
        ):
            drained = asyncio.Event()
            draining = asyncio.create_task(
                agent.drain(stop, drained, config.dataplane.drain_time), name="drain"
            )
            try:
                await supervise(agent.components(), RECONNECT, random.Random(), stop=drained)
            finally:
                draining.cancel()
    finally:
        agent.server.close()
        agent.forwarder.close()
