"""The demo's ports: fixed ones that a person can type, or free ones for tests."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass, fields
from typing import Self

from zonemesh.errors import ConfigError

HOST = "127.0.0.1"
NOBODY = 9
"""Where nobody listens, or discards what comes (RFC 863)."""

AUTO_RANGE = (20_000, 32_000)
"""Below what Linux gives to outgoing connections, which could take a port before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    redis: int = 6399
    global_1: int = 5681
    global_1_diagnostics: int = 5680
    global_2: int = 5691
    global_2_diagnostics: int = 5690
    west: int = 6681
    west_diagnostics: int = 6680
    east: int = 7681
    east_diagnostics: int = 7680
    west_dns: int = 16053
    west_agent_diagnostics: int = 16902
    east_dns: int = 17053
    east_agent_diagnostics: int = 17902
    service: int = 16379
    """The service that runs in west."""
    web: int = 18080
    """Of the service that runs in both zones, at its VIP; its instances' ports are the next two."""
    web_west: int = 18081
    web_east: int = 18082
    web_dns: int = 18053
    web_agent_diagnostics: int = 18902
    web_envoy_admin: int = 18901

    @classmethod
    def auto(cls) -> Self:
        """Ports that are free now."""
        return cls(**dict(zip(_NAMES, free(len(_NAMES)), strict=True)))

    def check(self) -> None:
        """Raises ConfigError: One of them is in use."""
        for name in _NAMES:
            port = getattr(self, name)
            if not is_free(port):
                fault = (
                    f"port {port} ({_ABOUT[name]}) is in use: stop what holds it"
                    f" (`ss -tulnp | grep :{port}` names it), or use other ports:"
                    ' make demo ARGS="--ports auto"'
                )
                raise ConfigError([fault])


_NAMES = tuple(field.name for field in fields(Ports))
_ABOUT = {name: name.replace("_1", "-1").replace("_2", "-2").replace("_", " ") for name in _NAMES}


def free(count: int) -> list[int]:
    """Distinct free ports."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*AUTO_RANGE)
        if port not in found and is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether both TCP and UDP can be bound (DNS wants both)."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                # As the servers do: a connection of the run before in TIME_WAIT is no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True
