"""The command `zonedp`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog
import yaml

from zonecp.dataplane import asking, hostcommand
from zonecp.dataplane.config import IGNORED, Config
from zonemesh import __version__
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime import config as configuration
from zonemesh.runtime.main import report, run_main

_FLAGS = {
    "--cp-address": ("controlPlane.url", "The zone's REST; several, separated by commas."),
    "--mesh": ("dataplane.mesh", "The mesh of the Dataplane."),
    "--name": ("dataplane.name", "The name of the Dataplane."),
    "--dataplane-file": ("dataplaneRuntime.resourcePath", "A Dataplane to register (YAML)."),
    "--data-dir": ("dataDir", "Where the last map is kept."),
    "--dns-enabled": ("dns.enabled", "Whether DNS is answered (true or false)."),
    "--dns-address": ("dns.addresses", "Where DNS listens; several, separated by commas."),
    "--dns-port": ("dns.proxyPort", "Its port; also --dns-proxy-port."),
    "--workers": ("dns.workers", "Processes that answer DNS."),
    "--upstream": ("dns.upstreams", "Whom to ask for outside names; several, separated by commas."),
    "--dns-enable-logging": ("dns.queryLog", "Whether queries are logged (true or false)."),
    "--binary-path": ("dataplaneRuntime.binaryPath", "The Envoy to run."),
    "--admin-port": ("dataplane.adminPort", "Of Envoy's admin interface."),
    "--dns-mode": ("dns.mode", "`agent`, or `coredns-envoy` for Envoy's own DNS filter."),
    "--envoy-config-dir": ("envoy.configDir", "Where files for an Envoy are kept current."),
    "--diagnostics-port": ("dataplane.readinessPort", "Of /metrics, /healthy and /ready."),
}
"""Flags by the keys that they set."""

_SWITCHES = {
    "--envoy": (
        "envoy.enabled",
        "Run an Envoy: connections to the mesh's addresses go through it.",
    ),
}
"""Flags without a value, which switch on what is off."""

_ALIASES = {"--dns-port": ("--dns-proxy-port",)}
"""What kuma-dp calls them."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _configured(command: Command) -> Command:
    for flag, (key, about) in reversed(_FLAGS.items()):
        variable = configuration.env_name(key)
        names = (flag, *_ALIASES.get(flag, ()))
        command = click.option(*names, variable, help=f"{about} [{key}]")(command)
    for flag, (key, about) in reversed(_SWITCHES.items()):
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The agent beside a workload: registers it, and answers DNS for the names of the mesh."""


@cli.command()
@_configured
def run(file: Path | None, **flags: str | None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    from zonecp.dataplane import app  # noqa: PLC0415 -- `config` and `version` need none of it
    from zonemesh.runtime import logging  # noqa: PLC0415

    config, warnings = _load(file, flags, os.environ)
    logging.configure(config.log.level, config.log.format)
    for warning in warnings:
        structlog.get_logger().warning("config_ignored", detail=warning)
    sys.exit(run_main(lambda stop: app.run(config, stop)))


@cli.command("config")
@_configured
def show(file: Path | None, **flags: str | None) -> None:
    """Print the effective configuration, secrets masked."""
    config, warnings = _load(file, flags, os.environ)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(yaml.safe_dump(configuration.dump(config), sort_keys=False), nl=False)


@cli.group()
def envoy() -> None:
    """Configuration for an Envoy that somebody else runs."""


@envoy.command("bootstrap")
@_configured
def envoy_bootstrap(file: Path | None, **flags: str | None) -> None:
    """Print what to start Envoy with (YAML): it then asks this agent, or watches its files."""
    from zonecp.dataplane.envoy import cli as envoy_cli  # noqa: PLC0415

    config, _ = _load(file, flags, os.environ)
    click.echo(envoy_cli.bootstrap_text(config, _name(config)), nl=False)


@envoy.command("config")
@click.option("--format", "form", type=click.Choice(["static", "lds", "cds"]), default="static")
@_configured
def envoy_config(file: Path | None, form: str, **flags: str | None) -> None:
    """Print Envoy's configuration as of now, from the zone, or else from the agent's disk.

    `static` is all that an Envoy needs (YAML); `lds` and `cds` are files for it to watch (JSON).
    """
    from zonecp.dataplane.envoy import cli as envoy_cli  # noqa: PLC0415
    from zonecp.dataplane.register import configured_dataplane  # noqa: PLC0415

    config, _ = _load(file, flags, os.environ)
    document = configured_dataplane(config)
    try:
        text = envoy_cli.config_text(config, _name(config), document, form)
    except UnavailableError as error:
        sys.exit(report(error))
    click.echo(text, nl=False)


def _name(config: Config) -> str:
    from zonecp.dataplane.register import configured_dataplane  # noqa: PLC0415

    document = configured_dataplane(config)
    return str(config.dataplane.name if document is None else document["name"])


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonedp {__version__}")


for _command in (asking.status, asking.lookup, asking.querylog, hostcommand.resolver):
    cli.add_command(_command)


@cli.command(hidden=True)
@click.argument("descriptor", type=int)
def worker(descriptor: int) -> None:
    """Answer DNS for the agent that started this process."""
    from zonecp.dataplane import worker as process  # noqa: PLC0415 -- see `run`

    sys.exit(run_main(lambda stop: process.run(descriptor, stop)))


def _load(
    file: Path | None, flags: Mapping[str, str | None], environ: Mapping[str, str]
) -> tuple[Config, tuple[str, ...]]:
    # A flag is its variable, given closer by: the same conversions, the same faults.
    given = {variable: value for variable, value in flags.items() if value is not None}
    from zonecp.dataplane.register import configured_dataplane  # noqa: PLC0415 -- see `run`

    try:
        document = {} if file is None else configuration.read_file(file)
        config, warnings = configuration.load(
            Config, document, {**environ, **given}, ignored=IGNORED
        )
        configured_dataplane(config)
    except ConfigError as error:
        sys.exit(report(error))
    return config, warnings


def main() -> None:
    cli(prog_name="zonedp")
