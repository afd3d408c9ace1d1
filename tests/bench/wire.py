"""Clients that cost next to nothing themselves: prepared requests, one socket, no library."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, Self, cast

from zonemesh.cli.demo.mesh import MESH

_HEADER = struct.Struct("!HHHHHH")
_A = struct.pack("!HH", 1, 1)
_RCODE = 0x000F


class Questions(asyncio.DatagramProtocol):
    """Asks one DNS server for A records; an answer is the address's bytes, or None."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, asyncio.Future[bytes | None]] = {}
        self._next = 0

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(cls, remote_addr=(host, port))
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number, flags, _, answers, _, _ = _HEADER.unpack_from(data)
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            found = answers and not flags & _RCODE
            waiting.set_result(data[-4:] if found else None)

    async def ask(self, question: bytes, *, timeout_s: float = 1.0) -> bytes | None:
        assert self._transport is not None
        self._next = number = (self._next + 1) & 0xFFFF
        waiting: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._transport.sendto(_HEADER.pack(number, 0x0100, 1, 0, 0, 0) + question)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            self._waiting.pop(number, None)
            return None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def question(name: str) -> bytes:
    """The question section for a name's A record."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return labels + b"\0" + _A


class Connection:
    """One keep-alive HTTP/1.1 connection to a control plane."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=1 << 20))

    async def send(self, request: bytes) -> int:
        """One request, its answer read to the end; the status."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await self._reader.readexactly(int(line.split(b":")[1]))
        return int(head[9:12])

    def close(self) -> None:
        self._writer.close()


def put(document: dict[str, Any]) -> bytes:
    """A PUT of a Dataplane, ready to send."""
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        f"PUT /meshes/{MESH}/dataplanes/{document['name']} HTTP/1.1\r\nHost: west\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
