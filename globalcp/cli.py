"""The command `globalcp`."""

from __future__ import annotations

from globalcp.config import IGNORED, GlobalConfig
from zonemesh.runtime.command import Run, make_command


def _run() -> Run[GlobalConfig]:
    from globalcp import app  # noqa: PLC0415 -- `config` and `version` need none of it

    return app.run


cli = make_command(
    "globalcp",
    "The global control plane: merges all zones and owns the address pools.",
    GlobalConfig,
    IGNORED,
    _run,
)


def main() -> None:
    cli(prog_name="globalcp")
