"""What is not a name of the mesh, asked of the system's resolvers: one after the other, remembered
for as long as the answer allows, and never twice at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from zonecp.dataplane.answers import Answers, cache_key, readdressed
from zonecp.dataplane.exchange import Exchange
from zonecp.dataplane.message import (
    FORMERR,
    HEADER_BYTES,
    NOTIMP,
    NXDOMAIN,
    RCODE,
    REFUSED,
    SERVFAIL,
    TC,
    Query,
    Reply,
    parse,
    refusal,
    render,
    udp_limit,
)
from zonecp.dataplane.upstreams import Address, Servers
from zonemesh.errors import UnavailableError

IN_FLIGHT_MAX: Final = 1_000
DOWN_S: Final = 10.0
"""For how long a server that did not answer is asked only after the others."""

_PASSED_OVER: Final = frozenset({SERVFAIL, NOTIMP, REFUSED, FORMERR})
"""Where the next server may know better: what a client with several resolvers does (glibc)."""

CACHE: Final = "cache"
"""The source of an answer that was kept."""


class Resolved(NamedTuple):
    reply: bytes
    source: str
    """A server's address, `CACHE`, or "" where nobody answered."""


class Forwarder:
    """Asks one server after the other; every query gets an answer."""

    def __init__(
        self,
        servers: Servers,
        *,
        timeout_s: float = 2.0,
        alternate_on_nxdomain: bool = False,
        answers: Answers | None = None,
        observe: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Args:
        servers: Whom to ask.
        timeout_s: For one server.
        alternate_on_nxdomain: The next server is asked after NXDOMAIN too.
        answers: Where answers are kept.
        observe: Told how long an answer took, in seconds.
        """
        self.in_flight = 0
        self.failures: Counter[str] = Counter()
        """By reason: timeout, unreachable, full."""

        self.cached = 0
        self.shared = 0
        """Queries that waited for the answer to an equal one."""

        self.looping: frozenset[Address] = frozenset()
        """Servers whose questions come back here: not asked."""

        self.answers = Answers(0, ttl_s_max=0.0) if answers is None else answers
        self.servers = servers
        self.exchange = Exchange(timeout_s=timeout_s)
        self._passed_over = _PASSED_OVER | ({NXDOMAIN} if alternate_on_nxdomain else set())
        self._observe = observe
        self._down_until_s: dict[Address, float] = {}
        self._asking: dict[bytes, asyncio.Future[Resolved]] = {}

    def close(self) -> None:
        self.exchange.close()

    def current(self) -> tuple[Address, ...]:
        """Whom to ask now, in order."""
        now_s = asyncio.get_running_loop().time()
        return tuple(each for each in self.servers.current(now_s) if each not in self.looping)

    def kept(self, packet: bytes, *, tcp: bool) -> bytes | None:
        """The reply to a query that `Table.answer` called FORWARD, if it is known already."""
        return self._kept(packet, parse(packet), tcp=tcp) if len(self.answers) else None

    def _kept(self, packet: bytes, query: Query, *, tcp: bool) -> bytes | None:
        key = cache_key(query)
        reply = None if key is None else self.answers.get(key, time.monotonic())
        if reply is None:
            return None
        self.cached += 1
        return _fitted(reply, packet, query, tcp=tcp)

    async def forward(self, packet: bytes, *, tcp: bool) -> bytes:
        """The reply to such a query, as its client is to get it."""
        return (await self.resolve(packet, tcp=tcp)).reply

    async def resolve(self, packet: bytes, *, tcp: bool) -> Resolved:
        """The same, and where it came from."""
        query = parse(packet)
        if (reply := self._kept(packet, query, tcp=tcp)) is not None:
            return Resolved(reply, CACHE)
        servers = self.current()
        if not servers:
            return Resolved(refusal(packet, REFUSED), "")
        if self.in_flight >= IN_FLIGHT_MAX:
            self.failures["full"] += 1
            return Resolved(refusal(packet, SERVFAIL), "")
        self.in_flight += 1
        try:
            found = await self._share(packet, query, servers, tcp=tcp)
        finally:
            self.in_flight -= 1
        return found._replace(reply=_fitted(found.reply, packet, query, tcp=tcp))

    async def _share(
        self, packet: bytes, query: Query, servers: tuple[Address, ...], *, tcp: bool
    ) -> Resolved:
        key = cache_key(query)
        if key is None:
            return await self._ask_servers(packet, query, servers, tcp=tcp)
        if (asking := self._asking.get(key)) is not None:
            self.shared += 1
            return await asyncio.shield(asking)
        future = self._asking[key] = asyncio.get_running_loop().create_future()
        found = None
        try:
            found = await self._ask_servers(packet, query, servers, tcp=tcp)
        finally:
            del self._asking[key]
            # Broken off: those who wait are not to wait for ever.
            future.set_result(found or Resolved(refusal(packet, SERVFAIL), ""))
        question_end = HEADER_BYTES + len(query.question)
        self.answers.put(key, found.reply, question_end, time.monotonic())
        return found

    async def _ask_servers(
        self, packet: bytes, query: Query, servers: tuple[Address, ...], *, tcp: bool
    ) -> Resolved:
        found = None
        question_end = HEADER_BYTES + len(query.question)
        for server in self._order(servers):
            started_s = time.perf_counter()  # the loop's clock counts milliseconds
            try:
                reply = await self.exchange.ask(server, packet, question_end, tcp=tcp)
            except UnavailableError as error:
                self.failures[str(error)] += 1
                self._down_until_s[server] = time.monotonic() + DOWN_S
                continue
            self._observe(time.perf_counter() - started_s)
            self._down_until_s.pop(server, None)
            found = Resolved(reply, str(server))
            if len(servers) == 1 or reply[3] & RCODE not in self._passed_over:
                break
        return found or Resolved(refusal(packet, SERVFAIL), "")

    def _order(self, servers: tuple[Address, ...]) -> tuple[Address, ...]:
        """As configured, those that did not answer lately last; a single one twice, since UDP
        loses packets.
        """
        if len(servers) == 1:
            return servers * 2
        if not self._down_until_s:
            return servers
        now_s = time.monotonic()
        down = {each: until_s for each, until_s in self._down_until_s.items() if each in servers}
        for server, until_s in down.items():
            if now_s >= until_s:
                # This query tries it again; those that come meanwhile do not wait for it.
                self._down_until_s[server] = now_s + DOWN_S
        return tuple(sorted(servers, key=lambda server: now_s < down.get(server, 0.0)))


def _fitted(reply: bytes, packet: bytes, query: Query, *, tcp: bool) -> bytes:
    """A reply to the same question, for this query and no longer than its client takes."""
    question_end = HEADER_BYTES + len(query.question)
    if tcp or len(reply) <= udp_limit(query):
        return readdressed(reply, packet, question_end)
    return render(packet, query, Reply(rcode=reply[3] & RCODE, flags=TC))
