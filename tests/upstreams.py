"""Resolvers that an agent forwards to, doing what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import dns.message

from tests.ports import free_port
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.upstreams import Address, Servers

LOOPBACK = "127.0.0.1"
NAME = "redis.svc.mesh.local"
QR, TC = 0x80, 0x02

Answer = Callable[[bytes, bool], bytes | None]
"""What an upstream makes of a query; the flag says whether it came over TCP."""


def answered(packet: bytes, rcode: int = 0, flags: int = 0) -> bytes:
    return packet[:2] + bytes((QR | flags | packet[2], 0x80 | rcode)) + packet[4:]


def resolved(packet: bytes, count: int = 1) -> bytes:
    query = dns.message.from_wire(packet)
    reply = dns.message.make_response(query)
    lines = [f"{query.question[0].name} 9 IN A 192.0.2.{i}" for i in range(1, count + 1)]
    reply.answer = dns.message.from_text("id 1\n;ANSWER\n" + "\n".join(lines)).answer
    return reply.to_wire()


class Upstream(asyncio.DatagramProtocol):
    """A resolver that does what the test says, on UDP and TCP of one port."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.senders: list[tuple[str, int]] = []
        self.ids: list[bytes] = []
        self.queries: list[tuple[bytes, tuple[str, int]]] = []
        self.address = Address(LOOPBACK, 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.senders.append(addr)
        self.ids.append(data[:2])
        self.queries.append((data, addr))
        reply = self.answer(data, False)
        if reply is not None:
            self.transport.sendto(reply, addr)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.answer(query, True)
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[Upstream]:
    made = Upstream(answer)
    loop = asyncio.get_running_loop()
    port = free_port()
    made.address = Address(LOOPBACK, port)
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=made.address)
    tcp = await asyncio.start_server(made.connected, LOOPBACK, port)
    try:
        yield made
    finally:
        transport.close()
        tcp.close()


def forwarder_to(*servers: Address, timeout_s: float = 0.2, **options: Any) -> Forwarder:
    fixed = Servers(servers, resolv_conf=Path("/nonexistent"), own=lambda _: False)
    return Forwarder(fixed, timeout_s=timeout_s, **options)


def query(name: str = NAME, qtype: str = "A", *, edns: int | None = None) -> dns.message.Message:
    return dns.message.make_query(name, qtype, use_edns=edns is not None, payload=edns or 0)


def addresses_of(reply: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]
