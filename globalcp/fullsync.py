"""A zone's whole state, in the order in which it is merged: worked off a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zonemesh.errors import WireError
from zonemesh.ipam import Binding, pool_of
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import Change, zone_of
from zonemesh.registry import Registry
from zonemesh.settings import GLOBAL_KEY, SETTINGS
from zonemesh.travel import accepted_from_zone

Tables = Mapping[str, Mapping[str, bytes]]


def birth(payload: bytes) -> int:
    """A binding's rank among its zone's."""
    try:
        return Binding.unpack(payload).birth
    except WireError:
        return -1  # merged first, that is rejected alone


def _differs(kind: str, held: bytes | None, payload: bytes) -> bool:
    """Whether a zone's record is another one than global holds, but for what is global's of it."""
    if held is None or pool_of(kind) is None:
        return held != payload
    try:
        return _zones_part(held) != _zones_part(payload)
    except WireError:
        return True  # rejected alone


def _zones_part(payload: bytes) -> tuple[int | None, bool, int]:
    binding = Binding.unpack(payload)
    return binding.address, binding.released_ms is None, binding.birth


def steps(zone: str, tables: Tables, registry: Registry) -> Iterator[Change | None]:
    """The changes that give a registry what a zone holds, and only that.

    Records, bindings as their zone ranks them (merging keeps the order of names), removals last:
    whoever sees only a part of them never sees less than what both hold. Each step is cheap, and
    None where there is nothing to change. The registry is to change by these alone meanwhile.
    """
    for key, payload in tables.get(LEGACY_VIP, {}).items():  # before whoever is to have the names
        yield None if registry.get(LEGACY_VIP, key) == payload else Change(LEGACY_VIP, key, payload)
    tables = {kind: table for kind, table in tables.items() if kind != LEGACY_VIP}
    plain = [kind for kind in tables if pool_of(kind) is None]
    for kind in plain:
        for key, payload in tables[kind].items():
            if (kind, key) == (SETTINGS, GLOBAL_KEY):
                continue  # the zone's copy: what is to be learnt of it is known by now
            yield _wanted(zone, registry, Change(kind, key, payload))
    yield from _bindings(zone, {kind: tables[kind] for kind in tables.keys() - plain}, registry)
    yield from _removals(zone, tables, registry)


def _bindings(zone: str, tables: Tables, registry: Registry) -> Iterator[Change | None]:
    ranked: list[tuple[int, str, str]] = []
    for kind, table in sorted(tables.items()):
        for key, payload in table.items():
            ranked.append((birth(payload), kind, key))
            yield None
    for _, kind, key in sorted(ranked, key=lambda each: each[0]):
        yield _wanted(zone, registry, Change(kind, key, tables[kind][key]))


def _removals(zone: str, tables: Tables, registry: Registry) -> Iterator[Change | None]:
    for kind in [each for each in registry.tables if accepted_from_zone(each)]:
        for key in list(registry.tables[kind]):
            gone = zone_of(key) == zone and key not in tables.get(kind, {})
            yield Change(kind, key, None) if gone else None


def _wanted(zone: str, registry: Registry, change: Change) -> Change | None:
    kind, key, payload = change
    assert payload is not None
    foreign = zone_of(key) != zone  # rejected alone, be it equal or not
    return change if foreign or _differs(kind, registry.get(kind, key), payload) else None
