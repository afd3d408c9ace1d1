"""The configuration of zonecp: Kuma's keys where Kuma has the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zonemesh.errors import ConfigError
from zonemesh.names import dns_label_fault
from zonemesh.runtime import sections
from zonemesh.runtime.config import changed_keys, setting
from zonemesh.runtime.logsection import LogConfig
from zonemesh.runtime.sections import (
    ApiServerConfig,
    DiagnosticsConfig,
    DnsServerConfig,
    RedisConfig,
    SnapshotConfig,
)
from zonemesh.settings import POOLS, Settings

_LOG_SCHEMES = (
    "sqlite",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneNameConfig:
    name: str = "default"
    global_address: str = ""
    """Kuma's address of global. Zones and global meet on Redis here: set redis.url instead."""
    disable_origin_label_validation: bool = True
    """False: as in Kuma, a PUT on a federated zone must carry kuma.io/origin: zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultizoneConfig:
    zone: ZoneNameConfig = field(default_factory=ZoneNameConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPropagationConfig:
    enabled: bool = False
    """Generated MeshServices take over the labels of their Dataplanes, the majority's values."""
    allowed_label_keys: tuple[str, ...] = ()
    """Only these; empty: all but Kuma's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshServiceConfig:
    deletion_grace_period: float = setting(3600.0, duration=True, minimum=0.0)
    """How long a generated MeshService outlives its last Dataplane."""
    label_propagation: LabelPropagationConfig = field(default_factory=LabelPropagationConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalConfig:
    dataplane_cleanup_age: float = setting(72 * 3600.0, duration=True, minimum=0.0)
    """How long a Dataplane outlives its agent; 0: for ever. One that never had one stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    universal: UniversalConfig = field(default_factory=UniversalConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapParams:
    corefile_template_path: Path | None = None
    """As `bootstrapServer.corefileTemplatePath`; Kuma's place of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapServerConfig:
    corefile_template_path: Path | None = None
    """For the CoreDNS of agents that have no template of their own."""
    params: BootstrapParams = field(default_factory=BootstrapParams)

    def __post_init__(self) -> None:
        if len(found := self._templates()) > 1:
            names = " and ".join(sorted(map(str, found)))
            raise ConfigError([f"corefile_template_path: here and in params: {names}"])

    @property
    def template(self) -> Path | None:
        return next(iter(self._templates()), None)

    def _templates(self) -> set[Path]:
        # Kuma's default is an empty path.
        given = (self.corefile_template_path, self.params.corefile_template_path)
        return {path for path in given if path is not None and path != Path()}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLogConfig(LogConfig):
    url: str = ""
    """The zone's own log: sqlite:///path or redis://…; "" is a file in dataDir."""
    password_path: Path | None = None
    """File with the password of that Redis's user; read for each new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkGuardConfig:
    """What a new copy of global's log may lack of the former one without a proof of removal."""

    share: float = setting(0.3, minimum=0.0, maximum=1.0)
    services: int = setting(20, minimum=1)
    """Fewer may go whatever their share."""
    patience: float = setting(600.0, duration=True, minimum=0.0)
    """After so long what is held is believed to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneConfig:
    redis: RedisConfig = field(default_factory=RedisConfig)
    data_dir: Path = Path("zonemesh-zone")
    api_server: ApiServerConfig = field(default_factory=ApiServerConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    multizone: MultizoneConfig = field(default_factory=MultizoneConfig)
    mesh_service: MeshServiceConfig = field(default_factory=MeshServiceConfig)
    dns_server: DnsServerConfig = field(default_factory=DnsServerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    bootstrap_server: BootstrapServerConfig = field(default_factory=BootstrapServerConfig)
    shrink_guard: ShrinkGuardConfig = field(default_factory=ShrinkGuardConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    heartbeat: float = setting(1.0, duration=True, minimum=0.05, maximum=5.0)
    canary: float = setting(5.0, duration=True, minimum=0.0, maximum=60.0)
    """How often a record is changed only to see it arrive everywhere; 0: never."""
    log: OwnLogConfig = field(default_factory=OwnLogConfig)

    def __post_init__(self) -> None:
        faults = []
        zone = self.multizone.zone
        if (fault := dns_label_fault(zone.name)) is not None:
            faults.append(f"multizone.zone.name: {zone.name!r} {fault}")
        if zone.global_address and not self.redis.url:
            faults.append(
                "multizone.zone.globalAddress: zones do not dial global here; set redis.url to"
                " global's Redis instead"
            )
        faults += self.dns_server.faults(cidr for cidrs in POOLS.values() for cidr in cidrs)
        scheme = self.log.url.partition(":")[0]
        if self.log.url and scheme not in _LOG_SCHEMES:
            faults.append(f"log.url: unknown scheme {scheme!r}; use sqlite:///<path> or redis://…")
        if self.log.password_path is not None and scheme in ("", "sqlite"):
            faults.append("log.passwordPath: log.url names no Redis that would ask for a password")
        if faults:
            raise ConfigError(faults)

    @property
    def name(self) -> str:
        return self.multizone.zone.name

    @property
    def federated(self) -> bool:
        return bool(self.redis.url)

    def without_effect(self) -> Sequence[str]:
        """What was set here and is global's to say (`runtime.config.PartlyUsed`)."""
        if not self.federated:
            return ()
        return [
            f"dnsServer.{key}: ignored: global's dnsServer holds in every zone that follows it"
            for key in changed_keys(self.dns_server)
        ]

    @property
    def settings(self) -> Settings:
        propagation = self.mesh_service.label_propagation
        return Settings(
            grace_ms=round(self.mesh_service.deletion_grace_period * 1000),
            propagate=propagation.allowed_label_keys if propagation.enabled else None,
            legacy_cidrs=(self.dns_server.cidr,),
            naming=self.dns_server.naming,
        )

    @property
    def diagnostics_port(self) -> int:
        if self.diagnostics.port >= 0:
            return self.diagnostics.port
        return self.api_server.http.port - 1 if self.api_server.http.port else 0


IGNORED = {
    **{key: why for key, why in sections.IGNORED.items() if key != "bootstrapServer"},
    **{
        f"bootstrapServer.{key}": "agents need no other bootstrap"
        for key in (
            "apiVersion",
            "params.adminAccessLogPath",
            "params.adminAddress",
            "params.adminPort",
            "params.xdsConnectTimeout",
            "params.xdsHost",
            "params.xdsPort",
        )
    },
    "multizone.global": "belongs to globalcp",
    "multizone.zone.kds": "zones and global meet on Redis (redis.url)",
    "ipam": "global's pools hold in every zone, and the usual ones in a zone alone",
    "runtime.kubernetes": "Kubernetes is represented by resources put through the API",
    "runtime.universal.vipRefreshInterval": "addresses are bound at once",
    "runtime.universal.workload": "has no counterpart",
    "defaults": "belongs to globalcp",
    "meshService.generationInterval": "services are generated at once",
}
"""Kuma's keys that mean nothing here, and why: one warning each instead of a refusal."""
