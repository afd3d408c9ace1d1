"""The hash of a map of names, as a zone makes it and as an agent compares it."""

from __future__ import annotations

from hashlib import blake2b

_BYTES = 8


def name_hash(name: str, *addresses: bytes) -> int:
    """What one name adds to a map's digest, an XOR: addresses packed, IPv4 first."""
    text = b"\0".join((name.encode(), *addresses))
    return int.from_bytes(blake2b(text, digest_size=_BYTES).digest(), "big")
