"""The command `zonemesh`."""

from __future__ import annotations

from typing import Final

import click

from zonemesh import __version__
from zonemesh.runtime.lazy import LazyGroup

_ELSEWHERE: Final = {
    "apply": "zonemesh.cli.apply:apply",
    "delete": "zonemesh.cli.delete:delete",
    "demo": "zonemesh.cli.demo.command:demo",
    "describe": "zonemesh.cli.describe:describe",
    "doctor": "zonemesh.cli.doctor:doctor",
    "explain": "zonemesh.cli.explain:explain",
    "get": "zonemesh.cli.get:get",
    "log": "zonemesh.cli.log:log",
    "snapshot": "zonemesh.cli.snapshot:snapshot",
    "status": "zonemesh.cli.status:status",
}
"""Commands by where they are: most need neither Redis nor a control plane's parts."""

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  refused by the control plane, in part or whole, or not answered
  2  the command line is wrong
"""


@click.group(
    cls=LazyGroup,
    elsewhere=_ELSEWHERE,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)
def cli() -> None:
    """Operate a mesh; `zonemesh demo` runs one on this machine.

    `zonemesh snapshot` and `log` read logs where they are kept. The other commands ask a control
    plane over REST: global's, or a zone's for what is written or resolves in that zone. Say which
    with --url or ZONEMESH_URL.
    """


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"zonemesh {__version__}")


def main() -> None:
    cli(prog_name="zonemesh")
