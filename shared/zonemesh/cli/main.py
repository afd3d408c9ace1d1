"""The command `zonemesh`."""

from __future__ import annotations

import click

from zonemesh import __version__
from zonemesh.cli.apply import apply
from zonemesh.cli.delete import delete
from zonemesh.cli.demo.command import demo
from zonemesh.cli.describe import describe
from zonemesh.cli.doctor import doctor
from zonemesh.cli.explain import explain
from zonemesh.cli.get import get
from zonemesh.cli.joincheck import join_check
from zonemesh.cli.log import log
from zonemesh.cli.snapshot import snapshot
from zonemesh.cli.status import status

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  refused by the control plane, in part or whole, or not answered
  2  the command line is wrong
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
def cli() -> None:
    """Operate a mesh; `zonemesh demo` runs one on this machine.

    `zonemesh snapshot` reads and writes logs where they are kept. The other commands ask a control
    plane over REST: global's, or a zone's for what is written or resolves in that zone. Say which
    with --url or ZONEMESH_URL.
    """


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonemesh {__version__}")


_COMMANDS = (
    get,
    describe,
    apply,
    delete,
    explain,
    status,
    doctor,
    join_check,
    log,
    snapshot,
    demo,
)
for command in _COMMANDS:
    cli.add_command(command)


def main() -> None:
    cli(prog_name="zonemesh")
