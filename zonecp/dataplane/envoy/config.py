"""The part of the agent's configuration that is about Envoy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zonemesh.errors import ConfigError
from zonemesh.runtime.config import setting

SOCKET_BYTES_MAX: Final = 107
"""Of a Unix socket's path (unix(7)), less the octet that ends it."""

ARRANGEMENTS: Final = ("bound", "redirect", "redirect-single")
FAMILIES: Final = ("auto", "dualstack", "ipv4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    enabled: bool = False
    """Whether connections go through an Envoy that this agent configures."""

    start: bool = True
    """Whether the agent runs it; else somebody does, with what `zonedp envoy bootstrap` prints."""

    socket: Path | None = None
    """Where Envoy asks for its configuration; without it `xds.sock` in `dataDir`."""

    arrangement: str = "bound"
    """How connections reach Envoy: `bound`, `redirect` or `redirect-single`."""

    outbound_port: int = setting(15001, minimum=1, maximum=65535)
    """Where `redirect` arrives."""

    ip_family_mode: str = "auto"
    """`dualstack`, `ipv4`, or what this host has."""

    admin_address: str = "127.0.0.1"
    concurrency: int = setting(2, minimum=1, maximum=1024)
    """Envoy's worker threads."""

    log_level: str = "warning"
    """Of Envoy itself."""

    attach_patience_s: float = setting(10.0, minimum=0.0, maximum=600.0)
    """For how long new names wait for an Envoy that is not there."""

    config_dir: Path | None = None
    """Where files are kept current for an Envoy that reads those instead."""

    def __post_init__(self) -> None:
        faults = [
            f"{name}: {value!r} is not one of {', '.join(allowed)}"
            for name, value, allowed in (
                ("arrangement", self.arrangement, ARRANGEMENTS),
                ("ip_family_mode", self.ip_family_mode, FAMILIES),
            )
            if value not in allowed
        ]
        if faults:
            raise ConfigError(faults)

    def socket_in(self, data_dir: Path) -> Path:
        """Where Envoy asks for its configuration.

        Raises:
            ConfigError: The path is too long for a Unix socket.
        """
        path = (self.socket or data_dir / "xds.sock").absolute()
        if len(bytes(path)) > SOCKET_BYTES_MAX:
            fault = (
                f"envoy.socket: {path} is longer than {SOCKET_BYTES_MAX} octets, the most for"
                " a Unix socket: name a shorter one, e.g. /run/zonedp/xds.sock"
            )
            raise ConfigError([fault])
        return path
