"""The command `zonecp`."""

from __future__ import annotations

from zonecp.config import IGNORED, ZoneConfig
from zonemesh.runtime.command import Check, Run, make_command


def _find() -> tuple[Run[ZoneConfig], Check[ZoneConfig]]:
    from zonecp import app  # noqa: PLC0415 -- `version` needs none of it

    return app.run, app.check


cli = make_command(
    "zonecp",
    "The control plane of one zone: registrations, addresses, names, the feed.",
    ZoneConfig,
    IGNORED,
    _find,
)


def main() -> None:
    cli(prog_name="zonecp")
