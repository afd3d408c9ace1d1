"""The configuration of globalcp: Kuma's keys where Kuma has the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zonemesh.errors import ConfigError
from zonemesh.ipam import Pool, check_pools
from zonemesh.runtime import sections
from zonemesh.runtime.config import setting
from zonemesh.runtime.logsection import LogConfig
from zonemesh.runtime.sections import (
    ApiServerConfig,
    DiagnosticsConfig,
    DnsServerConfig,
    SnapshotConfig,
)
from zonemesh.settings import QUOTA_BYTES, QUOTA_SERVICES, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfig(sections.RedisConfig):
    url: str = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshServicePool:
    cidr: tuple[str, ...] = ("241.0.0.0/8",)
    """IPv4 ranges; IPv6 addresses are derived from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshExternalServicePool:
    cidr: tuple[str, ...] = ("242.0.0.0/8",)
    """IPv4 ranges; IPv6 addresses are derived from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshMultiZoneServicePool:
    cidr: tuple[str, ...] = ("243.0.0.0/8",)
    """IPv4 ranges; IPv6 addresses are derived from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamConfig:
    mesh_service: MeshServicePool = field(default_factory=MeshServicePool)
    mesh_external_service: MeshExternalServicePool = field(default_factory=MeshExternalServicePool)
    mesh_multi_zone_service: MeshMultiZoneServicePool = field(
        default_factory=MeshMultiZoneServicePool
    )
    quarantine: float = setting(24 * 3600.0, duration=True, minimum=60.0)
    """How long a released address rests; never less than the TTL that agents answer with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsConfig:
    skip_mesh_creation: bool = False
    skip_hostname_generators: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """What one zone may bring and send; far above what any zone was measured with."""

    services: int = setting(QUOTA_SERVICES, minimum=0)
    bytes: int = setting(QUOTA_BYTES, minimum=0)
    entries_per_second: int = setting(2_000, minimum=1)
    """Entries of its stream that are read on average; beyond that it waits, and nobody else."""
    bytes_per_second: int = setting(16 << 20, minimum=1 << 10)
    stream_bytes: int = setting(256 << 20, minimum=64 << 10)
    """What its stream may take in Redis before it is cut, whatever is not read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneConfig:
    offline_after: float = setting(10.0, duration=True, minimum=2.0)
    """Without a heartbeat for so long, a zone counts as offline."""
    stale_after: float = setting(5.0, duration=True, minimum=1.0)
    """Silent for so long, or so far behind global by its own report, a zone counts as stale."""
    quota: QuotaConfig = field(default_factory=QuotaConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalConfig:
    redis: RedisConfig = field(default_factory=RedisConfig)
    data_dir: Path = Path("zonemesh-global")
    """Where this replica keeps its own copy of the log; one per replica."""
    api_server: ApiServerConfig = field(default_factory=ApiServerConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    ipam: IpamConfig = field(default_factory=IpamConfig)
    dns_server: DnsServerConfig = field(default_factory=DnsServerConfig)
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig)
    zones: ZoneConfig = field(default_factory=ZoneConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    heartbeat: float = setting(1.0, duration=True, minimum=0.05, maximum=5.0)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        faults = check_pools(Pool(name, cidrs) for name, cidrs in self.pools.items())
        faults += self.dns_server.faults(cidr for cidrs in self.pools.values() for cidr in cidrs)
        if faults:
            raise ConfigError(faults)

    @property
    def pools(self) -> dict[str, tuple[str, ...]]:
        return {
            "MeshService": self.ipam.mesh_service.cidr,
            "MeshExternalService": self.ipam.mesh_external_service.cidr,
            "MeshMultiZoneService": self.ipam.mesh_multi_zone_service.cidr,
        }

    @property
    def settings(self) -> Settings:
        return Settings(
            pools=self.pools,
            quarantine_ms=round(self.ipam.quarantine * 1000),
            offline_after_ms=round(self.zones.offline_after * 1000),
            stale_after_ms=round(self.zones.stale_after * 1000),
            legacy_cidrs=(self.dns_server.cidr,),
            naming=self.dns_server.naming,
            quota_services=self.zones.quota.services,
            quota_bytes=self.zones.quota.bytes,
        )

    @property
    def diagnostics_port(self) -> int:
        if self.diagnostics.port >= 0:
            return self.diagnostics.port
        return self.api_server.http.port - 1 if self.api_server.http.port else 0


IGNORED = {
    **sections.IGNORED,
    "multizone": "zones and global meet on Redis (redis.url)",
    "meshService": "belongs to zones",
    "runtime": "belongs to zones",
    "ipam.allocationInterval": "addresses are bound at once",
    "ipam.knownInternalCIDRs": "has no counterpart",
}
"""Kuma's keys that mean nothing here, and why: one warning each instead of a refusal."""
