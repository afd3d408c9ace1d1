"""The commands `zonemesh snapshot`: a log as one file, and back."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from zonemesh.cli import output
from zonemesh.cli import snapshotwork as work
from zonemesh.cli.options import form_option, own_log_option, redis_options
from zonemesh.cli.reporting import reporting
from zonemesh.cli.snapshotfacts import facts_of, shown
from zonemesh.cli.snapshotwork import Where
from zonemesh.runtime import logging

P = ParamSpec("P")

_FILE = click.Path(dir_okay=False, allow_dash=True)


def _of_a_log(run: Callable[Concatenate[Where, P], None]) -> Callable[..., None]:
    """Give a command the options that say where a log is."""

    @redis_options
    @own_log_option
    @click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="A zone's dataDir, for its own log; comes before --redis.",
    )
    @functools.wraps(run)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        options: dict[str, Any] = kwargs
        where = Where(
            redis=options.pop("redis"),
            zone=options.pop("zone"),
            directory=options.pop("data_dir"),
        )
        run(where, *args, **kwargs)

    return command


@click.group()
def snapshot() -> None:
    """Save a log as one file, look into it, and found a log again from it."""
    logging.configure("warning")


@snapshot.command()
@click.option(
    "--output", "path", required=True, type=_FILE, help="File, for you alone; - for stdout."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@reporting
@_of_a_log
def save(where: Where, path: str, *, force: bool) -> None:
    """Save a log as it is at one position, while everything runs.

    From Redis it only reads, as a zone does: a user who may read the keys of global's log
    suffices. From a zone's dataDir it reads one transaction of the file.
    """
    work.check_absent(path, force=force)
    backup = asyncio.run(work.save(where))
    octets = work.write(path, backup, force=force)
    facts = asyncio.run(facts_of(backup, octets))
    click.echo(
        f"saved log {facts['log']} at {facts['position']}: {facts['records']} records,"
        f" {octets} octets",
        err=True,
    )


@snapshot.command()
@click.argument("path", metavar="FILE", type=_FILE)
@form_option("text", "json")
@reporting
def inspect(path: str, form: str) -> None:
    """Check a FILE whole, and tell what it holds."""
    backup, octets = work.read(path)
    with work.named(path):
        facts = asyncio.run(facts_of(backup, octets))
    click.echo(output.pretty_json(facts) if form == "json" else shown(facts))


@snapshot.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option(
    "--replace",
    metavar="INCARNATION",
    help="Give up global's log of this incarnation, which is in that Redis.",
)
@reporting
@_of_a_log
def restore(where: Where, path: str, replace: str | None) -> None:
    """Found a log again from a FILE, with every control plane of that log stopped.

    Of global's log: what was made on global is as it was saved. What zones own is as they say,
    once they are heard: no address moves, and what a zone has deleted since goes again.

    Of a zone's own log: the zone then takes over from global what it has published since.
    """
    backup, _ = work.read(path)
    with work.named(path):
        cursor = asyncio.run(work.restore(backup, where, replace=replace))
    click.echo(f"restored log {backup.log}: it stands at {cursor}")
