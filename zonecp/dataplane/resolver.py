"""The names of one mesh, answered: DNS query bytes in, reply bytes out. Pure, and the hot path.

Names under the mesh's own domains are answered here or do not exist; a name elsewhere that the map
has shadows the outside world, and everything else is forwarded. Reverse names and SRV names are not
kept: they are derived when asked for.

Sources: RFC 2181 §9 (TC), 2308 §2 (NXDOMAIN and NODATA), 2782 (SRV), 8020 (nothing is below
NXDOMAIN, so a name with names below it is NODATA), 8482 (ANY).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, Protocol

from zonecp.dataplane.entry import addresses_of, origin_of, select, ttl_of
from zonecp.dataplane.message import (
    AA,
    ANY,
    AXFR,
    BADVERS,
    CD,
    CLASS_IN,
    EDNS_BYTES_MAX,
    FORMERR,
    HEADER_BYTES,
    IXFR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    OPCODE,
    PTR,
    QR,
    RA,
    RD,
    REFUSED,
    SERVFAIL,
    SOA,
    SRV,
    TC,
    TYPE_NAMES,
    MalformedError,
    Query,
    Reply,
    bare,
    parse,
    record,
    render,
    soa,
    srv,
    text_name,
    wire_name,
)
from zonecp.dataplane.ports import Ports
from zonecp.dataplane.reverse import ARPA, Reverse, reverse_address


class Forward(Enum):
    """The type of `FORWARD` alone."""

    TOKEN = 0


FORWARD: Final = Forward.TOKEN
"""Not ours to answer: ask an upstream resolver."""

Answer = bytes | Forward | None
"""A reply, FORWARD, or None for what must be dropped."""

_QUESTION_A: Final = b"\x00\x01\x00\x01"
_QUESTION_AAAA: Final = b"\x00\x1c\x00\x01"
_TCP: Final = b"\4_tcp"

# Query flags and counts -> flags and counts of the reply that holds one record, for the queries
# that are nearly all of them: RD or not, AD (which `dig` sets) and CD or not, and nothing but a
# question.
_PLAIN: Final = {
    bytes([rd, ad | cd, 0, 1, 0, 0, 0, 0, 0, 0]): bytes(
        [QR | AA | rd, RA | cd, 0, 1, 0, 1, 0, 0, 0, 0]
    )
    for rd in (0, RD)
    for ad in (0, 0x20)
    for cd in (0, CD)
}


_PLAIN_EDNS: Final = {query[:-1] + b"\1": reply[:-1] + b"\1" for query, reply in _PLAIN.items()}
_OPTS: Final = {
    bytes((0, 0, dnssec_ok, 0, 0, 0)): b"\0\0\x29"
    + EDNS_BYTES_MAX.to_bytes(2, "big")
    + bytes((0, 0, dnssec_ok, 0, 0, 0))
    for dnssec_ok in (0, 0x80)
}
"""The end of an OPT record of version 0 without options -> the one in the reply."""


_NODATA: Final = Reply(flags=AA)


class _NotYetKnownError(Exception):
    """It may exist; never leaves this module."""


class Watch(Protocol):
    """Takes the keys that change."""

    def add(self, key: bytes, /) -> None: ...


class Table:
    """Names and addresses, and what to say about them.

    Counts are plain attributes, read by `metrics` when asked: a metrics library's counter would
    cost as much as the answer.
    """

    def __init__(
        self,
        domains: Iterable[str],
        *,
        negative_ttl_s: int = 30,
        forward_unknown: bool = False,
        ports: Ports | None = None,
    ) -> None:
        """Args:
        domains: The mesh's own, reverse ones included.
        negative_ttl_s: For how long a client may remember that there is nothing.
        forward_unknown: Names of those domains that the map lacks are asked outside.
        ports: For SRV; without it there are no such records.
        """
        self.loaded = False
        """A map has been put here, whole."""

        self.complete = False
        """The zone has spoken since the start: a name that is absent is absent from the mesh. What
        is on disk may be a second behind what this agent's clients have been told already."""

        self.answered_a = 0
        self.answered_aaaa = 0
        self.others: Counter[tuple[str, str]] = Counter()
        """Queries by (type, result) that are not in the two counts above."""

        self.touched: set[bytes] | None = None
        """While not None: keys that were put or removed, for the one who keeps a copy."""

        self.watches: list[Watch] = []
        """Told of the same keys, for those who hand them on."""

        self.negative_ttl_s = negative_ttl_s
        self._forward_unknown = forward_unknown
        self._ports = ports
        self._entries: dict[bytes, bytes] = {}
        self._below: dict[bytes, int] = {}
        """How many names and such are one label below a name that has some."""

        self._reverse = Reverse()
        self._domains: frozenset[bytes] = frozenset()
        self.set_domains(domains)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return wire_name(name) in self._entries

    def set_domains(self, domains: Iterable[str]) -> None:
        """Say which domains are the mesh's alone."""
        self._domains = frozenset(wire_name(domain) for domain in domains)

    @property
    def domains(self) -> list[str]:
        return [text_name(domain) for domain in self._domains]

    def put(self, key: bytes, entry: bytes) -> bool:
        """Set what `wire_name` and `wire_entry` made. Returns whether that changed anything."""
        before = self._entries.get(key)
        if before == entry:
            return False
        self._entries[key] = entry
        if before is None:
            self._add_below(key)
        else:
            self._reverse.remove(key, before)
        self._reverse.add(key, entry)
        self._touch(key)
        return True

    def remove(self, key: bytes) -> bool:
        self._touch(key)
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._reverse.remove(key, entry)
        self._remove_below(key)
        return True

    def _touch(self, key: bytes) -> None:
        if self.touched is not None:
            self.touched.add(key)
        for watch in self.watches:
            watch.add(key)

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def keys(self) -> list[bytes]:
        """About 1 ms at 100,000 names, a quarter of what a copy of the entries takes."""
        return list(self._entries)

    def pick(self, keys: Iterable[bytes]) -> dict[bytes, bytes | None]:
        """The entries of these keys; None for those that are gone."""
        return {key: self._entries.get(key) for key in keys}

    def items(self) -> Iterator[tuple[str, tuple[bytes, ...], int]]:
        """Each name with its packed addresses and its TTL."""
        for key, entry in self._entries.items():
            yield text_name(key), addresses_of(entry), ttl_of(entry)

    def names_of(self, address: bytes) -> list[bytes]:
        """The keys of the names that have a packed address, the shortest first."""
        found = self._reverse.candidates(address)
        return [key for key in found if address in addresses_of(self._entries[key])]

    def named(self, keys: Iterable[bytes]) -> Iterator[tuple[str, tuple[bytes, ...]]]:
        """The names of these keys with their packed addresses, without those that are gone."""
        for key, entry in self.pick(keys).items():
            if entry is not None:
                yield text_name(key), addresses_of(entry)

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
        elif packet[-6:] in _OPTS:
            return self._answer_edns(packet, size_max)
        return self._answer_any(packet, size_max)

    def _answer_edns(self, packet: bytes, size_max: int) -> Answer:
        """The same for those that say how much they take and nothing else: Go, systemd-resolved."""
        reply_head = _PLAIN_EDNS.get(packet[2:12])
        # Before these octets only a whole name can end in a key.
        if reply_head is not None and packet[-11:-8] == b"\0\0\x29":
            entry = self._entries.get(packet[12:-15].lower())
            if entry is not None:
                opt = _OPTS[packet[-6:]]
                if packet[-15:-11] == _QUESTION_A:
                    if entry[0] == 1:
                        self.answered_a += 1
                        return packet[:2] + reply_head + packet[12:-11] + entry[2:18] + opt
                elif packet[-15:-11] == _QUESTION_AAAA and entry[1] == 1:
                    self.answered_aaaa += 1
                    return packet[:2] + reply_head + packet[12:-11] + entry[-28:] + opt
        return self._answer_any(packet, size_max)

    def _answer_any(self, packet: bytes, size_max: int) -> Answer:
        if len(packet) < HEADER_BYTES or packet[2] & QR:
            self.others["", "dropped"] += 1
            return None
        if packet[2] & OPCODE:
            self.others["", "notimp"] += 1
            return bare(packet, NOTIMP)
        try:
            query = parse(packet)
        except MalformedError:
            self.others["", "formerr"] += 1
            return bare(packet, FORMERR)
        result, reply = self._decide(query)
        answer: Answer = FORWARD
        if reply is not None:
            answer = render(packet, query, reply)
            size_max = _limit(query, size_max)
            if len(answer) > size_max and reply.additional:  # RFC 2181 §9: left out without a word
                reply = reply._replace(additional_count=0, additional=b"")
                answer = render(packet, query, reply)
            if len(answer) > size_max:
                result, answer = "truncated", render(packet, query, Reply(flags=AA | TC))
        self.others[TYPE_NAMES.get(query.qtype, "other"), result] += 1
        return answer

    def _decide(self, query: Query) -> tuple[str, Reply | None]:
        """What it is called in the metrics, and the reply; None to forward."""
        if query.edns is not None and query.edns.version:
            return "badvers", Reply(rcode=BADVERS)
        if query.qclass != CLASS_IN:
            return "refused", Reply(rcode=REFUSED)
        if query.qtype in (AXFR, IXFR):
            known = query.key in self._entries or self._apex(query.key) is not None
            return ("refused", Reply(rcode=REFUSED)) if known else ("forwarded", None)
        try:
            found = self._find(query)
        except _NotYetKnownError:
            return "servfail", Reply(rcode=SERVFAIL)
        if found is not None and found.answer_count:
            return "answered", found
        apex = self._apex(query.key)
        if found is None and (apex is None or (self._forward_unknown and self.complete)):
            return "forwarded", None
        return self._nothing(apex, exists=found is not None)

    def _nothing(self, apex: int | None, *, exists: bool) -> tuple[str, Reply]:
        authority = soa(HEADER_BYTES + (apex or 0), self.negative_ttl_s)
        if exists:
            return "nodata", Reply(flags=AA, authority=authority)
        # It may be known to everybody else; NXDOMAIN would be believed and cached.
        if not self.complete:
            return "servfail", Reply(rcode=SERVFAIL)
        return "nxdomain", Reply(rcode=NXDOMAIN, flags=AA, authority=authority)

    def _find(self, query: Query) -> Reply | None:
        """What there is of a name and type; None if the name does not exist here."""
        key = query.key
        entry = self._entries.get(key)
        if entry is not None:
            return _found(*select(entry, query.qtype))
        if key.endswith(ARPA) and (found := self._find_reverse(query)) is not None:
            return found
        if key[1:2] == b"_" and (found := self._find_service(query)) is not None:
            return found
        if key in self._domains:
            if query.qtype in (SOA, ANY):
                return _found(1, soa(HEADER_BYTES, self.negative_ttl_s))
            return _NODATA
        return _NODATA if key in self._below and self._apex(key) is not None else None

    def _find_reverse(self, query: Query) -> Reply | None:
        address = reverse_address(query.key)
        if not address:
            # Addresses may be below the beginning of one, and are not counted by beginnings.
            return _NODATA if address == b"" and self._apex(query.key) is not None else None
        names = self.names_of(address)
        if query.qtype not in (PTR, ANY):
            return _NODATA if names else None
        records = [record(HEADER_BYTES, PTR, ttl_of(self._entries[name]), name) for name in names]
        return _found(len(records), b"".join(records)) if records else None

    def _find_service(self, query: Query) -> Reply | None:
        """`_<port>._tcp.<name>`, the port by its name or its number, and the `_tcp.` above it."""
        key = query.key
        behind = key if key.startswith(_TCP) else key[1 + key[0] :]
        if self._ports is None or not behind.startswith(_TCP):
            return None
        target = behind[len(_TCP) :]
        entry = self._entries.get(target)
        if entry is None:
            return None
        if not self._ports.known:
            raise _NotYetKnownError
        addresses = addresses_of(entry)
        ports = self._ports.of(addresses[0], origin_of(entry).service) if addresses else []
        if behind is key:
            return _NODATA if ports else None
        wanted = key[2 : 1 + key[0]].decode("ascii", "replace")
        numbers = [each.number for each in ports
                   if wanted in (each.name.lower(), str(each.number))]  # fmt: skip
        if not numbers or query.qtype not in (SRV, ANY):
            return _NODATA if numbers else None
        at = HEADER_BYTES + len(key) - len(target)
        ttl_s = ttl_of(entry)
        records = b"".join(srv(HEADER_BYTES, ttl_s, number, target) for number in numbers)
        count, found = select(entry, ANY)
        return _found(len(numbers), records, count, _owned_by(at, found))

    def _apex(self, key: bytes) -> int | None:
        """Where in `key` the longest mesh domain starts that the name is in."""
        at = 0
        while key[at]:
            if key[at:] in self._domains:
                return at
            at += 1 + key[at]
        return None

    def _add_below(self, key: bytes) -> None:
        while len(parent := key[1 + key[0] :]) > 1:
            count = self._below.get(parent, 0)
            self._below[parent] = count + 1
            if count:
                return
            key = parent

    def _remove_below(self, key: bytes) -> None:
        while len(parent := key[1 + key[0] :]) > 1:
            self._below[parent] -= 1
            if self._below[parent]:
                return
            del self._below[parent]
            key = parent


def _limit(query: Query, size_max: int) -> int:
    if query.edns is None:
        return size_max
    return max(size_max, min(query.edns.udp_bytes, EDNS_BYTES_MAX))


def _owned_by(owner: int, records: bytes) -> bytes:
    """Records of an entry, each with its name elsewhere in the message."""
    found, at = [], 0
    while at < len(records):
        end = at + 12 + records[at + 11]
        found.append((0xC000 + owner).to_bytes(2, "big") + records[at + 2 : end])
        at = end
    return b"".join(found)


def _found(count: int, records: bytes, additional_count: int = 0, additional: bytes = b"") -> Reply:
    return Reply(NOERROR, AA, count, records, b"", additional_count, additional)
