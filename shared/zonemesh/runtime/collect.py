"""Metrics that are read from a process's parts when Prometheus asks, instead of being pushed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zonemesh.agreement import Agreement


class Collecting(Collector):
    """A collector made of one function."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"zonemesh_{name}", text)
    family.add_metric([], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    family = CounterMetricFamily(f"zonemesh_{name}", text)
    family.add_metric([], value)
    return family


def labelled(
    name: str, text: str, labels: list[str], values: Mapping[str, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"zonemesh_{name}", text, labels=labels)
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def mismatches(logs: Mapping[str, Agreement]) -> Iterable[Metric]:
    """Of the copies of logs in this process, by log."""
    total = CounterMetricFamily(
        "zonemesh_state_mismatches", "Times a state was not its writer's.", labels=["log"]
    )
    unmended = GaugeMetricFamily(
        "zonemesh_state_mismatched", "1 while loading it anew did not help.", labels=["log"]
    )
    for log, agreement in logs.items():
        total.add_metric([log], agreement.mismatches)
        unmended.add_metric([log], agreement.unmended is not None)
    yield from (total, unmended)
