"""DNS messages on the wire: queries read, replies put together. Pure.

Only what a server needs that never compresses names: whoever wants to see a whole message as
values uses dnspython, which takes 30 times as long.

Sources: RFC 1035 §4 (messages), 2308 §3 (SOA in negative answers), 6891 (EDNS), 9619 (one
question), draft-vixie-dnsext-dns0x20 (the question is echoed with its case kept).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from zonemesh.errors import InputError

UDP_BYTES_MAX: Final = 512
"""What a UDP client takes that does not say otherwise (RFC 1035 §4.2.1)."""

EDNS_BYTES_MAX: Final = 1232
"""What fits every path without fragments (DNS flag day 2020)."""

TCP_BYTES_MAX: Final = 65_535
HEADER_BYTES: Final = 12

A, SOA, PTR, TXT, AAAA, SRV = 1, 6, 12, 16, 28, 33
OPT, IXFR, AXFR, ANY = 41, 251, 252, 255
CLASS_IN: Final = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
BADVERS: Final = 16

QR, OPCODE, AA, TC, RD = 0x80, 0x78, 0x04, 0x02, 0x01
"""In the first octet of the flags."""

RA, AD, CD, RCODE = 0x80, 0x20, 0x10, 0x0F
"""In the second."""

NAME_POINTER: Final = 0xC000
QUESTION_POINTER: Final = NAME_POINTER + HEADER_BYTES

TYPE_NAMES: Final = {
    A: "A", AAAA: "AAAA", ANY: "ANY", 2: "NS", 5: "CNAME", SOA: "SOA", PTR: "PTR", 15: "MX",
    TXT: "TXT", SRV: "SRV", 64: "SVCB", 65: "HTTPS",
}  # fmt: skip
"""Metric labels, so that a client cannot make up new ones."""

_HEADER: Final = Struct("!HBBHHHH")
_RECORD_REST: Final = Struct("!HHIH")
_OPT_RECORD: Final = Struct("!BHHBBHH")
_SOA_NUMBERS: Final = Struct("!IIIII")
_SRV_NUMBERS: Final = Struct("!HHH")


class MalformedError(Exception):
    """The header can be read and the rest cannot; always caught."""


class Edns(NamedTuple):
    version: int
    udp_bytes: int
    dnssec_ok: bool
    options: bool
    """Whether it carries any."""


class Query(NamedTuple):
    """A well-formed query with one question."""

    high: int
    """First octet of its flags."""

    low: int
    question: bytes
    key: bytes
    """The name asked for, in lower case."""

    qtype: int
    qclass: int
    edns: Edns | None


class Reply(NamedTuple):
    """What `render` puts behind a question."""

    rcode: int = NOERROR
    flags: int = 0
    answer_count: int = 0
    answers: bytes = b""
    authority: bytes = b""
    """One record, or nothing."""

    additional_count: int = 0
    additional: bytes = b""


def wire_name(name: str) -> bytes:
    """A name as it is looked up: labels with their lengths, ASCII letters in lower case.

    Raises:
        InputError: Not a name that a query could ask for.
    """
    try:
        labels = name.lower().removesuffix(".").encode("ascii").split(b".")
    except UnicodeEncodeError:
        raise InputError(f"{name!r} is not an ASCII name") from None
    wire = b"".join([bytes((len(label) & 0xFF,)) + label for label in labels]) + b"\0"
    if len(wire) > 255 or not all(0 < len(label) <= 63 for label in labels):
        raise InputError(f"{name!r} is not a name of at most 255 octets in labels of 1..63")
    return wire


def text_name(key: bytes) -> str:
    """Undo `wire_name`; octets that are no ASCII are escaped, as no name of a map has them."""
    return b".".join(labels_of(key)).decode("ascii", "backslashreplace")


def labels_of(key: bytes) -> list[bytes]:
    labels = []
    at = 0
    while key[at]:
        labels.append(key[at + 1 : at + 1 + key[at]])
        at += 1 + key[at]
    return labels


def parse(packet: bytes) -> Query:
    """Read a query of at least `HEADER_BYTES`.

    Raises:
        MalformedError: Not one question, a compressed one, or anything that does not end where
            the packet does.
    """
    _, high, low, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if questions != 1:
        raise MalformedError
    name = _question_name(packet)
    end = HEADER_BYTES + len(name) + 4
    edns = _parse_records(packet, end, answers + authorities + additionals)
    return Query(
        high,
        low,
        packet[HEADER_BYTES:end],
        name.lower(),
        int.from_bytes(packet[end - 4 : end - 2], "big"),
        int.from_bytes(packet[end - 2 : end], "big"),
        edns,
    )


def question_end(packet: bytes) -> int:
    """Where the question of a well-formed query ends."""
    return HEADER_BYTES + len(_question_name(packet)) + 4


def udp_limit(query: Query) -> int:
    """How long a UDP reply may be, by what the query says itself."""
    return UDP_BYTES_MAX if query.edns is None else max(UDP_BYTES_MAX, query.edns.udp_bytes)


def skip_name(packet: bytes, at: int) -> int:
    """Where a name ends that starts at `at`; its pointers are not followed."""
    while at < len(packet):
        length = packet[at]
        if not length:
            return at + 1
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    raise MalformedError


def _question_name(packet: bytes) -> bytes:
    at = HEADER_BYTES
    # Octets 5 to 1 from the end are at most type and class.
    while at + 5 <= len(packet) and at < HEADER_BYTES + 255:
        length = packet[at]
        if not length:
            return packet[HEADER_BYTES : at + 1]
        if length > 63:  # a pointer has nothing before it to point at
            break
        at += 1 + length
    raise MalformedError


def _parse_records(packet: bytes, at: int, count: int) -> Edns | None:
    """Walk over everything behind the question; it must end where the packet does."""
    edns = None
    for _ in range(count):
        owner_root = at < len(packet) and packet[at] == 0
        at = skip_name(packet, at)
        if at + _RECORD_REST.size > len(packet):
            raise MalformedError
        rtype, udp_bytes, ttl, length = _RECORD_REST.unpack_from(packet, at)
        at += _RECORD_REST.size + length
        if rtype == OPT:
            if edns is not None or not owner_root:  # RFC 6891 §6.1.1
                raise MalformedError
            edns = Edns(ttl >> 16 & 0xFF, udp_bytes, bool(ttl & 0x8000), length > 0)
    if at != len(packet):
        raise MalformedError
    return edns


def render(packet: bytes, query: Query, reply: Reply) -> bytes:
    edns = query.edns
    additional_count = reply.additional_count + (edns is not None)
    return b"".join(
        (
            packet[:2],
            bytes((QR | reply.flags | query.high & RD, RA | query.low & CD | reply.rcode & 0xF)),
            b"\0\1",
            reply.answer_count.to_bytes(2, "big"),
            b"\0\1" if reply.authority else b"\0\0",
            additional_count.to_bytes(2, "big"),
            query.question,
            reply.answers,
            reply.authority,
            reply.additional,
            b"" if edns is None else _opt(edns, reply.rcode),
        )
    )


def refusal(packet: bytes, rcode: int) -> bytes:
    """The reply to a well-formed query that nobody can answer."""
    return render(packet, parse(packet), Reply(rcode=rcode))


def bare(packet: bytes, rcode: int) -> bytes:
    """A reply without a question, to what has none that can be read."""
    flags = bytes((QR | packet[2] & (OPCODE | RD), RA | rcode))
    return packet[:2] + flags + bytes(8)


def _opt(edns: Edns, rcode: int) -> bytes:
    dnssec_ok = 0x8000 if edns.dnssec_ok else 0  # RFC 3225 §3: copied
    return _OPT_RECORD.pack(0, OPT, EDNS_BYTES_MAX, rcode >> 4, 0, dnssec_ok, 0)


def record(owner: int, rtype: int, ttl_s: int, data: bytes) -> bytes:
    """A resource record; `owner` is where in the message its name starts."""
    pointer = (NAME_POINTER + owner).to_bytes(2, "big")
    return pointer + _RECORD_REST.pack(rtype, CLASS_IN, ttl_s, len(data)) + data


def soa(owner: int, ttl_s: int) -> bytes:
    """The record that tells a resolver for how long it may remember that there is nothing.

    There is no zone to transfer and no one to write to, so the other fields are constants.
    """
    domain = (NAME_POINTER + owner).to_bytes(2, "big")
    numbers = _SOA_NUMBERS.pack(1, 3600, 600, 86_400, ttl_s)
    return record(owner, SOA, ttl_s, b"\2ns" + domain + b"\x0ahostmaster" + domain + numbers)


def srv(owner: int, ttl_s: int, port: int, target: bytes) -> bytes:
    """RFC 2782; the target is not compressed. There is one target, hence nothing to weigh."""
    return record(owner, SRV, ttl_s, _SRV_NUMBERS.pack(0, 0, port) + target)
