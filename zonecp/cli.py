"""The command `zonecp`."""

from __future__ import annotations

from zonecp.config import IGNORED, ZoneConfig
from zonemesh.runtime.command import Check, Flagged, make_command


def _find() -> tuple[Flagged, Check[ZoneConfig]]:
    from zonecp import app  # noqa: PLC0415 -- `version` needs none of it

    return app.run, app.check


cli = make_command(
    "zonecp",
    "The control plane of one zone: registrations, addresses, names, the feed.",
    ZoneConfig,
    IGNORED,
    _find,
    flags={
        "takeover": "Take the zone over from whoever runs it under another UID, or on a copy of"
        " this dataDir: what it has published is adopted, and it ends. For one start only.",
    },
)


def main() -> None:
    cli(prog_name="zonecp")
