"""Whether a workload is healthy, from probes that passed or failed. Pure.

Source: Kuma's `networking.inbound[].serviceProbe` (interval, timeout, thresholds, tcp); `http` is
an extension. An inbound that is probed is NotReady until its first verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from zonemesh.errors import ConfigError
from zonemesh.runtime.values import UnfitError, parse_duration

INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 2.0
THRESHOLD: Final = 1
"""Kuma's defaults (dpServer.hds.checkDefaults)."""

DURATION_S_MAX: Final = 3600.0
THRESHOLD_MAX: Final = 1_000
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How one inbound is asked."""

    inbound: int
    """Which one of the Dataplane, from 0."""

    name: str
    """Of the inbound, else its port: a metric's label."""

    address: str
    port: int
    path: str | None = None
    """Of an HTTP request; None: that a TCP connection opens is enough."""

    interval_s: float = INTERVAL_S
    timeout_s: float = TIMEOUT_S
    healthy_threshold: int = THRESHOLD
    unhealthy_threshold: int = THRESHOLD


class Health(NamedTuple):
    """What is known of one inbound."""

    ready: bool | None = None
    """None before the first verdict."""

    last: bool | None = None
    run: int = 0
    """How many results like the last one came without another between."""


def step(probe: Probe, health: Health, *, passed: bool) -> Health:
    """Take in one result: as many alike as the threshold says turn the verdict."""
    run = health.run + 1 if passed == health.last else 1
    threshold = probe.healthy_threshold if passed else probe.unhealthy_threshold
    return Health(passed if run >= threshold else health.ready, passed, min(run, THRESHOLD_MAX))


def probes(document: Mapping[str, Any]) -> tuple[Probe, ...]:
    """The probes that a Dataplane asks for.

    Raises:
        ConfigError: Every fault, by its path in the document.
    """
    faults: list[str] = []
    found = []
    networking = document.get("networking")
    for index, inbound in enumerate(_inbounds(document)):
        if "serviceProbe" not in inbound or inbound.get("state") == "Ignored":
            continue
        path = f"networking.inbound[{index}].serviceProbe"
        try:
            assert isinstance(networking, Mapping)
            found.append(_probe(index, inbound, networking, path))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return tuple(found)


def with_states(document: Mapping[str, Any], ready: Mapping[int, bool]) -> dict[str, Any]:
    """A copy of a Dataplane whose inbounds are as `ready` says; others stay as they are."""
    networking = document.get("networking")
    if not ready or not isinstance(networking, Mapping):
        return dict(document)
    inbounds = []
    for index, inbound in enumerate(networking.get("inbound") or ()):
        if index in ready and isinstance(inbound, Mapping):
            changed = {**inbound, "state": "Ready" if ready[index] else "NotReady"}
            if "health" in inbound:  # Kuma 2's spelling, which would otherwise contradict
                changed["health"] = {"ready": ready[index]}
            inbounds.append(changed)
        else:
            inbounds.append(inbound)
    return {**document, "networking": {**networking, "inbound": inbounds}}


def drained(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy of a Dataplane that takes no new connections; None if it took none before."""
    serving = {
        index: False
        for index, inbound in enumerate(_inbounds(document))
        if inbound.get("state") != "Ignored"
    }
    return with_states(document, serving) if serving else None


def _inbounds(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is no mapping stands for nothing: the zone refuses it in its own words."""
    networking = document.get("networking")
    inbounds = networking.get("inbound") if isinstance(networking, Mapping) else None
    for inbound in inbounds if isinstance(inbounds, list) else ():
        yield inbound if isinstance(inbound, Mapping) else {}


def _probe(
    index: int, inbound: Mapping[str, Any], networking: Mapping[str, Any], path: str
) -> Probe:
    settings = inbound["serviceProbe"]
    if not isinstance(settings, Mapping):
        raise ConfigError([f"{path}: a section of keys is expected"])
    reader = _Reader(settings, path)
    interval_s = reader.duration("interval", INTERVAL_S)
    timeout_s = reader.duration("timeout", TIMEOUT_S)
    healthy, unhealthy = reader.count("healthyThreshold"), reader.count("unhealthyThreshold")
    http_path = reader.http_path()
    address, port = _workload(inbound, networking)
    if not isinstance(address, str) or type(port) is not int:
        reader.faults.append(f"{path}: the inbound has no address and port to be probed")
    if reader.faults:
        raise ConfigError(reader.faults)
    return Probe(
        inbound=index,
        name=str(inbound.get("name") or inbound.get("port")),
        address=str(address),
        port=int(port),
        path=http_path,
        interval_s=interval_s,
        timeout_s=timeout_s,
        healthy_threshold=healthy,
        unhealthy_threshold=unhealthy,
    )


def _workload(inbound: Mapping[str, Any], networking: Mapping[str, Any]) -> tuple[Any, Any]:
    """Where it listens: behind the inbound if that says so, as in Kuma; else where clients go."""
    port = inbound.get("servicePort") or inbound.get("port")
    if inbound.get("serviceAddress") or inbound.get("servicePort"):
        return inbound.get("serviceAddress") or LOOPBACK, port
    return inbound.get("address") or networking.get("address"), port


_KNOWN: Final = ("interval", "timeout", "unhealthyThreshold", "healthyThreshold", "tcp", "http")


class _Reader:
    """One serviceProbe; collects faults."""

    def __init__(self, settings: Mapping[str, Any], path: str) -> None:
        self._settings = settings
        self._path = path
        self.faults = [
            f"{path}.{key}: unknown; there are {', '.join(_KNOWN)}"
            for key in settings
            if key not in _KNOWN
        ]
        if "tcp" in settings and "http" in settings:
            self.faults.append(f"{path}: either tcp or http")

    def duration(self, key: str, default_s: float) -> float:
        value = self._settings.get(key)
        if value is None:
            return default_s
        try:
            seconds = parse_duration(str(value))
        except UnfitError as error:
            self.faults.append(f"{self._path}.{key}: {error}")
            return default_s
        if not 0.01 <= seconds <= DURATION_S_MAX:
            self.faults.append(f"{self._path}.{key}: {value} is not in 10ms..1h")
        return seconds

    def count(self, key: str) -> int:
        value = self._settings.get(key)
        if value is None:
            return THRESHOLD
        if type(value) is not int or not 1 <= value <= THRESHOLD_MAX:
            self.faults.append(f"{self._path}.{key}: {value!r} is not in 1..{THRESHOLD_MAX}")
            return THRESHOLD
        return value

    def http_path(self) -> str | None:
        http = self._settings.get("http")
        if http is None:
            return None
        path = http.get("path", "/") if isinstance(http, Mapping) else None
        if not isinstance(path, str) or not path.startswith("/"):
            self.faults.append(f"{self._path}.http.path: must begin with /")
            return None
        return path
