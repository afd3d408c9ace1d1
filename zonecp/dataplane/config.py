"""The agent's configuration; keys that Kuma's kuma-dp has are named as there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from zonecp.dataplane.forward import RESOLV_CONF, parse_address
from zonecp.dataplane.resolver import wire_name
from zonemesh.errors import ConfigError, InputError
from zonemesh.names import resource_name_fault
from zonemesh.runtime.config import setting
from zonemesh.runtime.sections import LogConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    urls: tuple[str, ...] = setting(("http://127.0.0.1:5681",), key="url")
    """Of the zone's REST; several, separated by commas, are tried in turn."""

    silence_s: float = setting(5.0, minimum=2.0)
    """Without a word of the zone for so long, the feed is opened anew. Heartbeats come each 1 s."""

    drop_share_max: float = setting(0.5, minimum=0.0, maximum=1.0)
    """A zone whose map lacks more than this share of the names held is not believed at once."""

    drop_patience_s: float = setting(60.0, minimum=0.0)
    """... but after saying so for this long."""

    def __post_init__(self) -> None:
        faults = [
            f"urls: {url!r} is not http://host:port"
            for url in self.urls
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname
        ]
        if faults or not self.urls:
            raise ConfigError(faults or ["urls: at least one"])
        object.__setattr__(self, "urls", tuple(url.rstrip("/") for url in self.urls))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataplane:
    mesh: str = "default"
    name: str | None = None
    """Needed unless `dataplaneRuntime.resourcePath` names a document that has one."""

    readiness_address: str = "127.0.0.1"
    readiness_port: int = setting(9902, minimum=0, maximum=65535, kuma_env=("KUMA_READINESS_PORT",))
    """Of /metrics, /healthy and /ready."""

    drain_time: float = setting(5.0, duration=True, minimum=0.0, maximum=600.0)
    """At the stop: between telling the zone that inbounds are not ready and withdrawing them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataplaneRuntime:
    resource_path: Path | None = None
    """A Dataplane to register; without it only names are served."""

    token: str | None = setting(None, secret=True)
    """Sent to the zone as `Authorization: Bearer`."""

    token_path: Path | None = None
    """A file that has it, read anew for each request."""

    def __post_init__(self) -> None:
        if self.token_path == Path():  # empty: Kuma's default
            object.__setattr__(self, "token_path", None)
        if self.token and self.token_path:
            raise ConfigError(["token: and tokenPath: give one of them"])
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError(["token: is not one line of ASCII"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    addresses: tuple[str, ...] = ("127.0.0.1",)
    proxy_port: int = setting(15053, minimum=0, maximum=65535)
    domains: tuple[str, ...] = ("mesh", "mesh.local")
    """What fails, and is not asked outside, before the first map."""

    negative_ttl_s: float = setting(30.0, key="negativeTtl", minimum=0.0, maximum=86_400.0)
    """For how long a client may remember that a name has no such record."""

    upstreams: tuple[str, ...] = ()
    """For outside names; empty: those of `resolvConf`."""

    resolv_conf: Path = RESOLV_CONF
    upstream_timeout_s: float = setting(2.0, minimum=0.05, maximum=30.0)
    mode: str = "proxy"
    """proxy: the agent answers on proxyPort. coredns: a CoreDNS answers on coreDnsPort, and the
    agent behind it on agentPort of 127.0.0.1."""

    core_dns_port: int = setting(15053, minimum=1, maximum=65535)
    agent_port: int = setting(15056, minimum=1, maximum=65535)
    envoy_dns_port: int = setting(15054, minimum=1, maximum=65535)
    core_dns_empty_port: int = setting(15055, minimum=1, maximum=65535)
    prometheus_port: int = setting(19153, minimum=0, maximum=65535)
    """CoreDNS's own metrics; 0: none."""

    core_dns_binary_path: str = "coredns"
    core_dns_config_template_path: Path | None = None
    """Before the zone's template, and that before the built-in one."""

    core_dns_logging: bool = setting(
        False,  # noqa: FBT003 -- a default
        kuma_env=("KUMA_DNS_ENABLE_LOGGING", "KUMA_DNS_CORE_DNS_LOGGING"),
    )
    core_dns_forward_to: str = "agent"
    """Whom the built-in template asks for names of the mesh: agent, or envoy (its DNS filter)."""

    config_dir: Path | None = None
    """Where the Corefile is; None: `coredns` in dataDir."""

    hosts_file: Path | None = None
    """Kept as the map is; None: no such file."""

    def __post_init__(self) -> None:
        faults = [
            *_faults("upstreams", self.upstreams, parse_address),
            *_faults("addresses", self.addresses, lambda ip: parse_address(f"[{ip}]")),
            *_faults("domains", self.domains, wire_name),
        ]
        if not self.addresses:
            faults.append("addresses: at least one")
        for name in ("core_dns_config_template_path", "config_dir", "hosts_file"):
            if getattr(self, name) == Path():  # empty: Kuma's default
                object.__setattr__(self, name, None)
        faults += _not_among("mode", self.mode, ("proxy", "coredns"))
        faults += _not_among("core_dns_forward_to", self.core_dns_forward_to, ("agent", "envoy"))
        ports = (self.core_dns_port, self.agent_port, self.envoy_dns_port, self.core_dns_empty_port)
        if self.mode == "coredns" and len({*ports, self.prometheus_port}) < len(ports) + 1:
            faults.append(
                "mode: coredns needs distinct coreDnsPort, agentPort, envoyDnsPort,"
                " coreDnsEmptyPort and prometheusPort"
            )
        if faults:
            raise ConfigError(faults)

    @property
    def behind_coredns(self) -> bool:
        return self.mode == "coredns"

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """Where the agent itself answers."""
        return ("127.0.0.1",) if self.behind_coredns else self.addresses

    @property
    def own_port(self) -> int:
        return self.agent_port if self.behind_coredns else self.proxy_port

    @property
    def port(self) -> int:
        """Where applications are to ask."""
        return self.core_dns_port if self.behind_coredns else self.proxy_port


def _not_among(name: str, value: str, choices: tuple[str, ...]) -> list[str]:
    return [] if value in choices else [f"{name}: {value!r} is none of {', '.join(choices)}"]


def _faults(name: str, values: tuple[str, ...], parse: Callable[[str], object]) -> Iterator[str]:
    for value in values:
        try:
            parse(value)
        except InputError as error:
            yield f"{name}: {error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    control_plane: ControlPlane = field(default_factory=ControlPlane)
    dataplane: Dataplane = field(default_factory=Dataplane)
    dataplane_runtime: DataplaneRuntime = field(default_factory=DataplaneRuntime)
    dns: Dns = field(default_factory=Dns)
    data_dir: Path = Path("/var/lib/zonedp")
    """Where the last map is kept. Each agent of a host needs its own."""

    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        name = self.dataplane.name
        if name is not None and (fault := resource_name_fault(name)) is not None:
            raise ConfigError([f"dataplane.name: {name!r} {fault}"])
        if name is None and self.dataplane_runtime.resource_path is None:
            raise ConfigError(
                ["dataplane.name: must be given (--name), or a Dataplane (--dataplane-file)"]
            )


IGNORED = {
    "controlPlane.retry": "the agent tries for ever, after 0.1 s to 5 s",
    "dataplane.adminPort": "there is no Envoy admin interface",
    "dataplane.proxyType": "only Dataplanes are registered",
    "dataplaneRuntime.binaryPath": "no Envoy is started",
    "dataplaneRuntime.dynamicConfiguration": "changes are pushed",
}
"""Keys of kuma-dp without a meaning here: a warning each."""
