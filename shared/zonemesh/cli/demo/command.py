"""The command `zonemesh demo`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Literal

import click
import uvloop

from zonemesh.errors import ConfigError
from zonemesh.runtime.main import report


@click.command()
@click.option("--check", is_flag=True, help="Unattended: check every step, end with a JSON line.")
@click.option(
    "--ports",
    type=click.Choice(["fixed", "auto"]),
    default="fixed",
    show_default=True,
    help="auto: whichever are free.",
)
@click.option(
    "--services",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Load N more services.",
)
def demo(*, check: bool, ports: Literal["fixed", "auto"], services: int) -> None:
    """Run a whole mesh here: two globals, two zones, their agents, and a failover to watch.

    It keeps everything in a temporary directory, and leaves nothing behind.
    """
    from zonemesh.cli.demo.play import play  # noqa: PLC0415 -- other commands need none of it
    from zonemesh.cli.demo.ports import Ports  # noqa: PLC0415
    from zonemesh.runtime.redisserver import find_redis_server  # noqa: PLC0415

    try:
        find_redis_server(os.environ)
        chosen = Ports.auto() if ports == "auto" else Ports()
        chosen.check()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(play(chosen, check=check, services=services))
    except ConfigError as error:
        code = report(error)
    sys.exit(code)
