"""What the table holds of one name: its records in wire form, and where they come from. Pure.

    entry  = count of A records (1 octet), count of AAAA records (1 octet), A records, origin,
             AAAA records
    record = c0 0c (pointer to the question's name), type, class IN, TTL, length, address
    origin = zone, a space, service, in ASCII; or nothing

A name costs two `bytes` and a dict slot, its wire form and this, which the garbage collector sees
neither of. The origin is in the middle so that a single address is at a fixed place from either
end.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from zonecp.dataplane.message import AAAA, ANY, CLASS_IN, QUESTION_POINTER, A
from zonemesh.errors import InputError

ADDRESSES_MAX: Final = 255
"""Per name and family: the count is one octet."""

_A_RECORD: Final = Struct("!HHHIH4s")
_AAAA_RECORD: Final = Struct("!HHHIH16s")


class Origin(NamedTuple):
    zone: str = ""
    service: str = ""
    """Its KRI, or a legacy name's key."""


def wire_entry(addresses: Sequence[bytes], ttl_s: int, origin: Origin = Origin()) -> bytes:  # noqa: B008 -- a value
    """The records of one name.

    Args:
        addresses: Packed, 4 or 16 octets each, in the order in which they are to be given.
        ttl_s: RFC 2181 §8: 0 to 2^31 - 1.
        origin: Whose addresses they are.

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
            *[_A_RECORD.pack(QUESTION_POINTER, A, CLASS_IN, ttl_s, 4, a) for a in v4],
            " ".join(origin).encode("ascii", "replace") if origin.service else b"",
            *[_AAAA_RECORD.pack(QUESTION_POINTER, AAAA, CLASS_IN, ttl_s, 16, a) for a in v6],
        ]
    )


def is_entry(key: bytes, entry: bytes) -> bool:
    """Whether a pair that was stored elsewhere has the shape that `Table.answer` relies on."""
    if len(entry) < 2 or sum(_ends(entry)) > len(entry):
        return False
    at, end = 0, len(key) - 1
    while at < end and 0 < key[at] <= 63:
        at += 1 + key[at]
    return 0 < at == end < 255 and key[end] == 0 and key == key.lower()


def select(entry: bytes, qtype: int) -> tuple[int, bytes]:
    """How many records of a type there are, and the records."""
    a_end, aaaa_bytes = _ends(entry)
    aaaa_start = len(entry) - aaaa_bytes
    if qtype == A:
        return entry[0], entry[2:a_end]
    if qtype == AAAA:
        return entry[1], entry[aaaa_start:]
    if qtype == ANY:
        return entry[0] + entry[1], entry[2:a_end] + entry[aaaa_start:]
    return 0, b""


def addresses_of(entry: bytes) -> tuple[bytes, ...]:
    """Packed, IPv4 first."""
    v4 = [record[5] for record in _A_RECORD.iter_unpack(select(entry, A)[1])]
    v6 = [record[5] for record in _AAAA_RECORD.iter_unpack(select(entry, AAAA)[1])]
    return (*v4, *v6)


def ttl_of(entry: bytes) -> int:
    """Seconds; 0 of a name without addresses."""
    return int.from_bytes(select(entry, ANY)[1][6:10], "big")


def origin_of(entry: bytes) -> Origin:
    a_end, aaaa_bytes = _ends(entry)
    text = entry[a_end : len(entry) - aaaa_bytes].decode("ascii", "replace")
    zone, _, service = text.partition(" ")
    return Origin(zone, service)


def _ends(entry: bytes) -> tuple[int, int]:
    """Where the A records end, and how many octets the AAAA records have."""
    return 2 + _A_RECORD.size * entry[0], _AAAA_RECORD.size * entry[1]
