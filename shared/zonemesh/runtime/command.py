"""The command of a control plane: `run`, `config`, `version`; alike but for their words."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import structlog
import yaml

from zonemesh import __version__
from zonemesh.errors import ConfigError
from zonemesh.runtime import config as configuration
from zonemesh.runtime import logging
from zonemesh.runtime.logsection import LogConfig
from zonemesh.runtime.main import report, run_main


class PlaneConfig(Protocol):
    @property
    def log(self) -> LogConfig: ...


C = TypeVar("C", bound=PlaneConfig)
F = TypeVar("F", bound=Callable[..., Any])

Run = Callable[[C, Mapping[str, Any], asyncio.Event], Coroutine[Any, Any, None]]
"""(configuration, its dump, stop) -> the process, until `stop` is set."""

Flagged = Callable[..., Coroutine[Any, Any, None]]
"""As `Run`, with a keyword for each of the command's own flags."""

Check = Callable[[C], None]
"""Raises ConfigError for what only the adapters can tell of a configuration; connects nothing."""

FILE = click.option(
    "-c",
    "--config-file",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="YAML file; environment variables ZONEMESH_… override it.",
)


def _flags(flags: Mapping[str, str]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for name, about in flags.items():
            command = click.option(f"--{name}", is_flag=True, help=about)(command)
        return command

    return add


def make_command(
    name: str,
    about: str,
    config_class: type[C],
    ignored: Mapping[str, str],
    find: Callable[[], tuple[Flagged, Check[C]]],
    *,
    flags: Mapping[str, str] | None = None,
) -> click.Group:
    """Build the command.

    Args:
        name: The console script.
        about: One sentence for its help.
        config_class: The root of its configuration.
        ignored: See `runtime.config.load`.
        find: Imports and answers the process and its check; `version` needs none of it.
        flags: Names of further flags of `run`, and what they do.
    """

    @click.group(name, help=about, context_settings={"help_option_names": ["-h", "--help"]})
    def group() -> None:
        pass

    def load(file: Path | None) -> tuple[C, tuple[str, ...], Flagged]:
        process, check = find()
        try:
            document = {} if file is None else configuration.read_file(file)
            config, warnings = configuration.load(
                config_class, document, os.environ, ignored=ignored
            )
            check(config)
        except ConfigError as error:
            sys.exit(report(error))
        return config, warnings, process

    @group.command()
    @FILE
    @_flags(flags or {})
    def run(file: Path | None, **chosen: bool) -> None:
        """Run until SIGTERM or Ctrl-C."""
        config, warnings, process = load(file)
        logging.configure(config.log.level, config.log.format)
        for warning in warnings:
            structlog.get_logger().warning("config_ignored", detail=warning)
        dump = configuration.dump(config)
        sys.exit(run_main(lambda stop: process(config, dump, stop, **chosen)))

    @group.command("config")
    @FILE
    def show(file: Path | None) -> None:
        """Print the effective configuration, secrets masked."""
        config, warnings, _ = load(file)
        click.echo("".join(f"warning: {warning}\n" for warning in warnings), err=True, nl=False)
        click.echo(yaml.safe_dump(configuration.dump(config), sort_keys=False), nl=False)

    @group.command()
    def version() -> None:
        """Print the version."""
        click.echo(f"{name} {__version__}")

    return group
