"""The command `zonecp`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from zonecp.config import IGNORED, ZoneConfig
from zonemesh.errors import MeshError
from zonemesh.runtime import config as configuration
from zonemesh.runtime import logging
from zonemesh.runtime.command import FILE, Check, Flagged, make_command
from zonemesh.runtime.main import report


def _find() -> tuple[Flagged, Check[ZoneConfig]]:
    from zonecp import app  # noqa: PLC0415 -- `version` needs none of it

    return app.run, app.check


cli = make_command(
    "zonecp",
    "The control plane of one zone: registrations, addresses, names, the feed.",
    ZoneConfig,
    IGNORED,
    _find,
    flags={
        "takeover": "Take the zone over from whoever runs it under another UID, or on a copy of"
        " this dataDir: what it has published is adopted, and it ends. For one start only.",
    },
)


@cli.command("leave")
@FILE
def leave(file: Path | None) -> None:
    """Tell global that this zone is gone for good; stop all of its control planes first."""
    from zonecp import app  # noqa: PLC0415 -- as above

    try:
        document = {} if file is None else configuration.read_file(file)
        config, _ = configuration.load(ZoneConfig, document, os.environ, ignored=IGNORED)
        logging.configure(config.log.level, config.log.format)
        position = asyncio.run(app.say_goodbye(config))
    except MeshError as error:
        sys.exit(report(error))
    click.echo(f"zone {config.name} has left ({position}); it is back as soon as it is started")


def main() -> None:
    cli(prog_name="zonecp")
