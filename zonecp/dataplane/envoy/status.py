"""What is known of Envoy, for people and for Prometheus; read when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zonecp.dataplane.envoy.store import TYPE_LABELS

if TYPE_CHECKING:
    from zonecp.dataplane.envoy.sidecar import Sidecar

SHOWN_MAX: Final = 100
"""Rejected resources, and names held back, that are named."""


def status(sidecar: Sidecar) -> dict[str, Any]:
    """Envoy's part of the agent's status.

    Returns:
        `attached` and `settled` (it has answered everything), `process`, `resources` by type with
        what Envoy accepted of them, `rejected` with Envoy's own words, and `names` held back.
    """
    connection = sidecar.server.current
    stream = sidecar.server.client
    process = sidecar.process
    rejected = {} if stream is None else stream.rejections()
    return {
        "attached": connection is not None,
        "settled": stream is not None and stream.settled,
        "node": None if connection is None else connection.node,
        "socket": str(sidecar.server.path),
        "admin_address": sidecar.admin,
        "arrangement": sidecar.arrangement,
        "process": {
            "pid": process.pid,
            "version": process.version,
            "starts": process.starts,
            "taken_over": process.adopted,
            "failures": process.failures,
            "trouble": process.trouble,
        },
        "resources": {
            label: {
                "present": len(sidecar.resources.of(type_url)),
                "accepted": 0 if stream is None else len(stream.held(type_url)),
            }
            for type_url, label in TYPE_LABELS.items()
        },
        "rejected": [
            {"type": TYPE_LABELS[ref.type_url], "name": ref.name, "error": text}
            for ref, text in [*rejected.items()][:SHOWN_MAX]
        ],
        "not_made": dict([*sidecar.compiler.rejected.items()][:SHOWN_MAX]),
        "names": {
            "wait_for_envoy": not sidecar.gate.open,
            "held": len(sidecar.names.held),
            "released": sidecar.gate.released,
            "waived": sidecar.gate.waived,
        },
    }


class Times:
    """How long a change takes on its way into Envoy."""

    def __init__(self, registry: CollectorRegistry) -> None:
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
        self.push = Histogram(
            "zonedp_envoy_push_seconds",
            "From a change of the map until the resources made of it were sent to Envoy.",
            buckets=buckets,
            registry=registry,
        )
        self.answer = Histogram(
            "zonedp_envoy_answer_seconds",
            "From a response until Envoy accepted or rejected it.",
            buckets=buckets,
            registry=registry,
        )


class EnvoyCollector(Collector):
    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._clock = asyncio.get_running_loop().time

    def collect(self) -> Iterable[Metric]:
        yield from self._connection()
        yield from self._resources()
        yield from self._process()
        yield from self._names()

    def _connection(self) -> Iterable[Metric]:
        current = self._sidecar.server.current
        waited_s = 0.0
        if current is not None and current.sent_s is not None:
            waited_s = self._clock() - current.sent_s
        yield GaugeMetricFamily(
            "zonedp_envoy_attached", "1 while an Envoy is connected.", int(current is not None)
        )
        yield CounterMetricFamily(
            "zonedp_envoy_streams", "Envoys that connected.", self._sidecar.server.streams
        )
        yield GaugeMetricFamily(
            "zonedp_envoy_unanswered_seconds",
            "For how long Envoy has left a response unanswered.",
            waited_s,
        )

    def _resources(self) -> Iterable[Metric]:
        counts = self._sidecar.server.counts
        stream = self._sidecar.server.client
        rejections = {} if stream is None else stream.rejections()
        yield _gauges(
            "zonedp_envoy_resources",
            "Resources that Envoy is to have.",
            {each: len(self._sidecar.resources.of(each)) for each in TYPE_LABELS},
        )
        yield _gauges(
            "zonedp_envoy_resources_rejected",
            "... that it has rejected as they are now.",
            {each: sum(ref.type_url == each for ref in rejections) for each in TYPE_LABELS},
        )
        yield _counters(
            "zonedp_envoy_resources_sent", "Resources in responses to Envoy.", counts.sent
        )
        yield _counters("zonedp_envoy_resources_removed", "Removals in responses.", counts.removed)
        yield _counters("zonedp_envoy_acks", "Responses that Envoy accepted.", counts.acks)
        yield _counters(
            "zonedp_envoy_nacks", "Responses that it rejected, wholly or in part.", counts.nacks
        )

    def _process(self) -> Iterable[Metric]:
        process = self._sidecar.process
        yield GaugeMetricFamily(
            "zonedp_envoy_running", "1 while the agent's Envoy runs.", int(process.pid is not None)
        )
        yield CounterMetricFamily("zonedp_envoy_starts", "Envoys started.", process.starts)
        yield CounterMetricFamily(
            "zonedp_envoy_failures", "Envoys that ended or did not start.", process.failures
        )

    def _names(self) -> Iterable[Metric]:
        gate = self._sidecar.gate
        yield GaugeMetricFamily(
            "zonedp_envoy_names_held",
            "Names that wait for Envoy before they are answered.",
            len(self._sidecar.names.held),
        )
        yield CounterMetricFamily(
            "zonedp_envoy_names_waived",
            "Names that were answered without waiting any longer.",
            gate.waived,
        )


def _gauges(name: str, about: str, values: Mapping[str, int]) -> Metric:
    return _by_type(GaugeMetricFamily(name, about, labels=("type",)), values)


def _counters(name: str, about: str, values: Mapping[str, int]) -> Metric:
    return _by_type(CounterMetricFamily(name, about, labels=("type",)), values)


def _by_type(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, int]) -> Metric:
    for type_url, label in TYPE_LABELS.items():
        family.add_metric((label,), values.get(type_url, 0))
    return family
