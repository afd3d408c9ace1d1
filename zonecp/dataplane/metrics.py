"""What Prometheus is told; read from plain counts when it asks, so that an answer pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zonecp.dataplane.cache import Cache
from zonecp.dataplane.dns import Server
from zonecp.dataplane.feed import FeedState
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.register import Registration
from zonecp.dataplane.resolver import Table


def upstream_seconds(registry: CollectorRegistry) -> Histogram:
    """Made before the forwarder, which is told its `observe`."""
    return Histogram(
        "zonedp_dns_upstream_duration_seconds",
        "How long an upstream resolver took to answer.",
        buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0),
        registry=registry,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgentCollector(Collector):
    table: Table
    server: Server
    forwarder: Forwarder
    state: FeedState
    cache: Cache
    clock: Callable[[], float]
    """The event loop's."""

    def collect(self) -> Iterable[Metric]:
        yield self._queries()
        yield from self._serving()
        yield from self._feed()
        yield from self._disk()

    def _queries(self) -> Metric:
        queries = CounterMetricFamily(
            "zonedp_dns_queries", "DNS queries by type and result.", labels=("type", "result")
        )
        counts = self.table.others.copy()
        counts["A", "answered"] += self.table.answered_a
        counts["AAAA", "answered"] += self.table.answered_aaaa
        for labels, count in sorted(counts.items()):
            queries.add_metric(labels, count)
        return queries

    def _serving(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("zonedp_dns_names", "Names in the map.", value=len(self.table))
        yield CounterMetricFamily(
            "zonedp_dns_replies_unsent", "Replies the kernel did not take.", self.server.unsent
        )
        yield GaugeMetricFamily(
            "zonedp_dns_tcp_connections", "Open TCP connections.", self.server.connections
        )
        yield CounterMetricFamily(
            "zonedp_dns_tcp_connections_refused",
            "TCP connections over the limit.",
            self.server.connections_refused,
        )
        yield GaugeMetricFamily(
            "zonedp_dns_upstream_in_flight", "Queries at upstreams.", self.forwarder.in_flight
        )
        yield _by(
            "zonedp_dns_upstream_failures",
            "Queries an upstream did not answer.",
            self.forwarder.failures,
        )

    def _feed(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "zonedp_feed_connected", "1 while subscribed to the zone.", int(self.state.connected)
        )
        age_s = self.state.age_s(self.clock())
        if age_s is not None:
            yield GaugeMetricFamily(
                "zonedp_map_age_seconds", "The zone's own lag plus its silence since.", age_s
            )
            yield GaugeMetricFamily(
                "zonedp_map_zone_lag_seconds",
                "The map's age by the zone's account, at the last event.",
                self.state.lag_s,
            )
        yield _by("zonedp_feed_ended", "Feed streams that ended.", self.state.ended)
        yield CounterMetricFamily(
            "zonedp_feed_records_rejected",
            "Records of the feed that are no names or addresses.",
            self.state.records_rejected,
        )

    def _disk(self) -> Iterable[Metric]:
        yield CounterMetricFamily("zonedp_cache_writes", "Maps written.", self.cache.writes)
        yield CounterMetricFamily(
            "zonedp_cache_failures", "Maps not written or not read.", self.cache.failures
        )
        yield CounterMetricFamily(
            "zonedp_cache_corrupt", "Damaged maps set aside.", self.cache.corrupt
        )
        yield GaugeMetricFamily("zonedp_cache_bytes", "Size of the last write.", self.cache.bytes)
        yield GaugeMetricFamily(
            "zonedp_cache_write_seconds", "Duration of the last write.", self.cache.write_s
        )


@dataclass(frozen=True, slots=True, eq=False)
class RegistrationCollector(Collector):
    registration: Registration

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "zonedp_registered",
            "1 while the zone holds the Dataplane.",
            int(self.registration.registered),
        )
        yield CounterMetricFamily(
            "zonedp_registrations",
            "Times that the zone was told of the Dataplane.",
            self.registration.registrations,
        )


def _by(name: str, about: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=("reason",))
    for reason, count in sorted(counts.items()):
        family.add_metric((reason,), count)
    return family
