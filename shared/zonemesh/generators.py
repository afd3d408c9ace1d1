"""An index of the HostnameGenerators, and what those of a zone make of a service."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from zonemesh import labels
from zonemesh.errors import InputError
from zonemesh.hostnames import (
    GENERATOR_KIND,
    Generator,
    Outcome,
    ServiceFacts,
    made_by,
    matches,
    parse_generator,
)
from zonemesh.model import Key, Record
from zonemesh.resources.kind import Kind


class Generators:
    """Parsed once for each zone that is asked about, and again after any of them has changed."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._parsed: dict[str, list[Generator]] = {}

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind == GENERATOR_KIND:
            self.put(key, None if new is None else Record.unpack(new))

    def put(self, key: str, record: Record | None) -> None:
        """Take in one (packed key), or None: it is gone."""
        self._parsed.clear()
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record

    def made(self, kind: Kind, key: Key, record: Record, zone: str) -> list[Outcome]:
        """What the generators that a zone knows make of a service, as if nobody else wanted names.

        In the order of the generators' names.
        """
        shown = labels.of_record(kind, key, record, zone)
        facts = ServiceFacts(kind.name, key.packed, shown)
        return [
            made_by(generator, facts, zone)
            for generator in self.in_zone(zone)
            if generator.kind == kind.name
            and generator.mesh in ("", key.mesh)
            and matches(generator, shown)
        ]

    def in_zone(self, zone: str) -> Sequence[Generator]:
        """Global's and the zone's own, as they are seen there, by their names."""
        parsed = self._parsed.get(zone)
        if parsed is None:
            parsed = self._parsed[zone] = sorted(self._parse(zone), key=lambda each: each.name)
        return parsed

    def _parse(self, zone: str) -> list[Generator]:
        found = []
        for packed, record in self._records.items():
            key = Key.parse(packed)
            if key.zone in ("", zone):
                # One that a newer build stored names nothing here.
                with contextlib.suppress(InputError):
                    found.append(parse_generator(key, record, zone))
        return found
