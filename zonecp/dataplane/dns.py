"""The DNS server's sockets: UDP in batches, TCP as in RFC 7766, the same answers on both."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from zonecp.dataplane import mmsg
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.message import EDNS_BYTES_MAX, TCP_BYTES_MAX, UDP_BYTES_MAX
from zonecp.dataplane.resolver import Answer, Forward, Table
from zonemesh.errors import ConfigError

log = structlog.get_logger(__name__)

QUERY_BYTES_MAX: Final = 4096
"""No query with a use is longer; a question is at most 271 bytes, the rest is EDNS options."""

RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""About 5,000 small datagrams: what arrives while the process is not scheduled."""

TCP_CONNECTIONS_MAX: Final = 256
TCP_IDLE_S: Final = 10.0
TCP_PIPELINE_MAX: Final = 32
"""Queries of one connection that wait for an upstream; the next one is not read before."""

_SO_RCVBUFFORCE: Final = 33
"""Linux, not in `socket`: beyond net.core.rmem_max, for those with CAP_NET_ADMIN."""


Resolver = Callable[[bytes, int], Answer]
"""As `Table.answer`."""


class Server:
    """Answers on every (address, port), once bound; a component for `supervise`."""

    def __init__(
        self,
        table: Table,
        forwarder: Forwarder,
        *,
        addresses: tuple[str, ...],
        port: int,
        shared: bool = False,
        own_probe: Callable[[bytes], bytes | None] = lambda _: None,
    ) -> None:
        """Args:
        table: What is known here.
        forwarder: What is asked otherwise.
        addresses: Where to listen.
        port: On all of them, UDP and TCP.
        shared: Other processes of this agent listen there too (SO_REUSEPORT).
        own_probe: Answers what this agent asked itself (`LoopProbe.answer`).
        """
        self.port = port
        """The one chosen, once bound, where 0 was asked."""

        self.connections = 0
        self.connections_refused = 0
        self._table = table
        self._forwarder = forwarder
        self._addresses = addresses
        self._shared = shared
        self._own_probe = own_probe
        self._answer: Resolver = table.answer
        self._udp: list[socket.socket] = []
        self._tcp: list[socket.socket] = []
        self._batches: list[mmsg.Batches] = []
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def bound(self) -> bool:
        return bool(self._udp)

    @property
    def unsent(self) -> int:
        return sum(batches.unsent for batches in self._batches)

    def bind(self, *, first: bool = True) -> None:
        """Take the sockets.

        Args:
            first: Nobody of this agent listens yet: a shared port must be free.

        Raises:
            ConfigError: One of them is in use, not permitted, or not an address of this host.
        """
        if first and self._shared and self.port:
            # With SO_REUSEPORT alone, two agents would share a port and not know.
            self._bind(shared=False)
            self.close()
        self._bind(shared=self._shared)

    def _bind(self, *, shared: bool) -> None:
        faults = []
        for address in self._addresses:
            try:
                self._udp.append(_listen(address, self.port, socket.SOCK_DGRAM, shared=shared))
                self.port = self._udp[-1].getsockname()[1]
                self._tcp.append(_listen(address, self.port, socket.SOCK_STREAM, shared=shared))
            except OSError as error:
                faults.append(_fault(address, self.port, error))
        if faults:
            self.close()
            raise ConfigError(faults)

    def answer_by(self, answer: Resolver) -> None:
        """Let another answer from now on; `Table.answer` did until now."""
        self._answer = answer
        if self._tasks is not None:
            for index, sock in enumerate(self._udp):
                self._read_udp(asyncio.get_running_loop(), index, sock)

    def answer_early(self) -> None:
        """Answer over UDP what the table knows, until `run`; what it does not know is dropped."""
        for index, sock in enumerate(self._udp):
            self._read_udp(asyncio.get_running_loop(), index, sock)

    def close(self) -> None:
        with suppress(RuntimeError):  # no loop: nobody reads
            loop = asyncio.get_running_loop()
            for sock in self._udp:
                loop.remove_reader(sock)
        for sock in (*self._udp, *self._tcp):
            sock.close()
        self._udp.clear()
        self._tcp.clear()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        try:
            async with asyncio.TaskGroup() as self._tasks:
                for index, sock in enumerate(self._udp):
                    self._read_udp(loop, index, sock)
                servers = [
                    await asyncio.start_server(self._accept, sock=sock) for sock in self._tcp
                ]
                log.info("dns_serving", addresses=self._addresses, port=self.port)
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            for server in servers:
                server.close()
            self.close()

    def _read_udp(self, loop: asyncio.AbstractEventLoop, index: int, sock: socket.socket) -> None:
        def forward(packet: bytes, sender: mmsg.Sender) -> None:
            if self._tasks is not None:
                self._tasks.create_task(self._forward_udp(sock, packet, sender))

        if mmsg.is_supported():
            if index == len(self._batches):
                self._batches.append(
                    mmsg.Batches(
                        sock, query_bytes_max=QUERY_BYTES_MAX, reply_bytes_max=EDNS_BYTES_MAX
                    )
                )
            serve = self._batches[index].serve
            loop.add_reader(sock, serve, self._answer, UDP_BYTES_MAX, self._kept_udp, forward)
        else:
            loop.add_reader(sock, _serve_one_by_one, sock, self._answer, self._kept_udp, forward)

    def _kept_udp(self, packet: bytes) -> bytes | None:
        return self._kept(packet, tcp=False)

    def _kept(self, packet: bytes, *, tcp: bool) -> bytes | None:
        """The reply to what is to be forwarded and need not be."""
        return self._own_probe(packet) or self._forwarder.kept(packet, tcp=tcp)

    async def _forward_udp(self, sock: socket.socket, packet: bytes, sender: mmsg.Sender) -> None:
        _send(sock, await self._forwarder.forward(packet, tcp=False), sender)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._tasks is not None
        if self.connections >= TCP_CONNECTIONS_MAX:
            self.connections_refused += 1
            writer.transport.abort()
            return
        self.connections += 1
        self._tasks.create_task(self._serve_tcp(reader, writer))

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        room = asyncio.Semaphore(TCP_PIPELINE_MAX)
        try:
            async with asyncio.TaskGroup() as forwards:
                while (packet := await _read_message(reader)) is not None:
                    reply = self._answer(packet, TCP_BYTES_MAX)
                    if isinstance(reply, Forward):
                        reply = self._kept(packet, tcp=True) or reply
                    if isinstance(reply, Forward):
                        await room.acquire()
                        forwards.create_task(self._forward_tcp(writer, packet, room))
                    elif reply is None or not await _write_message(writer, reply):
                        break
        finally:
            self.connections -= 1
            writer.close()

    async def _forward_tcp(
        self, writer: asyncio.StreamWriter, packet: bytes, room: asyncio.Semaphore
    ) -> None:
        try:
            await _write_message(writer, await self._forwarder.forward(packet, tcp=True))
        finally:
            room.release()


async def _read_message(reader: asyncio.StreamReader) -> bytes | None:
    """The next query; None at the end, and where a connection is of no more use."""
    try:
        async with asyncio.timeout(TCP_IDLE_S):
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(size) if size <= QUERY_BYTES_MAX else None
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None


async def _write_message(writer: asyncio.StreamWriter, reply: bytes) -> bool:
    """Whether the client still takes replies."""
    try:
        writer.write(len(reply).to_bytes(2, "big") + reply)
        async with asyncio.timeout(TCP_IDLE_S):
            await writer.drain()
    except (OSError, TimeoutError):
        writer.transport.abort()
        return False
    return True


def _send(sock: socket.socket, reply: bytes, receiver: mmsg.Sender) -> None:
    # The client asks again; whoever waited for room in the socket would answer too late.
    with suppress(OSError):
        sock.sendto(reply, receiver)


def _serve_one_by_one(
    sock: socket.socket, answer: Resolver, kept: mmsg.Kept, forward: mmsg.Forwarding
) -> None:
    for _ in range(mmsg.BATCH):
        try:
            packet, sender = sock.recvfrom(QUERY_BYTES_MAX)
        except OSError:  # BlockingIOError: nothing is left
            return
        reply = answer(packet, UDP_BYTES_MAX)
        if isinstance(reply, Forward):
            found = kept(packet)
            if found is None:
                forward(packet, sender)
            else:
                _send(sock, found, sender)
        elif reply is not None:
            _send(sock, reply, sender)


def _listen(address: str, port: int, kind: socket.SocketKind, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.settimeout(0)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(TCP_CONNECTIONS_MAX)
    except OSError:
        sock.close()
        raise
    return sock


def _fault(address: str, port: int, error: OSError) -> str:
    where = f"DNS on {address} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where}: in use by another process (dns.proxyPort, dns.agentPort)"
        case errno.EACCES | errno.EPERM:
            return f"{where}: not permitted; ports below 1024 need CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return f"{where}: not an address of this host (dns.addresses, --dns-address)"
        case _:
            return f"{where}: {error.strerror or error}"
