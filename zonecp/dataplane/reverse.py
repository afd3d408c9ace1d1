"""Addresses back to names: what PTR queries ask for. Pure.

About 80 bytes per name: the names are those of the table, and an IPv6 address that ends with the
IPv4 address of the same name, as every VIP does, is found by that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from zonecp.dataplane.entry import addresses_of
from zonecp.dataplane.message import labels_of
from zonemesh.errors import InputError

ARPA: Final = b"\4arpa\0"
_IN_ADDR: Final = [b"in-addr", b"arpa"]
_IP6: Final = [b"ip6", b"arpa"]
_OCTETS: Final = frozenset(str(octet).encode() for octet in range(256))
_NIBBLES: Final = frozenset(bytes((digit,)) for digit in b"0123456789abcdef")
_V6: Final = 1 << 128
"""Added to the number of an IPv6 address."""


class Reverse:
    """Names by address, kept by the table."""

    def __init__(self) -> None:
        self._keys: dict[int, bytes | tuple[bytes, ...]] = {}
        """Most addresses have one name: no tuple for those."""

    def add(self, key: bytes, entry: bytes) -> None:
        for number in _numbers(entry):
            held = self._keys.get(number)
            if held is None:
                self._keys[number] = key
            else:
                self._keys[number] = (*_several(held), key)

    def remove(self, key: bytes, entry: bytes) -> None:
        """Undo `add` of the same pair."""
        for number in _numbers(entry):
            left = tuple(each for each in _several(self._keys[number]) if each != key)
            if left:
                self._keys[number] = left[0] if len(left) == 1 else left
            else:
                del self._keys[number]

    def candidates(self, address: bytes) -> list[bytes]:
        """All names that have this packed address, and perhaps some that do not.

        The shortest first, then by the alphabet: many a client takes the first alone.
        """
        found = set(_several(self._keys.get(_number(address), ())))
        if len(address) == 16:
            found.update(_several(self._keys.get(_number(address[-4:]), ())))
        return sorted(found, key=lambda key: (len(key), key))


def reverse_address(key: bytes) -> bytes | None:
    """The address that a name of in-addr.arpa or ip6.arpa stands for; None if it stands for none.

    b"" for the beginning of one (RFC 1035 §3.5, 3596 §2.5), which names of addresses may be below.
    """
    labels = labels_of(key)
    kind, digits = labels[-2:], labels[-3::-1]
    if kind == _IN_ADDR and len(digits) <= 4 and _OCTETS.issuperset(digits):
        return bytes(map(int, digits)) if len(digits) == 4 else b""
    if kind == _IP6 and len(digits) <= 32 and _NIBBLES.issuperset(digits):
        return bytes.fromhex(b"".join(digits).decode()) if len(digits) == 32 else b""
    return None


def reverse_domains(cidr: str) -> list[str]:
    """The names of in-addr.arpa or ip6.arpa that a range's addresses are below, and no others'.

    Raises:
        InputError: Not a range.
    """
    try:
        network = ip_network(cidr)
    except ValueError as error:
        raise InputError(str(error)) from None
    step, labels = (8, 4) if isinstance(network, IPv4Network) else (4, 32)
    length = max(-(-network.prefixlen // step), 1)
    subnets: Iterable[IPv4Network | IPv6Network] = network.subnets(new_prefix=length * step)
    return [
        ".".join(subnet.network_address.reverse_pointer.split(".")[labels - length :])
        for subnet in subnets
    ]


def _several(held: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    return held if isinstance(held, tuple) else (held,)


def _numbers(entry: bytes) -> list[int]:
    if entry[:2] == b"\1\1" and entry[14:18] == entry[-4:]:
        return [int.from_bytes(entry[14:18], "big")]
    addresses = addresses_of(entry)
    v4 = {address for address in addresses if len(address) == 4}
    return list({_number(each) for each in addresses if each in v4 or each[-4:] not in v4})


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big") + (_V6 if len(address) == 16 else 0)
