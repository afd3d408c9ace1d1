"""Who holds a name in a zone, found out elsewhere: for global, which keeps no claims of its zones.

A zone knows all claims (`hostnames.Claims`). Here the few services that can want a given name are
looked up by the display names that the generators' templates can have made it of. Services whose
names are not made of their display names (of labels alone, say) are not found as rivals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from zonemesh import labels
from zonemesh.generators import Generators
from zonemesh.hostnames import (
    KINDS,
    Generator,
    GeneratorRank,
    Outcome,
    Reason,
    ServiceFacts,
    ServiceId,
    ServiceRank,
    hostname,
    matches,
)
from zonemesh.model import Key, Record
from zonemesh.resources.kind import Kind

_Claim: TypeAlias = tuple[int, bool, GeneratorRank, ServiceRank, ServiceId]


class Known(NamedTuple):
    """What is known of a service."""

    record: Record
    order: int | None
    """Drawn when it was merged."""
    waits: bool = False
    """It has no address yet."""


class Rivals:
    """What generators make of services in each zone, and who holds what several want.

    Args:
        kinds: By name.
        generators: All of them.
        origins: Kind → the (zone, namespace) pairs that its objects have.
        lookup: (kind, key) → a service; None if there is none.
        reaches: (kind, key, zone) → whether a service is known in a zone.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        generators: Generators,
        *,
        origins: Callable[[Kind], Iterable[tuple[str, str]]],
        lookup: Callable[[Kind, Key], Known | None],
        reaches: Callable[[Kind, Key, str], bool],
    ) -> None:
        self._kinds = kinds
        self._generators = generators
        self._origins = origins
        self._lookup = lookup
        self._reaches = reaches

    def outcomes(self, kind: Kind, key: Key, zone: str) -> list[Outcome]:
        """What every generator that selects a service does for it in a zone, by their names.

        Nothing where the service is not known.
        """
        known = self._lookup(kind, key)
        if known is None or not self._reaches(kind, key, zone):
            return []
        made = self._generators.made(kind, key, known.record, zone)
        own = ServiceFacts(kind.name, key.packed, {}, known.order, waits=known.waits)
        return [
            each if each.hostname is None else self._judged(each.hostname, each, own, made, zone)
            for each in made
        ]

    def _judged(
        self,
        name: str,
        outcome: Outcome,
        own: ServiceFacts,
        made: Iterable[Outcome],
        zone: str,
    ) -> Outcome:
        claims = [_claim(each.generator, own) for each in made if each.hostname == name]
        winner = min((*claims, *self._claims(Key.parse(own.key).mesh, name, zone)))[-1]
        if winner == (own.kind, own.key):
            return outcome
        message = f"Hostname collision with {winner}"
        return Outcome(outcome.generator, name, Reason.COLLISION, message, winner)

    def _claims(self, mesh: str, name: str, zone: str) -> Iterator[_Claim]:
        for generator in self._generators.in_zone(zone):
            if generator.mesh in ("", mesh):
                for facts in self._makers(generator, mesh, name, zone):
                    yield _claim(generator, facts)

    def _makers(
        self, generator: Generator, mesh: str, name: str, zone: str
    ) -> Iterator[ServiceFacts]:
        """The services that a generator gives a name to, if it can be told from the name."""
        kind = self._kinds[generator.kind]
        for display in generator.template.values("DisplayName", name):
            for origin, namespace in self._origins(kind):
                key = Key(mesh, origin, namespace, display)
                known = self._lookup(kind, key)
                if known is None or not self._reaches(kind, key, zone):
                    continue
                shown = labels.of_record(kind, key, known.record, zone)
                facts = ServiceFacts(kind.name, key.packed, shown, known.order, waits=known.waits)
                if matches(generator, shown) and hostname(generator, facts, zone) == name:
                    yield facts


def _claim(generator: Generator, facts: ServiceFacts) -> _Claim:
    service = ServiceId(facts.kind, facts.key)
    return KINDS.index(facts.kind), facts.waits, generator.rank, facts.rank, service
