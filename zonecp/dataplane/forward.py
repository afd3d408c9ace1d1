"""What is not a name of the mesh, asked of the system's resolvers.

An answer is believed if it comes from the server asked, to the random port that asked, with the
random ID and the question of the query (RFC 5452).
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple, cast

import structlog

from zonecp.dataplane.resolver import (
    EDNS_BYTES_MAX,
    HEADER_BYTES,
    NOTIMP,
    REFUSED,
    SERVFAIL,
    edns_limit,
    question_end,
    refusal,
)
from zonemesh.errors import ConfigError, UnavailableError

log = structlog.get_logger(__name__)

RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLV_CONF_CHECK_S: Final = 1.0
SERVERS_MAX: Final = 3
"""As in resolv.conf(5): three timeouts are more than any client waits."""

IN_FLIGHT_MAX: Final = 1_000
SOCKETS: Final = 4
"""Per server; a random one is taken for each query."""

SOCKET_QUERIES_MAX: Final = 64
"""Then its port has been seen often enough, and another one is opened."""

_QR, _TC, _RCODE = 0x80, 0x02, 0x0F
_PASSED_OVER: Final = frozenset({SERVFAIL, NOTIMP, REFUSED})
"""Where the next server may know better: what a client with several resolvers does (glibc)."""


class Address(NamedTuple):
    ip: str
    port: int


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
        self._own = own
        self._configured = tuple(configured)
        self._mtime_ns: int | None = None
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
        try:
            mtime_ns = self._resolv_conf.stat().st_mtime_ns
            if mtime_ns == self._mtime_ns:
                return
            text = self._resolv_conf.read_text(errors="replace")
        except OSError as error:
            mtime_ns, text = -1, ""
            if self._mtime_ns != mtime_ns:
                log.warning("resolv_conf_unreadable", error=str(error))
        if mtime_ns != self._mtime_ns:
            self._mtime_ns = mtime_ns
            self._take(parse_resolv_conf(text))

    def _take(self, found: Sequence[Address]) -> None:
        self._servers = tuple(server for server in found if not self._own(server))[:SERVERS_MAX]
        if self._servers:
            log.info("upstreams_set", servers=[f"{ip} {port}" for ip, port in self._servers])
        else:
            log.warning("no_upstream", found=len(found), effect="outside names are REFUSED")


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


class Forwarder:
    """Asks one server after the other; every query gets an answer."""

    def __init__(
        self,
        servers: Servers,
        *,
        timeout_s: float = 2.0,
        observe: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Args:
        servers: Whom to ask.
        timeout_s: For one server.
        observe: Told how long an answer took, in seconds.
        """
        self.in_flight = 0
        self.failures: Counter[str] = Counter()
        """By reason: timeout, unreachable, full."""

        self._servers = servers
        self._timeout_s = timeout_s
        self._observe = observe
        self._pools: dict[Address, _Pool] = {}
        self._preferred: Address | None = None

    async def forward(self, packet: bytes, *, tcp: bool) -> bytes:
        """The reply to a query that `Table.answer` called FORWARD, as its client is to get it."""
        servers = self._servers.current(asyncio.get_running_loop().time())
        if not servers:
            return refusal(packet, REFUSED)
        if self.in_flight >= IN_FLIGHT_MAX:
            self.failures["full"] += 1
            return refusal(packet, SERVFAIL)
        self.in_flight += 1
        try:
            reply = await self._ask_servers(packet, servers, tcp=tcp)
        finally:
            self.in_flight -= 1
        return refusal(packet, SERVFAIL) if reply is None else packet[:2] + reply[2:]

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    async def _ask_servers(
        self, packet: bytes, servers: tuple[Address, ...], *, tcp: bool
    ) -> bytes | None:
        reply = None
        for server in self._order(servers):
            try:
                reply = await self._ask(server, packet, tcp=tcp)
            except UnavailableError as error:
                self.failures[str(error)] += 1
                continue
            if len(servers) == 1 or reply[3] & _RCODE not in _PASSED_OVER:
                self._preferred = server
                break
        return reply

    def _order(self, servers: tuple[Address, ...]) -> tuple[Address, ...]:
        """The one that answered last first; a single one twice, since UDP loses packets."""
        if len(servers) == 1:
            return servers * 2
        if self._preferred not in servers:
            return servers
        at = servers.index(self._preferred)
        return servers[at:] + servers[:at]

    async def _ask(self, server: Address, packet: bytes, *, tcp: bool) -> bytes:
        """Ask one server.

        Raises:
            UnavailableError: It did not answer; the message is the reason as a metric label.
        """
        started_s = time.perf_counter()  # the loop's clock counts milliseconds
        try:
            async with asyncio.timeout(self._timeout_s):
                if tcp:
                    reply = await _ask_tcp(server, packet)
                else:
                    reply = await self._ask_udp(server, packet)
        except TimeoutError:
            self._pool(server).close()  # the path may have changed under a connected socket
            raise UnavailableError("timeout") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise UnavailableError("unreachable") from error
        self._observe(time.perf_counter() - started_s)
        return reply

    async def _ask_udp(self, server: Address, packet: bytes) -> bytes:
        reply = await (await self._pool(server).ask(packet))
        # Short of what the client can take, the server's own limit has cut the answer.
        if not reply[2] & _TC or edns_limit(packet) <= EDNS_BYTES_MAX:
            return reply
        whole = await _ask_tcp(server, packet)
        return whole if len(whole) <= edns_limit(packet) else reply

    def _pool(self, server: Address) -> _Pool:
        if server not in self._pools:
            self._pools[server] = _Pool(server)
        return self._pools[server]


async def _ask_tcp(server: Address, packet: bytes) -> bytes:
    query = secrets.token_bytes(2) + packet[2:]
    reader, writer = await asyncio.open_connection(server.ip, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not _matches(reply, query[:2], _question(packet)):
        raise ConnectionError("an answer to something else")
    return reply


def _question(packet: bytes) -> bytes:
    return packet[HEADER_BYTES : question_end(packet)].lower()


def _matches(reply: bytes, query_id: bytes, question: bytes) -> bool:
    return (
        len(reply) >= HEADER_BYTES
        and reply[:2] == query_id
        and bool(reply[2] & _QR)
        and reply[4:6] == b"\0\1"
        and reply[HEADER_BYTES : HEADER_BYTES + len(question)].lower() == question
    )


class _Pool:
    """A few connected sockets to one server; the kernel picks a random port for each."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._sockets: dict[int, _Socket] = {}
        self._opening = asyncio.Lock()

    async def ask(self, packet: bytes) -> asyncio.Future[bytes]:
        async with self._opening:
            slot = random.SystemRandom().randrange(SOCKETS)
            sock = self._sockets.get(slot)
            if sock is None or not sock.usable:
                if sock is not None:
                    sock.retire()
                _, sock = await asyncio.get_running_loop().create_datagram_endpoint(
                    _Socket, remote_addr=self._server
                )
                self._sockets[slot] = sock
            return sock.ask(packet)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.retire()
        self._sockets.clear()


class _Socket(asyncio.DatagramProtocol):
    """One source port: queries by their ID."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[bytes, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._queries = 0
        self._retired = False

    @property
    def usable(self) -> bool:
        return not self._retired and self._queries < SOCKET_QUERIES_MAX

    def ask(self, packet: bytes) -> asyncio.Future[bytes]:
        assert self._transport is not None
        query_id = secrets.token_bytes(2)
        while query_id in self._waiting:  # SOCKET_QUERIES_MAX of 65,536 at most
            query_id = secrets.token_bytes(2)
        self._queries += 1
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[query_id] = _question(packet), future
        future.add_done_callback(lambda _: self._forget(query_id))
        self._transport.sendto(query_id + packet[2:])
        return future

    def retire(self) -> None:
        """Close once nothing is awaited any more."""
        self._retired = True
        if self._transport is not None and not self._waiting:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # One in all but its base class, on some versions of asyncio and on uvloop.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, _addr: object) -> None:
        question, future = self._waiting.get(data[:2], (b"", None))
        if future is not None and not future.done() and _matches(data, data[:2], question):
            future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        for _, future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._retired = True
        self.error_received(exc or ConnectionError("closed"))

    def _forget(self, query_id: bytes) -> None:
        del self._waiting[query_id]
        if self._retired:
            self.retire()
