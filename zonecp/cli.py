"""The command `zonecp`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import structlog
import yaml

from zonecp.config import IGNORED, ZoneConfig
from zonemesh import __version__
from zonemesh.errors import ConfigError
from zonemesh.runtime import config as configuration
from zonemesh.runtime.main import report, run_main

_FILE = click.option(
    "-c",
    "--config-file",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="YAML file; environment variables ZONEMESH_… override it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The control plane of one zone: registrations, addresses, names, the feed."""


@cli.command()
@_FILE
def run(file: Path | None) -> None:
    """Run until SIGTERM or Ctrl-C."""
    from zonecp import app  # noqa: PLC0415 -- `config` and `version` need none of it
    from zonemesh.runtime import logging  # noqa: PLC0415

    config, warnings = _load(file, os.environ)
    logging.configure(config.log.level, config.log.format)
    for warning in warnings:
        structlog.get_logger().warning("config_ignored", detail=warning)
    dump = configuration.dump(config)
    sys.exit(run_main(lambda stop: app.run(config, dump, stop)))


@cli.command("config")
@_FILE
def show(file: Path | None) -> None:
    """Print the effective configuration, secrets masked."""
    config, warnings = _load(file, os.environ)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(yaml.safe_dump(configuration.dump(config), sort_keys=False), nl=False)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonecp {__version__}")


def _load(file: Path | None, environ: Mapping[str, str]) -> tuple[ZoneConfig, tuple[str, ...]]:
    try:
        document = {} if file is None else configuration.read_file(file)
        return configuration.load(ZoneConfig, document, environ, ignored=IGNORED)
    except ConfigError as error:
        sys.exit(report(error))


def main() -> None:
    cli(prog_name="zonecp")
