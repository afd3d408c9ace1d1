"""The composition root of the agent: the only place that makes its parts and ties them together."""

from __future__ import annotations

import asyncio
import random
import secrets
from typing import Any

import structlog

from zonecp.dataplane.cache import Cache
from zonecp.dataplane.config import Config
from zonecp.dataplane.dns import Server
from zonecp.dataplane.feed import Feed, FeedOptions, FeedState
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.metrics import AgentCollector, upstream_seconds
from zonecp.dataplane.register import Registration, configured_dataplane
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.upstreams import Address, Servers, is_own, parse_address
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
            addresses=config.dns.addresses,
            port=config.dns.proxy_port,
        )
        self._options = FeedOptions(
            zones=config.control_plane.urls,
            mesh=config.dataplane.mesh,
            dataplane=str(name),
            instance=secrets.token_hex(4),
            domains=config.dns.domains,
            silence_s=config.control_plane.silence_s,
            drop_share_max=config.control_plane.drop_share_max,
            drop_patience_s=config.control_plane.drop_patience_s,
        )
        self._document = document
        self._addresses = config.dns.addresses
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
        if self._document is not None:
            registration = Registration(self._options.zones, self._document, self.state)
            components["registration"] = registration.run
        return components

    def checks(self) -> dict[str, http.Check]:
        return {"map": self._check_map, "dns": self._check_dns}

    def _check_map(self) -> str | None:
        return None if self.table.loaded else "no map yet, neither from the zone nor from disk"

    def _check_dns(self) -> str | None:
        return None if self.server.bound else "the DNS port is not bound"

    def _is_own(self, server: Address) -> bool:
        return is_own(server, self._addresses, self.server.port)


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
            await supervise(agent.components(), RECONNECT, random.Random(), stop=stop)
    finally:
        agent.server.close()
        agent.forwarder.close()
