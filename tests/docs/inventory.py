"""What the code has that documents must name: settings, metrics, log events."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from globalcp.config import GlobalConfig
from tests.docs.documents import ROOT
from zonecp.config import ZoneConfig
from zonecp.dataplane.config import Config as AgentConfig
from zonemesh.runtime import config as configuration

CONFIGS: dict[str, type[Any]] = {
    "globalcp": GlobalConfig,
    "zonecp": ZoneConfig,
    "zonedp": AgentConfig,
}
NEEDED = {"zonedp": {"ZONEMESH_DATAPLANE_NAME": "x"}}

_COUNTERS = {"counter", "labelled"}
_FAMILIES = {
    "GaugeMetricFamily": "",
    "HistogramMetricFamily": "",
    "Gauge": "",
    "CounterMetricFamily": "_total",
    "_by": "_total",
    "_gauges": "",
    "_counters": "_total",
}
METRICS_MODULES = (
    "globalcp/metrics.py",
    "zonecp/metrics.py",
    "zonecp/dataplane/metrics.py",
    "zonecp/dataplane/prober.py",
    "zonecp/dataplane/coredns/metrics.py",
    "zonecp/dataplane/envoy/status.py",
    "shared/zonemesh/runtime/metrics.py",
    "shared/zonemesh/runtime/collect.py",
)


def settings(program: str) -> dict[str, Any]:
    """Every key of a program with its default, as `config` prints it."""
    config, _ = configuration.load(CONFIGS[program], {}, NEEDED.get(program, {}))
    return dict(_leaves(configuration.dump(config), ""))


def _leaves(document: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def metrics() -> dict[str, str]:
    """Every metric, as Prometheus shows it, with the module that makes it.

    Read from the source: some are there only at times (on a leader, after a fault).
    """
    return {
        name: module
        for module in METRICS_MODULES
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if (name := _metric(node)) is not None
    }


def _metric(node: ast.AST) -> str | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
        return None
    first, function = node.args[0], node.func.id
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        return None
    if function == "gauge":
        return f"zonemesh_{first.value}"
    if function in _COUNTERS:
        return f"zonemesh_{first.value}_total"
    if function == "Histogram":
        return first.value
    suffix = _FAMILIES.get(function)
    return None if suffix is None else f"{first.value}{suffix}"


def log_events() -> set[str]:
    """Every event that the programs log."""
    sources = [
        path
        for folder in ("globalcp", "zonecp", "shared/zonemesh")
        for path in (ROOT / folder).rglob("*.py")
    ]
    return {event for path in sources for event in _events(path)}


def _events(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        first = node.args[0]
        levels = {"debug", "info", "warning", "error", "exception"}
        if node.func.attr in levels and isinstance(first, ast.Constant):
            yield str(first.value)
