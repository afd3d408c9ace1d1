"""The command `zonedp`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click
import structlog
import yaml

from zonecp.dataplane import options
from zonecp.dataplane.config import Config
from zonemesh import __version__
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime import config as configuration
from zonemesh.runtime.lazy import LazyGroup
from zonemesh.runtime.main import STOP_S, report, run_main

_ELSEWHERE: Final = {
    "coredns": "zonecp.dataplane.coredns.cli:coredns",
    "lookup": "zonecp.dataplane.asking:lookup",
    "querylog": "zonecp.dataplane.asking:querylog",
    "redirect": "zonecp.dataplane.redirect.cli:redirect",
    "resolver": "zonecp.dataplane.hostcommand:resolver",
    "status": "zonecp.dataplane.asking:status",
}
"""Commands by where they are: `run` is in a hurry, and needs none of them."""


@click.group(
    cls=LazyGroup, elsewhere=_ELSEWHERE, context_settings={"help_option_names": ["-h", "--help"]}
)
def cli() -> None:
    """The agent beside a workload: registers it, and answers DNS for the names of the mesh."""


@cli.command()
@options.file_and_flags
def run(file: Path | None, **flags: Any) -> None:
    """Run until SIGTERM or Ctrl-C."""
    from zonecp.dataplane import early  # noqa: PLC0415 -- `config` and `version` need none of it
    from zonemesh.runtime import logging  # noqa: PLC0415

    config, warnings = _load(file, flags)
    logging.configure(config.log.level, config.log.format)
    for warning in warnings:
        structlog.get_logger().warning("config_ignored", detail=warning)
    stop_s = STOP_S + config.dataplane.drain_time_s
    sys.exit(run_main(lambda stop: early.run(config, stop), stop_s=stop_s))


@cli.command("config")
@options.file_and_flags
def show(file: Path | None, **flags: Any) -> None:
    """Print the effective configuration, secrets masked."""
    config, warnings = _load(file, flags)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(yaml.safe_dump(configuration.dump(config), sort_keys=False), nl=False)


@cli.group()
def envoy() -> None:
    """Configuration for an Envoy that somebody else runs."""


@envoy.command("bootstrap")
@options.file_and_flags
def envoy_bootstrap(file: Path | None, **flags: Any) -> None:
    """Print what to start Envoy with (YAML): it then asks this agent, or watches its files."""
    from zonecp.dataplane.envoy import cli as envoy_cli  # noqa: PLC0415

    config, _ = _load(file, flags)
    click.echo(envoy_cli.bootstrap_text(config, _name(config)), nl=False)


@envoy.command("config")
@click.option("--format", "form", type=click.Choice(["static", "lds", "cds"]), default="static")
@options.file_and_flags
def envoy_config(file: Path | None, form: str, **flags: Any) -> None:
    """Print Envoy's configuration as of now, from the zone, or else from the agent's disk.

    `static` is all that an Envoy needs (YAML); `lds` and `cds` are files for it to watch (JSON).
    """
    from zonecp.dataplane.document import configured_dataplane  # noqa: PLC0415
    from zonecp.dataplane.envoy import cli as envoy_cli  # noqa: PLC0415

    config, _ = _load(file, flags)
    document = configured_dataplane(config)
    try:
        text = envoy_cli.config_text(config, _name(config), document, form)
    except UnavailableError as error:
        sys.exit(report(error))
    click.echo(text, nl=False)


def _name(config: Config) -> str:
    from zonecp.dataplane.document import configured_dataplane  # noqa: PLC0415

    document = configured_dataplane(config)
    return str(config.dataplane.name if document is None else document["name"])


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonedp {__version__}")


@cli.command(hidden=True)
@click.argument("descriptor", type=int)
def worker(descriptor: int) -> None:
    """Answer DNS for the agent that started this process."""
    from zonecp.dataplane import worker as process  # noqa: PLC0415 -- see `run`

    sys.exit(run_main(lambda stop: process.run(descriptor, stop)))


def _load(file: Path | None, flags: dict[str, Any]) -> tuple[Config, tuple[str, ...]]:
    from zonecp.dataplane.coredns.parts import own_source  # noqa: PLC0415 -- see `run`
    from zonecp.dataplane.document import configured_dataplane  # noqa: PLC0415

    try:
        config, warnings = options.load(file, flags, os.environ)
        configured_dataplane(config)
        own_source(config.dns)
    except ConfigError as error:
        sys.exit(report(error))
    return config, warnings


def main() -> None:
    cli(prog_name="zonedp")
