"""Says which queries come and what is answered: on demand, a sample of them, and never a flood."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

import structlog

from zonecp.dataplane.message import (
    HEADER_BYTES,
    RCODE,
    TC,
    TYPE_NAMES,
    MalformedError,
    parse,
    text_name,
)
from zonecp.dataplane.resolver import Answer

log = structlog.get_logger(__name__)

_RCODES: Final = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")

Resolver = Callable[[bytes, int], Answer]


class Wanted(NamedTuple):
    """What is to be logged, and until when on the clock of whoever says so."""

    until_s: float = 0.0
    sample: int = 1
    """Every so many queries one is logged."""


class QueryLog:
    """Stands before `Table.answer` while it is on; while it is off, nothing does."""

    def __init__(
        self,
        answer: Resolver,
        install: Callable[[Resolver], None],
        clock: Callable[[], float],
        *,
        per_s: int,
    ) -> None:
        """Args:
        answer: What answers.
        install: Called with what is to answer from now on.
        clock: Seconds, monotonic.
        per_s: No more lines than this each second.
        """
        self.suppressed = 0
        self.wanted = Wanted()
        self._answer = answer
        self._install = install
        self._clock = clock
        self._per_s = per_s
        self._seen = 0
        self._second_s = 0.0
        self._lines = 0
        self._on = False

    @property
    def on(self) -> bool:
        return self._on

    def want(self, wanted: Wanted) -> None:
        """Turn it on, off (a time that is over), or on with another sample."""
        self.wanted = wanted
        on = wanted.until_s > self._clock()
        if on:
            left_s = wanted.until_s - self._clock()
            for_s = None if left_s == inf else round(left_s)
            log.info("query_log_on", for_s=for_s, sample=wanted.sample, per_s=self._per_s)
        elif self._on:
            log.info("query_log_off", suppressed=self.suppressed)
        if on != self._on:
            self._on = on
            self._install(self._logged if on else self._answer)

    def _logged(self, packet: bytes, size_max: int) -> Answer:
        reply = self._answer(packet, size_max)
        self._seen += 1
        if self._seen % self.wanted.sample == 0:
            self._write(packet, reply)
        return reply

    def _write(self, packet: bytes, reply: Answer) -> None:
        now_s = self._clock()
        if now_s >= self.wanted.until_s:
            self.want(Wanted())
            return
        if now_s - self._second_s >= 1.0:
            self._second_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines > self._per_s:
            self.suppressed += 1
            return
        name, qtype = _asked(packet)
        log.info("dns_query", name=name, type=qtype, result=_result(reply), bytes=len(packet))


def _asked(packet: bytes) -> tuple[str, str]:
    try:
        query = parse(packet) if len(packet) >= HEADER_BYTES else None
    except MalformedError:
        query = None
    if query is None:
        return "", ""
    return text_name(query.key) or ".", TYPE_NAMES.get(query.qtype, f"TYPE{query.qtype}")


def _result(reply: Answer) -> str:
    if reply is None:
        return "dropped"
    if not isinstance(reply, bytes):
        return "forwarded"
    rcode = reply[3] & RCODE
    text = _RCODES[rcode] if rcode < len(_RCODES) else f"RCODE{rcode}"
    return f"{text} truncated" if reply[2] & TC else text
