"""A set of keys that holds one key nearly always, and then costs no container."""

from __future__ import annotations

from collections.abc import Collection

_TUPLE_MAX = 8
"""Beyond it a dict: adding to a tuple copies it, and a service may have 10,000 Dataplanes."""

Holders = str | tuple[str, ...] | dict[str, None]


def members(holders: Holders | None) -> Collection[str]:
    if holders is None:
        return ()
    return (holders,) if isinstance(holders, str) else holders


def added(holders: Holders | None, key: str) -> Holders:
    """The set with a key; the one given must not be used any more."""
    if holders is None:
        return key
    if isinstance(holders, dict):
        holders[key] = None
        return holders
    there = members(holders)
    if key in there:
        return holders
    grown = (*there, key)
    return grown if len(grown) <= _TUPLE_MAX else dict.fromkeys(grown)


def removed(holders: Holders | None, key: str) -> Holders | None:
    """The set without a key, None if it was the last; the one given must not be used any more."""
    if isinstance(holders, dict) and len(holders) > _TUPLE_MAX:
        holders.pop(key, None)
        return holders
    left = tuple(each for each in members(holders) if each != key)
    if not left:
        return None
    return left[0] if len(left) == 1 else left
