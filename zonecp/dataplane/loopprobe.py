"""Finds out whether questions to an upstream come back here, also by way of other forwarders.

Each upstream is asked for a name that nobody else knows. Whoever shares this agent's secret answers
it, with a second one: an upstream that gives that answer has it from here.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

import structlog

from zonecp.dataplane.exchange import Exchange
from zonecp.dataplane.forward import Forwarder
from zonecp.dataplane.message import (
    CLASS_IN,
    HEADER_BYTES,
    RD,
    TXT,
    MalformedError,
    Reply,
    parse,
    record,
    render,
    wire_name,
)
from zonecp.dataplane.upstreams import Address
from zonemesh.errors import UnavailableError

log = structlog.get_logger(__name__)

CHECK_S: Final = 1.0
"""How often the servers are compared with those probed."""

REPEAT_S: Final = 30.0
"""Other forwarders change without a word."""

TIMEOUT_S: Final = 1.0
TOKEN_BYTES: Final = 16


class LoopProbe:
    """Keeps `Forwarder.looping`; a component for `supervise`."""

    def __init__(self, forwarder: Forwarder, secret: bytes) -> None:
        """`secret` has twice `TOKEN_BYTES`; one for all processes that answer on a port."""
        asked, answered = secret[:TOKEN_BYTES].hex(), secret[TOKEN_BYTES:].hex()
        # No top-level domain that resolvers answer themselves, as they do `invalid` (RFC 6761).
        self._key = wire_name(f"{asked}.loop-probe.zonemesh")
        self._answered = bytes((len(answered),)) + answered.encode()
        self._forwarder = forwarder
        self._exchange = Exchange(timeout_s=TIMEOUT_S)

    def answer(self, packet: bytes) -> bytes | None:
        """The reply to a probe of this agent's; None to anything else."""
        if packet[HEADER_BYTES : HEADER_BYTES + len(self._key)].lower() != self._key:
            return None
        try:
            query = parse(packet)
        except MalformedError:
            return None
        data = record(HEADER_BYTES, TXT, 0, self._answered)
        return render(packet, query, Reply(answer_count=1, answers=data))

    async def run(self) -> None:
        """Probe at the start, when the servers change, and now and then."""
        clock = asyncio.get_running_loop().time
        probed: tuple[Address, ...] = ()
        due_s = clock()
        try:
            while True:
                servers = self._forwarder.servers.current(clock())
                if servers != probed or clock() >= due_s:
                    probed, due_s = servers, clock() + REPEAT_S
                    await self._probe(servers)
                await asyncio.sleep(CHECK_S)
        finally:
            self._exchange.close()

    async def _probe(self, servers: tuple[Address, ...]) -> None:
        loops = await asyncio.gather(*(self._loops(server) for server in servers))
        before = self._forwarder.looping
        kept = before.intersection(servers)
        found = frozenset(
            server
            for server, loop in zip(servers, loops, strict=True)
            if loop or (loop is None and server in kept)
        )
        self._forwarder.looping = found
        for server in found - before:
            log.error(
                "upstream_loops",
                server=str(server),
                effect="it is not asked",
                remedy="questions to it come back to this agent: set dns.upstreams, or see "
                "whom it forwards to",
            )
        for server in kept - found:
            log.info("upstream_no_longer_loops", server=str(server))

    async def _loops(self, server: Address) -> bool | None:
        """None if it does not answer."""
        packet = secrets.token_bytes(2) + bytes((RD, 0, 0, 1, 0, 0, 0, 0, 0, 0)) + self._key
        packet += TXT.to_bytes(2, "big") + CLASS_IN.to_bytes(2, "big")
        try:
            reply = await self._exchange.ask(server, packet, len(packet), tcp=False)
        except UnavailableError:
            return None
        return self._answered in reply[len(packet) :]
