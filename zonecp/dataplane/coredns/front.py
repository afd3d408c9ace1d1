"""CoreDNS's part of the agent: the program, its template, and the agent's second port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from zonecp.dataplane.config import Config
from zonecp.dataplane.coredns.bootstrap import Bootstrap
from zonecp.dataplane.coredns.metrics import CoreDnsCollector
from zonecp.dataplane.coredns.parts import options, own_source
from zonecp.dataplane.coredns.process import CoreDns
from zonecp.dataplane.dns import Server
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.service import DnsService
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime.supervise import Component


class Front:
    """A CoreDNS before the agent."""

    def __init__(
        self,
        config: Config,
        dns: DnsService,
        *,
        dataplane: str,
        state: FeedState,
        headers: Callable[[], dict[str, str]],
        registry: CollectorRegistry,
    ) -> None:
        self._config = config.dns
        self._dns = dns
        self._coredns = CoreDns(options(config), own_source(config.dns))
        self._bootstrap = Bootstrap(
            config.control_plane.urls,
            mesh=config.dataplane.mesh,
            dataplane=dataplane,
            coredns=self._coredns,
            state=state,
            headers=headers,
        )
        registry.register(CoreDnsCollector(self._coredns))

    def components(self) -> dict[str, Component]:
        found: dict[str, Component] = {"coredns": self._coredns.run}
        if self._config.core_dns_config_template_path is None:
            found["bootstrap"] = self._bootstrap.run
        if not self._config.filtered:
            found["dns_for_envoys_port"] = self._answer_on_envoys_port
        return found

    def check(self) -> str | None:
        """Why CoreDNS does not serve, for /ready."""
        return self._coredns.check()

    def status(self) -> dict[str, Any]:
        return self._coredns.status()

    async def _answer_on_envoys_port(self) -> None:
        """Templates that were written for Kuma ask there, where no Envoy's filter is here."""
        await self._coredns.envoy_port_wanted.wait()
        server = Server(
            self._dns.table,
            self._dns.forwarder,
            addresses=self._config.own_addresses,
            port=self._config.envoy_dns_port,
        )
        try:
            server.bind()
        except ConfigError as error:
            raise UnavailableError(str(error)) from error
        await server.run()
