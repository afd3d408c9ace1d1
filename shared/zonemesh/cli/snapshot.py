"""The commands `zonemesh snapshot`: a log as one file, and back."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from zonemesh.cli import output
from zonemesh.cli.connection import lines_of
from zonemesh.errors import InputError, MeshError, WireError
from zonemesh.runtime import logging

if TYPE_CHECKING:
    from zonemesh.cli.snapshotwork import Where

# Redis, SQLite and msgpack are imported by the commands that need them: 0.2 s.

P = ParamSpec("P")

_FILE = click.Path(dir_okay=False, allow_dash=True)


def _reporting(run: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into lines and an exit code."""

    @functools.wraps(run)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        logging.configure("warning")
        try:
            run(*args, **kwargs)
        except MeshError as error:
            for number, line in enumerate(lines_of(error)):
                click.echo(line if number else f"Error: {line}", err=True)
            wrong_line = isinstance(error, InputError) and not isinstance(error, WireError)
            sys.exit(2 if wrong_line else 1)

    return command


def _of_a_log(run: Callable[Concatenate[Where, P], None]) -> Callable[P, None]:
    """Give a command the options that say where a log is."""

    @click.option("--redis", envvar="ZONEMESH_REDIS_URL", show_envvar=True, help="Global's Redis.")
    @click.option(
        "--prefix",
        envvar="ZONEMESH_REDIS_KEY_PREFIX",
        show_envvar=True,
        default="zm",
        show_default=True,
        help="redis.keyPrefix of the mesh.",
    )
    @click.option("--zone", help="A zone whose own log is in that Redis (its log.url).")
    @click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="A zone's dataDir, for its own log; comes before --redis.",
    )
    @functools.wraps(run)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        from zonemesh.cli.snapshotwork import Where  # noqa: PLC0415

        options: dict[str, Any] = kwargs
        where = Where(
            url=options.pop("redis"),
            prefix=options.pop("prefix"),
            zone=options.pop("zone"),
            directory=options.pop("data_dir"),
        )
        run(where, *args, **kwargs)

    return command


@click.group()
def snapshot() -> None:
    """Save a log as one file, look into it, and found a log again from it."""


@snapshot.command()
@click.option(
    "--output", "path", required=True, type=_FILE, help="File, for you alone; - for stdout."
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@_reporting
@_of_a_log
def save(where: Where, path: str, *, force: bool) -> None:
    """Save a log as it is at one position, while everything runs.

    From Redis it only reads, as a zone does: a user who may read the keys of global's log
    suffices. From a zone's dataDir it reads one transaction of the file.
    """
    from zonemesh.cli import snapshotwork as work  # noqa: PLC0415
    from zonemesh.cli.snapshotfacts import facts_of  # noqa: PLC0415

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
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of what is told.",
)
@_reporting
def inspect(path: str, form: str) -> None:
    """Check a FILE whole, and tell what it holds."""
    from zonemesh.cli import snapshotwork as work  # noqa: PLC0415
    from zonemesh.cli.snapshotfacts import facts_of, shown  # noqa: PLC0415

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
@_reporting
@_of_a_log
def restore(where: Where, path: str, replace: str | None) -> None:
    """Found a log again from a FILE, with every control plane of that log stopped.

    Of global's log: what was made on global is as it was saved. What zones own is as they say,
    once they are heard: no address moves, and what a zone has deleted since goes again.

    Of a zone's own log: the zone then takes over from global what it has published since.
    """
    from zonemesh.cli import snapshotwork as work  # noqa: PLC0415

    backup, _ = work.read(path)
    with work.named(path):
        cursor = asyncio.run(work.restore(backup, where, replace=replace))
    click.echo(f"restored log {backup.log}: it stands at {cursor}")
