"""One question to one server: over UDP, and over TCP where that is cut.

An answer is believed if it comes from the server asked, to the random port that asked, with the
random ID and the question of the query (RFC 5452).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, cast

from zonecp.dataplane.message import HEADER_BYTES, QR, TC
from zonecp.dataplane.upstreams import Address
from zonemesh.errors import UnavailableError

RANDOM_BYTES: Final = 512
SOCKETS: Final = 4
"""Per server; a random one is taken for each query."""

SOCKET_QUERIES_MAX: Final = 64
"""Then its port has been seen often enough, and another one is opened."""


class Exchange:
    """The sockets to every server that was asked."""

    def __init__(self, *, timeout_s: float) -> None:
        """`timeout_s` is for one question to one server, and once more for TCP."""
        self._timeout_s = timeout_s
        self._pools: dict[Address, _Pool] = {}

    async def ask(self, server: Address, packet: bytes, question_end: int, *, tcp: bool) -> bytes:
        """The whole reply, or a cut one if TCP gives none; its ID is another than the query's.

        Raises:
            UnavailableError: It did not answer; the message is the reason as a metric label.
        """
        reply = None
        if not tcp:
            reply = await self._ask_udp(server, packet, question_end)
            if not reply[2] & TC:
                return reply
        try:
            async with asyncio.timeout(self._timeout_s):
                return await _ask_tcp(server, packet, question_end)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if reply is None:
                reason = "timeout" if isinstance(error, TimeoutError) else "unreachable"
                raise UnavailableError(reason) from error
        return reply

    def forget(self, server: Address) -> None:
        if (pool := self._pools.pop(server, None)) is not None:
            pool.close()

    def close(self) -> None:
        for server in list(self._pools):
            self.forget(server)

    async def _ask_udp(self, server: Address, packet: bytes, question_end: int) -> bytes:
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = _Pool(server)
        try:
            sock = pool.ready() or await pool.open()
            return await sock.ask(packet, question_end, self._timeout_s)
        except TimeoutError:
            self.forget(server)  # the path may have changed under a connected socket
            raise UnavailableError("timeout") from None
        except OSError as error:
            raise UnavailableError("unreachable") from error


async def _ask_tcp(server: Address, packet: bytes, question_end: int) -> bytes:
    query = secrets.token_bytes(2) + packet[2:]
    reader, writer = await asyncio.open_connection(server.ip, server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if reply[:2] != query[:2] or not _matches(reply, packet[HEADER_BYTES:question_end].lower()):
        raise ConnectionError("an answer to something else")
    return reply


def _matches(reply: bytes, question: bytes) -> bool:
    return (
        len(reply) >= HEADER_BYTES
        and bool(reply[2] & QR)
        and reply[4:6] == b"\0\1"
        and reply[HEADER_BYTES : HEADER_BYTES + len(question)].lower() == question
    )


class _Pool:
    """A few connected sockets to one server; the kernel picks a random port for each."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._sockets: list[_Socket | None] = [None] * SOCKETS
        self._slot = 0
        self._opening = asyncio.Lock()
        self._closed = False

    def ready(self) -> _Socket | None:
        self._slot = _RANDOM.take(1)[0] % SOCKETS
        sock = self._sockets[self._slot]
        return sock if sock is not None and sock.usable else None

    async def open(self) -> _Socket:
        async with self._opening:
            slot, sock = self._slot, self.ready()
            if sock is not None:
                return sock
            slot = self._slot
            if (old := self._sockets[slot]) is not None:
                old.retire()
            _, sock = await asyncio.get_running_loop().create_datagram_endpoint(
                _Socket, remote_addr=self._server
            )
            self._sockets[slot] = sock
            if self._closed:  # meanwhile: this one question is still asked
                sock.retire_after_use()
            return sock

    def close(self) -> None:
        self._closed = True
        for sock in self._sockets:
            if sock is not None:
                sock.retire()


def _time_out(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class _Random:
    """Unpredictable octets, fetched from the system many at a time: a call per query is 1 µs."""

    def __init__(self) -> None:
        self._octets = b""

    def take(self, count: int) -> bytes:
        if len(self._octets) < count:
            self._octets = secrets.token_bytes(RANDOM_BYTES)
        taken, self._octets = self._octets[-count:], self._octets[:-count]
        return taken


_RANDOM: Final = _Random()


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

    async def ask(self, packet: bytes, question_end: int, timeout_s: float) -> bytes:
        assert self._transport is not None
        query_id = _RANDOM.take(2)
        while query_id in self._waiting:  # a few more than SOCKET_QUERIES_MAX of 65,536 at most
            query_id = _RANDOM.take(2)
        self._queries += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        # Half of what `asyncio.timeout` costs.
        timer = loop.call_later(timeout_s, _time_out, future)
        self._waiting[query_id] = packet[HEADER_BYTES:question_end].lower(), future
        try:
            self._transport.sendto(query_id + packet[2:])
            return await future
        finally:
            timer.cancel()
            del self._waiting[query_id]
            if self._retired:
                self.retire()

    def retire_after_use(self) -> None:
        self._retired = True

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
        if future is not None and not future.done() and _matches(data, question):
            future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        for _, future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._retired = True
        self.error_received(exc or ConnectionError("closed"))
