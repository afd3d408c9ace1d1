"""An index of the HostnameGenerators, as each zone sees them."""

from __future__ import annotations

import contextlib

from zonemesh.errors import InputError
from zonemesh.hostnames import GENERATOR_KIND, Generator, parse_generator
from zonemesh.model import Key, Record


class Generators:
    """Parsed once for each zone that is asked about, and again after any of them has changed."""

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}
        self._parsed: dict[str, list[Generator]] = {}

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind != GENERATOR_KIND:
            return
        self._parsed.clear()
        if new is None:
            self._records.pop(key, None)
        else:
            self._records[key] = new

    def in_zone(self, zone: str, mesh: str) -> list[Generator]:
        """Global's and the zone's own, those that name services of a mesh, by name."""
        parsed = self._parsed.get(zone)
        if parsed is None:
            parsed = self._parsed[zone] = sorted(self._parse(zone), key=lambda each: each.name)
        return [each for each in parsed if each.mesh in ("", mesh)]

    def _parse(self, zone: str) -> list[Generator]:
        found = []
        for packed, payload in self._records.items():
            key = Key.parse(packed)
            if key.zone in ("", zone):
                # One that a newer build stored names nothing here.
                with contextlib.suppress(InputError):
                    found.append(parse_generator(key, Record.unpack(payload), zone))
        return found
