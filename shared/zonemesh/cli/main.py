"""The command `zonemesh`."""

from __future__ import annotations

import click

from zonemesh import __version__
from zonemesh.cli.demo.command import demo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Operate a mesh; `zonemesh demo` runs one on this machine."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonemesh {__version__}")


cli.add_command(demo)


def main() -> None:
    cli(prog_name="zonemesh")
