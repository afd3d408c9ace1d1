"""Sections that the configurations of both control planes have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from zonemesh.legacy import Naming
from zonemesh.legacypool import LEGACY_CIDR, check_legacy_pool
from zonemesh.names import hostname_fault
from zonemesh.runtime.config import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfig:
    url: str = ""
    """redis://, rediss://, unix://, redis+sentinel://host:port,…/service or rediss+sentinel://:
    global's Redis. For a zone, empty means one of its own, without a global control plane."""
    key_prefix: str = "zm"
    password_path: Path | None = None
    """File with the password of the URL's user; read for each new connection."""
    wait_replicas: int = setting(0, minimum=0, maximum=10)
    """Replicas that an append waits for, 100 ms at most. Fewer losses in a failover; no promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsServerConfig:
    """Legacy names. Global's hold in every zone that follows it."""

    cidr: str = setting(LEGACY_CIDR, key="CIDR")
    """Where their addresses are, less what the other pools have."""
    domain: str = "mesh"
    service_vip_enabled: bool = True
    """`<kuma.io/service>.<domain>`; the hosts of VirtualOutbounds need nothing of it."""
    service_vip_port: int = setting(80, minimum=1, maximum=65535)

    def faults(self, pools: Iterable[str]) -> list[str]:
        """What is wrong with it beside the other pools' CIDRs."""
        found = check_legacy_pool([self.cidr], pools)
        if (fault := hostname_fault(self.domain)) is not None:
            found.append(f"dnsServer.domain: {self.domain!r} {fault}")
        return found

    @property
    def naming(self) -> Naming:
        return Naming(
            domain=self.domain, port=self.service_vip_port, services=self.service_vip_enabled
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    address: str = "127.0.0.1"
    port: int = setting(5681, minimum=0, maximum=65535)
    advertised_url: str = ""
    """Where standbys reach this replica for writes; "" is http://address:port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    http: HttpConfig = field(default_factory=HttpConfig)
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticsConfig:
    address: str = "127.0.0.1"
    port: int = setting(-1, minimum=-1, maximum=65535)
    """-1: the REST port less one."""
    stale_after: float = setting(10.0, duration=True, minimum=2.0)
    """What is older than this is said to be by `/ready`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    entries: int = setting(20_000, minimum=10)
    bytes: int = setting(48 << 20, minimum=1 << 20)


IGNORED = {
    "environment": "Kubernetes is represented by resources put through the API",
    "mode": "globalcp is always global, zonecp always a zone",
    "store": "state is kept in the log",
    "general": "has no counterpart",
    "metrics": "insights are computed when read",
    "dpServer": "agents follow their zone's feed",
    "xdsServer": "Envoy is not driven by control planes",
    "bootstrapServer": "agents need no bootstrap",
    "guiServer": "has no counterpart",
    "monitoringAssignmentServer": "has no counterpart",
    "coreResources": "statuses are computed when read",
    "experimental": "has no counterpart",
    "apiServer.https": "terminate TLS in front of it",
    "apiServer.authn": "this version has no authentication",
    "apiServer.auth": "this version has no authentication",
}
"""Kuma's keys that mean nothing to either control plane, and why: a warning each, no refusal."""
