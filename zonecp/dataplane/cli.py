"""The command `zonedp`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import structlog
import yaml

from zonecp.dataplane import options
from zonecp.dataplane.config import Config
from zonecp.dataplane.coredns.cli import coredns
from zonecp.dataplane.redirect.cli import redirect
from zonemesh import __version__
from zonemesh.errors import ConfigError
from zonemesh.runtime import config as configuration
from zonemesh.runtime.main import STOP_S, report, run_main


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The agent beside a workload: registers it, and answers DNS for the names of the mesh."""


cli.add_command(coredns)
cli.add_command(redirect)


@cli.command()
@options.file_and_flags
def run(file: Path | None, **flags: Any) -> None:
    """Run until SIGTERM or Ctrl-C."""
    from zonecp.dataplane import app  # noqa: PLC0415 -- `config` and `version` need none of it
    from zonemesh.runtime import logging  # noqa: PLC0415

    config, warnings = _load(file, flags)
    logging.configure(config.log.level, config.log.format)
    for warning in warnings:
        structlog.get_logger().warning("config_ignored", detail=warning)
    stop_s = STOP_S + config.dataplane.drain_time
    sys.exit(run_main(lambda stop: app.run(config, stop), stop_s=stop_s))


@cli.command("config")
@options.file_and_flags
def show(file: Path | None, **flags: Any) -> None:
    """Print the effective configuration, secrets masked."""
    config, warnings = _load(file, flags)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(yaml.safe_dump(configuration.dump(config), sort_keys=False), nl=False)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonedp {__version__}")


def _load(file: Path | None, flags: dict[str, Any]) -> tuple[Config, tuple[str, ...]]:
    from zonecp.dataplane.coredns.parts import own_source  # noqa: PLC0415 -- see `run`
    from zonecp.dataplane.register import configured_dataplane  # noqa: PLC0415

    try:
        config, warnings = options.load(file, flags, os.environ)
        configured_dataplane(config)
        own_source(config.dns)
    except ConfigError as error:
        sys.exit(report(error))
    return config, warnings


def main() -> None:
    cli(prog_name="zonedp")
