"""The command `zonecp`."""

from __future__ import annotations

from zonecp.config import IGNORED, ZoneConfig
from zonemesh.runtime.command import Run, make_command


def _run() -> Run[ZoneConfig]:
    from zonecp import app  # noqa: PLC0415 -- `config` and `version` need none of it

    return app.run


cli = make_command(
    "zonecp",
    "The control plane of one zone: registrations, addresses, names, the feed.",
    ZoneConfig,
    IGNORED,
    _run,
)


def main() -> None:
    cli(prog_name="zonecp")
