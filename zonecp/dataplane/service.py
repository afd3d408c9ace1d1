"""DNS as one process serves it: a table, what it is asked through, and what it asks in turn."""

from __future__ import annotations

import time
from collections import Counter
from math import inf

from zonecp.dataplane.answers import Answers
from zonecp.dataplane.config import Dns
from zonecp.dataplane.counts import Counts, Durations
from zonecp.dataplane.dns import Server
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.loopprobe import LoopProbe
from zonecp.dataplane.outbounds import Outbounds
from zonecp.dataplane.ports import Ports
from zonecp.dataplane.querylog import QueryLog, Wanted
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.upstreams import Address, Servers, is_own, parse_address
from zonemesh.runtime.supervise import Component


class DnsService:
    """Made once per process; an agent has one of its own, and one in each worker."""

    def __init__(self, config: Dns, outbounds: Outbounds | None, secret: bytes) -> None:
        """Args:
        config: As of the agent.
        outbounds: For SRV; None: there are none.
        secret: As in `LoopProbe`.
        """
        self.table = Table(
            config.own_domains,
            negative_ttl_s=round(config.negative_ttl_s),
            forward_unknown=config.forward_unknown,
            ports=None if outbounds is None else Ports(outbounds),
        )
        self._durations = Durations()
        self._config = config
        self.forwarder = Forwarder(
            Servers(
                [parse_address(upstream) for upstream in config.upstreams],
                resolv_conf=config.resolv_conf,
                own=self._is_own,
            ),
            timeout_s=config.upstream_timeout_s,
            alternate_on_nxdomain=config.alternate_on_nxdomain,
            answers=Answers(config.cache_entries, ttl_s_max=config.cache_ttl_s),
            observe=self._durations.observe,
        )
        self._probe = LoopProbe(self.forwarder, secret)
        self.server = Server(
            self.table,
            self.forwarder,
            addresses=config.own_addresses,
            port=config.own_port,
            shared=config.workers > 1,
            own_probe=self._probe.answer,
        )
        self.query_log = QueryLog(
            self.table.answer,
            self.server.answer_by,
            time.monotonic,
            per_s=config.query_log_per_second,
        )
        self._log_from_start = config.query_log, config.query_log_sample

    def components(self) -> dict[str, Component]:
        return {"dns": self.server.run, "loop_probe": self._probe.run}

    def bind(self, *, first: bool = True) -> None:
        """Take the sockets; as `Server.bind`, which says what it raises."""
        self.server.bind(first=first)
        on, sample = self._log_from_start
        if on:
            self.query_log.want(Wanted(inf, sample))

    def answer_early(self) -> None:
        """As `Server.answer_early`."""
        self.server.answer_early()

    def close(self) -> None:
        self.server.close()
        self.forwarder.close()

    def counts(self) -> Counts:
        table, server, forwarder = self.table, self.server, self.forwarder
        queries = Counter(table.others)
        queries["A", "answered"] += table.answered_a
        queries["AAAA", "answered"] += table.answered_aaaa
        numbers = {
            "replies_unsent": server.unsent,
            "tcp_connections": server.connections,
            "tcp_connections_refused": server.connections_refused,
            "upstream_in_flight": forwarder.in_flight,
            "upstream_cached": forwarder.cached,
            "upstream_shared": forwarder.shared,
            "upstream_cache_entries": len(forwarder.answers),
            "upstream_cache_bytes": forwarder.answers.bytes,
            "query_log_suppressed": self.query_log.suppressed,
        }
        return Counts(dict(queries), dict(forwarder.failures), dict(numbers), self._durations)

    def _is_own(self, server: Address) -> bool:
        config = self._config
        return is_own(server, config.own_addresses, self.server.port) or (
            # CoreDNS asks this agent in turn
            config.behind_coredns and is_own(server, config.addresses, config.core_dns_port)
        )
