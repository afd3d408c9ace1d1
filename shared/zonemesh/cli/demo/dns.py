"""Asking an agent over UDP: one socket for many questions."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

TIMEOUT_S = 5.0
"""What a resolver waits for an answer (resolv.conf(5))."""


@dataclass(frozen=True, slots=True)
class Answer:
    rcode: str
    addresses: tuple[str, ...] = ()
    ttl: int | None = None

    @property
    def address(self) -> str | None:
        return self.addresses[0] if self.addresses else None


NO_ANSWER = Answer("no answer")


class Resolver(asyncio.DatagramProtocol):
    """Asks one server. Use `connect`, then `ask`."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._ids = itertools.cycle(range(1, 1 << 16))

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(cls, remote_addr=(host, port))
        return protocol

    async def ask(self, name: str, kind: str = "A", *, timeout_s: float = TIMEOUT_S) -> Answer:
        """One question, one packet: nothing is repeated, so a lost answer is seen as such."""
        assert self._transport is not None
        query = dns.message.make_query(name, kind, id=next(self._ids))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[query.id] = answered
        try:
            self._transport.sendto(query.to_wire())
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            return NO_ANSWER
        finally:
            del self._waiting[query.id]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no subclass of it.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        waiting = self._waiting.get(message.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(_answer(message))

    def error_received(self, exc: Exception) -> None:
        """Nothing listens there: nobody will answer."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(NO_ANSWER)


def _answer(message: dns.message.Message) -> Answer:
    rcode = dns.rcode.to_text(message.rcode())
    for records in message.answer:
        if records.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            return Answer(rcode, tuple(record.address for record in records), records.ttl)
    return Answer(rcode)
