"""The command `globalcp`."""

from __future__ import annotations

from globalcp.config import IGNORED, GlobalConfig
from zonemesh.runtime.command import Check, Run, make_command


def _find() -> tuple[Run[GlobalConfig], Check[GlobalConfig]]:
    from globalcp import app  # noqa: PLC0415 -- `version` needs none of it

    return app.run, app.check


cli = make_command(
    "globalcp",
    "The global control plane: merges all zones and owns the address pools.",
    GlobalConfig,
    IGNORED,
    _find,
)


def main() -> None:
    cli(prog_name="globalcp")
