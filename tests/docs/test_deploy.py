"""Samples load, units and the compose file start what exists, alerts name metrics that exist."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from globalcp.config import IGNORED as GLOBAL_IGNORED
from globalcp.config import GlobalConfig
from tests.docs import inventory
from tests.docs.documents import ROOT, anchors, rows, section
from tests.docs.test_docs import check_program
from tests.ports import free_port
from zonecp.config import IGNORED as ZONE_IGNORED
from zonecp.config import ZoneConfig
from zonecp.dataplane.config import IGNORED as AGENT_IGNORED
from zonecp.dataplane.config import Config as AgentConfig
from zonecp.dataplane.document import read_dataplane
from zonemesh.resources.catalogue import KINDS
from zonemesh.runtime import config as configuration
from zonemesh.runtime.redisserver import find_redis_server, wait_ready

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
LOADERS = {
    "globalcp": (GlobalConfig, GLOBAL_IGNORED),
    "zonecp": (ZoneConfig, ZONE_IGNORED),
    "zonedp": (AgentConfig, AGENT_IGNORED),
}


@pytest.mark.parametrize(
    "sample", [path for path in sorted((DEPLOY / "config").iterdir()) if path.stem != "dataplane"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_samples_load_without_warnings(sample: Path) -> None:
    cls, ignored = LOADERS[sample.stem.partition("-")[0]]

    _, warnings = configuration.load(cls, configuration.read_file(sample), {}, ignored=ignored)

    assert warnings == ()


def test_the_sample_dataplane_is_valid() -> None:
    document = read_dataplane(DEPLOY / "config" / "dataplane.yaml", mesh="default", name=None)
    kind = KINDS["Dataplane"]

    kind.validate({"networking": document["networking"]}, document["name"])


@pytest.mark.parametrize("program", LOADERS)
def test_units_start_what_exists(program: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # documented so
    unit.read(DEPLOY / "systemd" / f"{program}.service")
    path, *arguments = shlex.split(unit["Service"]["ExecStart"])
    sample = configuration.read_file(DEPLOY / "config" / f"{program}.yaml")

    assert Path(path).name == program
    check_program(program, arguments)
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
    assert sample["dataDir"] == f"/var/lib/{unit['Service']['StateDirectory']}"


OURS = [name for name, service in COMPOSE["services"].items() if service["image"] == "zonemesh"]


@pytest.mark.parametrize("name", OURS)
def test_compose_services_start_what_exists(name: str) -> None:
    service = COMPOSE["services"][name]
    program, *arguments = service["command"]
    check_program(program, arguments)
    if program == "zonedp":
        return  # its flags are its configuration
    cls, ignored = LOADERS[program]

    _, warnings = configuration.load(cls, {}, service["environment"], ignored=ignored)

    assert warnings == ()


def test_compose_mounts_what_exists() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if "/" in source else source in COMPOSE["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")  # nothing has authentication


def test_the_sample_redis_configuration_starts_a_durable_server(tmp_path: Path) -> None:
    text = (DEPLOY / "redis" / "redis.conf").read_text()
    settings = dict(
        line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction"}

    assert {name: settings[name] for name in wanted} == wanted
    conf = tmp_path / "redis.conf"
    port = free_port()
    conf.write_text(text.replace("dir /data", f"dir {tmp_path}"))
    binary = find_redis_server(os.environ)
    log = tmp_path / "log"
    with subprocess.Popen(
        [binary, conf, "--port", str(port), "--bind", "127.0.0.1", "--logfile", log]
    ) as server:
        try:
            wait_ready(server, directory=tmp_path, port=port, log=log, timeout_s=10)
        finally:
            server.kill()


# Alerts

GROUPS = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression reads, by Prometheus's grammar; raises ValueError."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_name_metrics_and_runbooks_that_exist(rule: dict[str, Any]) -> None:
    names = metrics_of(rule["expr"])
    document, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert names
    assert names <= set(inventory.metrics())
    assert anchor in anchors(ROOT / document)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_have_the_form_that_prometheus_takes(rule: dict[str, Any]) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))

    assert rule.keys() <= RULE_KEYS
    assert rule["labels"]["severity"] in {"critical", "warning"}
    promql_parser.parse_duration(rule.get("for", "1s"))
    assert used <= {"instance", "zone", "pool", "inbound", "reason"}


def test_alerts_are_called_differently() -> None:
    names = [rule["alert"] for rule in RULES]

    assert len(set(names)) == len(names)


def test_an_expression_that_prometheus_would_refuse_is_one_here() -> None:
    with pytest.raises(ValueError, match="invalid promql"):
        metrics_of("increase(zonemesh_resyncs_total) > 0 oops")


def test_every_metric_with_a_limit_is_alerted_on() -> None:
    described = rows(section(ROOT / "docs" / "operations.md", "## Metrics"))
    # Others' last cell says what to look for, which no rule can.
    limited = {
        name
        for name, cells in described.items()
        if re.match(r"[01]$|[01] for|>|any increase|none of", cells[-1])
    }
    alerted = {name for rule in RULES for name in re.findall(r"\w+", rule["expr"])}

    assert limited - alerted == set()
    assert "zonemesh_uplink_refused" in limited
