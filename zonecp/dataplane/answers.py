"""Upstreams' answers, kept for as long as they may be: RFC 1035 §3.2.1, RFC 2308 §5. Pure."""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import Final, NamedTuple

from zonecp.dataplane.message import (
    AD,
    CD,
    HEADER_BYTES,
    NOERROR,
    NXDOMAIN,
    OPT,
    RCODE,
    RD,
    SOA,
    TC,
    MalformedError,
    Query,
    skip_name,
)

BYTES_MAX: Final = 8 << 20
"""Of replies; an entry has some 500 more."""

REPLY_BYTES_MAX: Final = 4096
"""A longer one is rare, and not worth the room of ten."""

_RECORD_REST: Final = Struct("!HHIH")
_COUNTS: Final = Struct("!HHH")


class Held(NamedTuple):
    reply: bytes
    stored_s: float
    expires_s: float
    ttl_at: tuple[int, ...]
    """Where in the reply its TTLs are."""


def cache_key(query: Query) -> bytes | None:
    """What two queries have in common that may get the same answer; None if that is not known.

    DNSSEC's flags change what a resolver answers. EDNS options may: client subnets, cookies.
    """
    edns = query.edns
    if edns is None:
        kind = 0
    elif edns.options or edns.version:
        return None
    else:
        kind = 3 if edns.dnssec_ok else 1
    return query.question.lower() + bytes((query.high & RD, query.low & (AD | CD), kind))


class Answers:
    """A bounded cache of replies by `cache_key`; the one longest unused goes first."""

    def __init__(self, entries_max: int, *, ttl_s_max: float) -> None:
        """`entries_max` 0 keeps nothing; no reply is kept for longer than `ttl_s_max`."""
        self.bytes = 0
        self._entries_max = entries_max
        self._ttl_s_max = ttl_s_max
        self._held: OrderedDict[bytes, Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: bytes, now_s: float) -> bytes | None:
        """The reply with its TTLs as of now, with the ID and question that it was stored with."""
        held = self._held.get(key)
        if held is None:
            return None
        if now_s >= held.expires_s:
            self._drop(key)
            return None
        self._held.move_to_end(key)
        age_s = int(now_s - held.stored_s)
        return _aged(held, age_s) if age_s else held.reply

    def put(self, key: bytes, reply: bytes, question_end: int, now_s: float) -> None:
        if not self._entries_max or len(reply) > REPLY_BYTES_MAX:
            return
        found = lifetime(reply, question_end)
        if found is None:
            return
        ttl_s, ttl_at = found
        self._drop(key)
        self._held[key] = Held(reply, now_s, now_s + min(ttl_s, self._ttl_s_max), ttl_at)
        self.bytes += len(reply)
        while len(self._held) > self._entries_max or self.bytes > BYTES_MAX:
            self._drop(next(iter(self._held)))

    def clear(self) -> None:
        self._held.clear()
        self.bytes = 0

    def _drop(self, key: bytes) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self.bytes -= len(held.reply)


def _aged(held: Held, age_s: int) -> bytes:
    reply = bytearray(held.reply)
    for at in held.ttl_at:
        ttl_s = int.from_bytes(reply[at : at + 4], "big")
        reply[at : at + 4] = max(ttl_s - age_s, 0).to_bytes(4, "big")
    return bytes(reply)


def lifetime(reply: bytes, question_end: int) -> tuple[int, tuple[int, ...]] | None:
    """For how many seconds a reply may be kept, and where its TTLs are; None if not at all.

    A negative answer needs its SOA, whose MINIMUM is a limit too (RFC 2308 §5).
    """
    rcode = reply[3] & RCODE
    if reply[2] & TC or rcode not in (NOERROR, NXDOMAIN):
        return None
    answers, authorities, additionals = _COUNTS.unpack_from(reply, 6)
    try:
        ttls, ttl_at, has_soa = _ttls(reply, question_end, answers + authorities + additionals)
    except MalformedError:
        return None
    if not ttls or ((rcode == NXDOMAIN or not answers) and not has_soa):
        return None
    ttl_s = min(ttls)
    return (ttl_s, ttl_at) if ttl_s > 0 else None


def _ttls(reply: bytes, at: int, count: int) -> tuple[list[int], tuple[int, ...], bool]:
    ttls, places, has_soa = [], [], False
    for _ in range(count):
        at = skip_name(reply, at)
        if at + _RECORD_REST.size > len(reply):
            raise MalformedError
        rtype, _, ttl_s, length = _RECORD_REST.unpack_from(reply, at)
        end = at + _RECORD_REST.size + length
        if end > len(reply):
            raise MalformedError
        if rtype != OPT:
            ttls.append(ttl_s if ttl_s < 1 << 31 else 0)  # RFC 2181 §8
            places.append(at + 4)
        if rtype == SOA and length >= 22:
            has_soa = True
            ttls.append(int.from_bytes(reply[end - 4 : end], "big"))
        at = end
    return ttls, tuple(places), has_soa


def readdressed(reply: bytes, packet: bytes, question_end: int) -> bytes:
    """A reply to the same question as the reply to this query: its ID and its letters' case."""
    return (
        packet[:2]
        + reply[2:HEADER_BYTES]
        + packet[HEADER_BYTES:question_end]
        + reply[question_end:]
    )
