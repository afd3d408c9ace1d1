"""What Prometheus is told; read from plain counts when it asks, so that an answer pays nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zonecp.dataplane.cache import Cache
from zonecp.dataplane.counts import BOUNDS_S, Counts, Durations
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.register import Registration
from zonecp.dataplane.resolver import Table
from zonecp.dataplane.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgentCollector(Collector):
    counts: Callable[[], Counts]
    """Of all processes that answer."""

    table: Table
    forwarder: Forwarder
    workers: Workers
    state: FeedState
    cache: Cache
    clock: Callable[[], float]
    """The event loop's."""

    degraded: Callable[[], bool]

    def collect(self) -> Iterable[Metric]:
        counts = self.counts()
        yield from self._dns(counts)
        yield from _serving(counts.numbers)
        yield from self._feed()
        yield from self._disk()

    def _dns(self, counts: Counts) -> Iterable[Metric]:
        queries = CounterMetricFamily(
            "zonedp_dns_queries", "DNS queries by type and result.", labels=("type", "result")
        )
        for labels, count in sorted(counts.queries.items()):
            queries.add_metric(labels, count)
        yield queries
        yield GaugeMetricFamily("zonedp_dns_names", "Names in the map.", value=len(self.table))
        yield _by(
            "zonedp_dns_upstream_failures",
            "Queries an upstream did not answer.",
            counts.failures,
        )
        yield HistogramMetricFamily(
            "zonedp_dns_upstream_duration_seconds",
            "How long an upstream resolver took to answer.",
            buckets=_cumulative(counts.upstream),
            sum_value=counts.upstream.sum_s,
        )
        yield GaugeMetricFamily(
            "zonedp_dns_upstreams_looping",
            "Upstreams whose questions come back here.",
            value=len(self.forwarder.looping),
        )
        yield GaugeMetricFamily(
            "zonedp_dns_workers", "Processes that answer.", value=1 + self.workers.running
        )
        yield CounterMetricFamily(
            "zonedp_dns_worker_restarts", "Workers that ended.", value=self.workers.restarts
        )

    def _feed(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "zonedp_feed_connected", "1 while subscribed to the zone.", int(self.state.connected)
        )
        yield GaugeMetricFamily(
            "zonedp_degraded",
            "1 while the map is too old, or nobody says how old.",
            int(self.degraded()),
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
        agreement = self.state.agreement
        yield CounterMetricFamily(
            "zonedp_map_mismatches", "Times the map was not the zone's.", agreement.mismatches
        )
        yield GaugeMetricFamily(
            "zonedp_map_mismatched",
            "1 while fetching it anew did not help.",
            int(agreement.unmended is not None),
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


def _serving(numbers: Mapping[str, float]) -> Iterable[Metric]:
    yield CounterMetricFamily(
        "zonedp_dns_replies_unsent", "Replies the kernel did not take.", numbers["replies_unsent"]
    )
    yield GaugeMetricFamily(
        "zonedp_dns_tcp_connections", "Open TCP connections.", numbers["tcp_connections"]
    )
    yield CounterMetricFamily(
        "zonedp_dns_tcp_connections_refused",
        "TCP connections over the limit.",
        numbers["tcp_connections_refused"],
    )
    yield GaugeMetricFamily(
        "zonedp_dns_upstream_in_flight", "Queries at upstreams.", numbers["upstream_in_flight"]
    )
    yield CounterMetricFamily(
        "zonedp_dns_upstream_cached",
        "Outside queries answered from the cache.",
        numbers["upstream_cached"],
    )
    yield CounterMetricFamily(
        "zonedp_dns_upstream_shared",
        "Outside queries that waited for the answer to an equal one.",
        numbers["upstream_shared"],
    )
    yield GaugeMetricFamily(
        "zonedp_dns_upstream_cache_entries",
        "Answers of upstreams that are kept.",
        numbers["upstream_cache_entries"],
    )
    yield GaugeMetricFamily(
        "zonedp_dns_upstream_cache_bytes", "Their size.", numbers["upstream_cache_bytes"]
    )
    yield CounterMetricFamily(
        "zonedp_dns_query_log_suppressed",
        "Queries over the query log's limit.",
        numbers["query_log_suppressed"],
    )


def _by(name: str, about: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=("reason",))
    for reason, count in sorted(counts.items()):
        family.add_metric((reason,), count)
    return family


def _cumulative(durations: Durations) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return list(zip(bounds, accumulate(durations.buckets), strict=True))
