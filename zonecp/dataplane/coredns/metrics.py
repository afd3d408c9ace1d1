"""What Prometheus is told of CoreDNS and of the hosts file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zonecp.dataplane.coredns.hosts import HostsFile
from zonecp.dataplane.coredns.process import CoreDns


@dataclass(frozen=True, slots=True, eq=False)
class CoreDnsCollector(Collector):
    coredns: CoreDns

    def collect(self) -> Iterable[Metric]:
        state = self.coredns.state
        yield GaugeMetricFamily("zonedp_coredns_up", "1 while CoreDNS serves.", int(state.up))
        yield CounterMetricFamily("zonedp_coredns_starts", "Starts of CoreDNS.", state.starts)
        yield GaugeMetricFamily(
            "zonedp_coredns_template_refused",
            "1 while CoreDNS runs with the last good Corefile instead of the one wanted.",
            int(state.refused is not None),
        )


@dataclass(frozen=True, slots=True, eq=False)
class HostsFileCollector(Collector):
    hosts: HostsFile

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "zonedp_hosts_file_writes", "Hosts files written.", self.hosts.writes
        )
        yield CounterMetricFamily(
            "zonedp_hosts_file_failures", "Hosts files not written.", self.hosts.failures
        )
