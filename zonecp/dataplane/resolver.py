"""The names of one mesh, answered: DNS query bytes in, reply bytes out. Pure, and the hot path.

A name costs two `bytes` and a dict slot (about 220 bytes): its wire form in lower case, and its
resource records ready to be appended to an echoed question. Neither is seen by the garbage
collector, so a map of any size costs it nothing.

    value = count of A records (1 octet), count of AAAA records (1 octet), A records, AAAA records
    record = c0 0c (pointer to the question's name), type, class IN, TTL, length, address

Sources: RFC 1035 §4 (messages), 2181 §9 (TC), 2308 §3 (SOA in NODATA), 6891 (EDNS), 8482 (ANY),
draft-vixie-dnsext-dns0x20 (the question is echoed with its case kept).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from zonemesh.errors import InputError


class Forward(Enum):
    """The type of `FORWARD` alone."""

    TOKEN = 0


FORWARD: Final = Forward.TOKEN
"""Not ours to answer: ask an upstream resolver."""

Answer = bytes | Forward | None
"""A reply, FORWARD, or None for what must be dropped."""

UDP_BYTES_MAX: Final = 512
"""What a UDP client takes that does not say otherwise (RFC 1035 §4.2.1)."""

EDNS_BYTES_MAX: Final = 1232
"""What fits every path without fragments (DNS flag day 2020)."""

TCP_BYTES_MAX: Final = 65_535
ADDRESSES_MAX: Final = 255
"""Per name and family: the count is one octet."""

HEADER_BYTES: Final = 12
A, AAAA, OPT, IXFR, AXFR, ANY = 1, 28, 41, 251, 252, 255
CLASS_IN: Final = 1
NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0, 1, 2, 4, 5
BADVERS: Final = 16

_A_RECORD: Final = Struct("!HHHIH4s")
_AAAA_RECORD: Final = Struct("!HHHIH16s")
_HEADER: Final = Struct("!HBBHHHH")
_RECORD_REST: Final = Struct("!HHIH")
_OPT_RECORD: Final = Struct("!BHHBBHH")
_SOA_NUMBERS: Final = Struct("!IIIII")
_NAME_POINTER: Final = 0xC00C
_QUESTION_A: Final = b"\x00\x01\x00\x01"
_QUESTION_AAAA: Final = b"\x00\x1c\x00\x01"

_QR, _OPCODE, _AA, _TC, _RD = 0x80, 0x78, 0x04, 0x02, 0x01
_RA, _CD = 0x80, 0x10

# Query flags and counts -> flags and counts of the reply that holds one record, for the queries
# that are nearly all of them: RD or not, AD (which `dig` sets) and CD or not, and nothing but a
# question.
_PLAIN: Final = {
    bytes([rd, ad | cd, 0, 1, 0, 0, 0, 0, 0, 0]): bytes(
        [_QR | _AA | rd, _RA | cd, 0, 1, 0, 1, 0, 0, 0, 0]
    )
    for rd in (0, _RD)
    for ad in (0, 0x20)
    for cd in (0, _CD)
}


class _Query(NamedTuple):
    """A well-formed query with one question."""

    high: int
    """First octet of its flags."""

    low: int
    question: bytes
    key: bytes
    qtype: int
    qclass: int
    edns: _Edns | None


class _Edns(NamedTuple):
    version: int
    udp_bytes: int
    dnssec_ok: bool


class _MalformedError(Exception):
    """The header can be read and the rest cannot; never leaves this module."""


class Table:
    """Names and addresses, and what to say about them.

    Counts are plain attributes, read by `metrics` when asked: a metrics library's counter would
    cost as much as the answer.
    """

    def __init__(self, domains: Iterable[str], *, negative_ttl_s: int = 30) -> None:
        self.loaded = False
        """A map has been put here, whole: a name that is absent is absent from the mesh."""

        self.answered_a = 0
        self.answered_aaaa = 0
        self.others: Counter[tuple[str, str]] = Counter()
        """Queries by (type, result) that are not in the two counts above."""

        self.touched: set[bytes] | None = None
        """While not None: keys that were put or removed, for the one who keeps a copy."""

        self.negative_ttl_s = negative_ttl_s
        self._entries: dict[bytes, bytes] = {}
        self._domains: frozenset[bytes] = frozenset()
        self.set_domains(domains)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return wire_name(name) in self._entries

    def set_domains(self, domains: Iterable[str]) -> None:
        """Say which domains are the mesh's: those fail, and are not forwarded, before a map."""
        self._domains = frozenset(wire_name(domain) for domain in domains)

    def put(self, key: bytes, entry: bytes) -> bool:
        """Set what `wire_name` and `wire_entry` made. Returns whether that changed anything."""
        if self._entries.get(key) == entry:
            return False
        self._entries[key] = entry
        if self.touched is not None:
            self.touched.add(key)
        return True

    def remove(self, key: bytes) -> bool:
        if self.touched is not None:
            self.touched.add(key)
        return self._entries.pop(key, None) is not None

    def keys(self) -> list[bytes]:
        """About 1 ms at 100,000 names, a quarter of what a copy of the entries takes."""
        return list(self._entries)

    def pick(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The entries of these keys; None for those that are gone."""
        return {key: self._entries.get(key) for key in keys}

    def items(self) -> Iterator[tuple[str, tuple[bytes, ...], int]]:
        """Each name with its packed addresses and its TTL."""
        for key, entry in self._entries.items():
            yield text_name(key), *_addresses(entry)

    def named(self, keys: Iterable[bytes]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """The names of these keys with their packed addresses, without those that are gone."""
        for key, entry in self.pick(keys).items():
            if entry is not None:
                yield text_name(key), _addresses(entry)[0]

    def answer(self, packet: bytes, size_max: int) -> Answer:
        """Answer one message.

        Args:
            packet: As it came from the network; anything at all.
            size_max: The longest reply for a client without EDNS: `UDP_BYTES_MAX` or
                `TCP_BYTES_MAX`.

        Returns:
            The reply, FORWARD, or None for what must be dropped.
        """
        # A key that is found is a whole name, hence the packet is well formed; and one record of
        # the longest name is shorter than every size_max.
        reply_head = _PLAIN.get(packet[2:12])
        if reply_head is not None:
            entry = self._entries.get(packet[12:-4].lower())
            if entry is not None:
                if packet[-4:] == _QUESTION_A:
                    if entry[0] == 1:
                        self.answered_a += 1
                        return packet[:2] + reply_head + packet[12:] + entry[2:18]
                elif packet[-4:] == _QUESTION_AAAA and entry[1] == 1:
                    self.answered_aaaa += 1
                    return packet[:2] + reply_head + packet[12:] + entry[-28:]
        return self._answer_any(packet, size_max)

    def _answer_any(self, packet: bytes, size_max: int) -> Answer:
        if len(packet) < HEADER_BYTES or packet[2] & _QR:
            self.others["", "dropped"] += 1
            return None
        if packet[2] & _OPCODE:
            self.others["", "notimp"] += 1
            return _bare(packet, NOTIMP)
        try:
            query = _parse(packet)
        except _MalformedError:
            self.others["", "formerr"] += 1
            return _bare(packet, FORMERR)
        result, reply = self._decide(packet, query, size_max)
        self.others[_TYPE_LABELS.get(query.qtype, "other"), result] += 1
        return reply

    def _decide(self, packet: bytes, query: _Query, size_max: int) -> tuple[str, bytes | Forward]:
        if query.edns is not None and query.edns.version:
            return "badvers", _reply(packet, query, rcode=BADVERS)
        if query.qclass != CLASS_IN:
            return "refused", _reply(packet, query, rcode=REFUSED)
        entry = self._entries.get(query.key)
        if entry is None:
            # An empty table knows nothing; NXDOMAIN from outside would be believed and cached.
            if not self.loaded and self._apex(query.key) is not None:
                return "servfail", _reply(packet, query, rcode=SERVFAIL)
            return "forwarded", FORWARD
        if query.qtype in (AXFR, IXFR):
            return "refused", _reply(packet, query, rcode=REFUSED)
        count, records = _select(entry, query.qtype)
        if not count:
            soa = _soa(self._apex(query.key), self.negative_ttl_s)
            return "nodata", _reply(packet, query, flags=_AA, authority=soa)
        reply = _reply(packet, query, flags=_AA, count=count, answers=records)
        if len(reply) > _limit(query, size_max):
            return "truncated", _reply(packet, query, flags=_AA | _TC)
        return "answered", reply

    def _apex(self, key: bytes) -> int | None:
        """Where in `key` the longest mesh domain starts that the name is in."""
        at = 0
        while key[at]:
            if key[at:] in self._domains:
                return at
            at += 1 + key[at]
        return None


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
    labels = []
    at = 0
    while key[at]:
        labels.append(key[at + 1 : at + 1 + key[at]])
        at += 1 + key[at]
    return b".".join(labels).decode("ascii")


def wire_entry(addresses: Sequence[bytes], ttl_s: int) -> bytes:
    """The records of one name.

    Args:
        addresses: Packed, 4 or 16 octets each, in the order in which they are to be given.
        ttl_s: RFC 2181 §8: 0 to 2^31 - 1.

    Raises:
        InputError: An address of another length, too many of them, or a TTL out of range.
    """
    if not 0 <= ttl_s < 1 << 31:
        raise InputError(f"a TTL of {ttl_s} s is not in 0..2^31-1")
    v4 = [a for a in addresses if len(a) == 4]
    v6 = [a for a in addresses if len(a) == 16]
    if len(v4) + len(v6) != len(addresses) or max(len(v4), len(v6)) > ADDRESSES_MAX:
        raise InputError(
            f"{len(addresses)} addresses, not at most {ADDRESSES_MAX} of 4 or 16 octets"
        )
    return b"".join(
        [
            bytes((len(v4), len(v6))),
            *[_A_RECORD.pack(_NAME_POINTER, A, CLASS_IN, ttl_s, 4, a) for a in v4],
            *[_AAAA_RECORD.pack(_NAME_POINTER, AAAA, CLASS_IN, ttl_s, 16, a) for a in v6],
        ]
    )


def is_entry(key: bytes, entry: bytes) -> bool:
    """Whether a pair that was stored elsewhere has the shape that `answer` relies on."""
    if len(entry) < 2 or len(entry) != 2 + _A_RECORD.size * entry[0] + _AAAA_RECORD.size * entry[1]:
        return False
    at, end = 0, len(key) - 1
    while at < end and 0 < key[at] <= 63:
        at += 1 + key[at]
    return 0 < at == end < 255 and key[end] == 0 and key == key.lower()


def refusal(packet: bytes, rcode: int) -> bytes:
    """The reply to a query that `answer` called FORWARD and that could not be forwarded."""
    return _reply(packet, _parse(packet), rcode=rcode)


def question_end(packet: bytes) -> int:
    """Where the question of a message ends that `answer` called FORWARD."""
    return HEADER_BYTES + len(_parse_question(packet)) + 4


def edns_limit(packet: bytes) -> int:
    """How long a UDP reply to this well-formed query may be, by what it says itself."""
    edns = _parse(packet).edns
    return UDP_BYTES_MAX if edns is None else max(UDP_BYTES_MAX, edns.udp_bytes)


def _addresses(entry: bytes) -> tuple[tuple[bytes, ...], int]:
    v4_end = 2 + _A_RECORD.size * entry[0]
    v4 = [record[5] for record in _A_RECORD.iter_unpack(entry[2:v4_end])]
    v6 = [record[5] for record in _AAAA_RECORD.iter_unpack(entry[v4_end:])]
    ttl_s = int.from_bytes(entry[8:12], "big")
    return (*v4, *v6), ttl_s


def _parse(packet: bytes) -> _Query:
    _, high, low, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if questions != 1:
        raise _MalformedError
    name = _parse_question(packet)
    end = HEADER_BYTES + len(name) + 4
    edns = _parse_records(packet, end, answers + authorities + additionals)
    return _Query(
        high,
        low,
        packet[HEADER_BYTES:end],
        name.lower(),
        int.from_bytes(packet[end - 4 : end - 2], "big"),
        int.from_bytes(packet[end - 2 : end], "big"),
        edns,
    )


def _parse_question(packet: bytes) -> bytes:
    at = HEADER_BYTES
    # Octets 5 to 1 from the end are at most type and class.
    while at + 5 <= len(packet) and at < HEADER_BYTES + 255:
        length = packet[at]
        if not length:
            return packet[HEADER_BYTES : at + 1]
        if length > 63:  # a pointer has nothing before it to point at
            break
        at += 1 + length
    raise _MalformedError


def _parse_records(packet: bytes, at: int, count: int) -> _Edns | None:
    """Walk over everything behind the question; it must end where the packet does."""
    edns = None
    for _ in range(count):
        owner_root = at < len(packet) and packet[at] == 0
        at = _skip_name(packet, at)
        if at + _RECORD_REST.size > len(packet):
            raise _MalformedError
        rtype, udp_bytes, ttl, length = _RECORD_REST.unpack_from(packet, at)
        at += _RECORD_REST.size + length
        if rtype == OPT:
            if edns is not None or not owner_root:  # RFC 6891 §6.1.1
                raise _MalformedError
            edns = _Edns(ttl >> 16 & 0xFF, udp_bytes, bool(ttl & 0x8000))
    if at != len(packet):
        raise _MalformedError
    return edns


def _skip_name(packet: bytes, at: int) -> int:
    while at < len(packet):
        length = packet[at]
        if not length:
            return at + 1
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    raise _MalformedError


def _select(entry: bytes, qtype: int) -> tuple[int, bytes]:
    v4_end = 2 + _A_RECORD.size * entry[0]
    if qtype == A:
        return entry[0], entry[2:v4_end]
    if qtype == AAAA:
        return entry[1], entry[v4_end:]
    if qtype == ANY:
        return entry[0] + entry[1], entry[2:]
    return 0, b""


def _limit(query: _Query, size_max: int) -> int:
    if query.edns is None:
        return size_max
    return max(size_max, min(query.edns.udp_bytes, EDNS_BYTES_MAX))


def _reply(
    packet: bytes,
    query: _Query,
    *,
    rcode: int = NOERROR,
    flags: int = 0,
    count: int = 0,
    answers: bytes = b"",
    authority: bytes = b"",
) -> bytes:
    return b"".join(
        (
            packet[:2],
            bytes((_QR | flags | query.high & _RD, _RA | query.low & _CD | rcode & 0xF)),
            b"\0\1",
            count.to_bytes(2, "big"),
            b"\0\1" if authority else b"\0\0",
            b"\0\0" if query.edns is None else b"\0\1",
            query.question,
            answers,
            authority,
            b"" if query.edns is None else _opt(query.edns, rcode),
        )
    )


def _opt(edns: _Edns, rcode: int) -> bytes:
    dnssec_ok = 0x8000 if edns.dnssec_ok else 0  # RFC 3225 §3: copied
    return _OPT_RECORD.pack(0, OPT, EDNS_BYTES_MAX, rcode >> 4, 0, dnssec_ok, 0)


def _soa(apex: int | None, ttl_s: int) -> bytes:
    """The record that tells a resolver for how long it may remember that there is nothing.

    Owned by the mesh domain, or by the name itself where it is in none. There is no zone to
    transfer and no one to write to, so the other fields are constants.
    """
    domain = (_NAME_POINTER + (apex or 0)).to_bytes(2, "big")
    data = b"\2ns" + domain + b"\x0ahostmaster" + domain
    data += _SOA_NUMBERS.pack(1, 3600, 600, 86_400, ttl_s)
    return domain + _RECORD_REST.pack(6, CLASS_IN, ttl_s, len(data)) + data


def _bare(packet: bytes, rcode: int) -> bytes:
    """A reply without a question, to what has none that can be read."""
    flags = bytes((_QR | packet[2] & (_OPCODE | _RD), _RA | rcode))
    return packet[:2] + flags + bytes(8)


_TYPE_LABELS: Final = {
    A: "A", AAAA: "AAAA", ANY: "ANY", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX",
    16: "TXT", 33: "SRV", 64: "SVCB", 65: "HTTPS",
}  # fmt: skip
"""Metric labels, so that a client cannot make up new ones."""
