"""Whom to ask what is no name of the mesh: configured servers, or those of resolv.conf."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from zonemesh.errors import ConfigError

log = structlog.get_logger(__name__)

RESOLV_CONF: Final = Path("/etc/resolv.conf")
SAVED_SUFFIX: Final = ".before-zonedp"
"""Added to a resolv.conf that `zonedp resolver install` has replaced."""

RESOLV_CONF_CHECK_S: Final = 1.0
SERVERS_MAX: Final = 3
"""As in resolv.conf(5): three timeouts are more than any client waits."""


class Address(NamedTuple):
    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `10.0.0.2`, `10.0.0.2:5353`, `fd00::2` or `[fd00::2]:5353`.

    Raises:
        ConfigError: Not an IP address, or not a port.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        port = port.removeprefix(":") or ("53" if bracket else "")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (_is_ip(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ConfigError([f"{text!r} is not an IP address with or without a port"])
    return Address(host, int(port))


def parse_resolv_conf(text: str) -> tuple[Address, ...]:
    """The `nameserver` lines that hold an address; others are passed over, as resolvers do."""
    words = [line.split() for line in text.splitlines()]
    hosts = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple(Address(host, 53) for host in hosts if _is_ip(host))[:SERVERS_MAX]


def _is_ip(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host.partition("%")[0])
    except OSError:
        return False
    return True


class Servers:
    """Whom to ask now: configured, or from resolv.conf, read again when that changes."""

    def __init__(
        self, configured: Sequence[Address], *, resolv_conf: Path, own: Callable[[Address], bool]
    ) -> None:
        self._resolv_conf = resolv_conf
        self._saved = Path(f"{resolv_conf}{SAVED_SUFFIX}")
        self._own = own
        self._configured = tuple(configured)
        self._stamp: tuple[int, int] | None = None
        self._check_s = 0.0
        self._servers: tuple[Address, ...] = ()

    def current(self, now_s: float) -> tuple[Address, ...]:
        if now_s >= self._check_s:
            # Not before the first question: `own` needs a server that listens.
            if self._configured:
                self._check_s = inf
                self._take(self._configured)
            else:
                self._check_s = now_s + RESOLV_CONF_CHECK_S
                self._read()
        return self._servers

    def _read(self) -> None:
        stamp = _mtime_ns(self._resolv_conf), _mtime_ns(self._saved)
        if stamp == self._stamp:
            return
        found = _nameservers(self._resolv_conf)
        if stamp[1] and all(map(self._own, found)):
            # It names nobody but this agent: what it named before is still there.
            found = _nameservers(self._saved)
        self._stamp = stamp
        self._take(found)

    def _take(self, found: Sequence[Address]) -> None:
        self._servers = tuple(server for server in found if not self._own(server))[:SERVERS_MAX]
        if self._servers:
            log.info("upstreams_set", servers=[str(server) for server in self._servers])
        else:
            log.warning("no_upstream", found=len(found), effect="outside names are REFUSED")


def _nameservers(path: Path) -> tuple[Address, ...]:
    try:
        return parse_resolv_conf(path.read_text(errors="replace"))
    except OSError as error:
        log.warning("resolv_conf_unreadable", path=str(path), error=str(error))
        return ()


def _mtime_ns(path: Path) -> int:
    """0 if it cannot be read."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_own(server: Address, addresses: Sequence[str], port: int) -> bool:
    """Whether a query to `server` would come back to a listener on `addresses`."""
    if server.port != port:
        return False
    return server.ip in addresses or (
        any(address in ("0.0.0.0", "::") for address in addresses)  # noqa: S104 -- compared
        and _is_local(server.ip)
    )


def _is_local(ip: str) -> bool:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((ip, 0))
        except OSError:
            return False
    return True
