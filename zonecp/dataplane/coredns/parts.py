"""What the agent is made of where it runs a CoreDNS, out of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zonecp.dataplane.config import Config, Dns
from zonecp.dataplane.coredns.corefile import Corefile, CorefileError, Value
from zonecp.dataplane.coredns.process import Options, Source
from zonemesh.errors import ConfigError

TEMPLATE_BYTES_MAX = 1 << 20


def options(config: Config) -> Options:
    dns = config.dns
    return Options(
        program=dns.core_dns_binary_path,
        directory=dns.config_dir or config.data_dir / "coredns",
        values=values(dns),
    )


def values(dns: Dns) -> Mapping[str, Value]:
    """What templates are filled in with."""
    return {
        "CoreDNSPort": dns.core_dns_port,
        "EnvoyDNSPort": dns.envoy_dns_port,
        "PrometheusPort": dns.prometheus_port,
        "CoreDNSEmptyPort": dns.core_dns_empty_port,
        "CoreDNSLogging": dns.core_dns_logging,
        "AgentDNSPort": dns.agent_port,
        "ForwardToEnvoy": dns.filtered,
        "BindAddresses": " ".join(dns.addresses),
        "Upstreams": " ".join(dns.upstreams) or str(dns.resolv_conf),
        "HostsFile": "" if dns.hosts_file is None else str(dns.hosts_file),
    }


def own_source(dns: Dns) -> Source | None:
    """The data plane's own template; None if it has none.

    Raises:
        ConfigError: It cannot be read or is not of the template language, with the line.
    """
    path = dns.core_dns_config_template_path
    if path is None:
        return None
    return Source(read_template(path, "dns.coreDnsConfigTemplatePath", values(dns)), str(path))


def read_template(path: Path, key: str, filled: Mapping[str, Value] | None = None) -> Corefile:
    """Read a template that a setting names, and try it on these values.

    Raises:
        ConfigError: It cannot be read, or is not of the template language, with the line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(TEMPLATE_BYTES_MAX + 1)
        if len(text) > TEMPLATE_BYTES_MAX:
            raise CorefileError(f"more than {TEMPLATE_BYTES_MAX} characters")
        template = Corefile.parse(text)
        template.render(filled if filled is not None else values(Dns()))
    except OSError as error:
        raise ConfigError([f"{key}: {path}: {error.strerror}"]) from error
    except (UnicodeDecodeError, CorefileError) as error:
        raise ConfigError([f"{key}: {path}: {error}"]) from error
    return template
