"""What global says of names is what the zones make of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, put_service
from zonemesh import labels
from zonemesh.generators import Generators
from zonemesh.hostnames import SELECTORS, Claims, Generator, ServiceFacts, parse_generator
from zonemesh.model import Key, Record
from zonemesh.resources.catalogue import KINDS
from zonemesh.resources.kind import Kind
from zonemesh.rivals import Known, Rivals
from zonemesh.template import Template

ZONES = ("west", "east")
SERVED = ("MeshService", "MeshExternalService", "MeshMultiZoneService")
FIELDS = {kind: field for field, kind in SELECTORS.items()}
TEMPLATES = (
    "{{ .DisplayName }}.mesh.local",
    "{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local",
    "{{ .Mesh }}.{{ .DisplayName }}.x",
    "{{ .DisplayName }}{{ .Zone }}.y",
    "svc.{{ .DisplayName }}",
)

services = st.dictionaries(
    st.tuples(
        st.sampled_from(SERVED),
        st.sampled_from(["", *ZONES]),
        st.sampled_from(["", "ns"]),
        st.sampled_from(["a", "b", "a.svc", "awest", "svc"]),
    ),
    st.tuples(st.integers(1, 20), st.booleans()),
    max_size=12,
)
generators = st.dictionaries(
    st.tuples(st.sampled_from(["", *ZONES]), st.sampled_from(["g", "h"])),
    st.tuples(st.sampled_from(SERVED), st.sampled_from(TEMPLATES), st.integers(0, 3)),
    max_size=5,
)


def reaches(kind: Kind, key: Key, zone: str) -> bool:
    return key.zone == zone or (kind.across if key.zone else kind.down)


@given(services, generators)
def test_the_outcomes_of_a_service_are_those_of_the_zone(
    services: dict[tuple[str, str, str, str], tuple[int, bool]],
    generators: dict[tuple[str, str], tuple[str, str, int]],
) -> None:
    known: dict[tuple[str, Key], Known] = {}
    for (kind, zone, namespace, name), (order, waits) in services.items():
        if zone or kind != "MeshService":
            key = Key("default", zone, namespace, name)
            record = Record(created_ms=1, modified_ms=1, spec=put_service(name).spec)
            known[kind, key] = Known(record, order, waits)
    declared = Generators()
    parsed = {zone: list(parsed_in(zone, generators, declared)) for zone in ZONES}
    rivals = Rivals(
        KINDS,
        declared,
        origins=lambda kind: {
            (key.zone, key.namespace) for name, key in known if name == kind.name
        },
        lookup=lambda kind, key: known.get((kind.name, key)),
        reaches=reaches,
    )
    for zone in ZONES:
        facts = {
            (kind, key.packed): ServiceFacts(
                kind,
                key.packed,
                labels.of_record(KINDS[kind], key, service.record, zone),
                service.order,
                waits=service.waits,
            )
            for (kind, key), service in known.items()
            if reaches(KINDS[kind], key, zone)
        }
        claims = Claims(zone, partial(looked_up, facts), parsed[zone])
        for each in facts.values():
            claims.put(None, each)
        for kind, key in known:
            here = facts.get((kind, key.packed))
            expected = [] if here is None else claims.outcomes(here)
            assert rivals.outcomes(KINDS[kind], key, zone) == expected


def looked_up(facts: dict[tuple[str, str], ServiceFacts], kind: str, key: str) -> ServiceFacts:
    return facts[kind, key]


def parsed_in(
    zone: str, generators: dict[tuple[str, str], tuple[str, str, int]], declared: Generators
) -> Iterator[Generator]:
    for (origin, name), (kind, template, age) in generators.items():
        key = Key("", origin, "", name)
        spec = {"selector": {FIELDS[kind]: {"matchLabels": {}}}, "template": template}
        record = Record(created_ms=NOW_MS + age, modified_ms=NOW_MS, spec=spec)
        declared.put(key.packed, record)
        if origin in ("", zone):
            yield parse_generator(key, record, zone)


def test_a_field_may_have_been_what_stands_between_its_neighbours() -> None:
    def values(template: str, rendered: str) -> set[str]:
        return Template.parse(template).values("DisplayName", rendered)

    assert values("{{ .DisplayName }}.svc.{{ .Zone }}.m", "a.svc.west.m") == {"a"}
    assert values("{{ .DisplayName }}.svc.{{ .Zone }}.m", "a.svc.b.svc.west.m") == {"a", "a.svc.b"}
    assert values("x-{{ .DisplayName }}.m", "x-a.b.m") == {"a.b"}
    assert values("{{ .Zone }}{{ .DisplayName }}", "ab") == {"a", "b", "ab"} - {"a"}
    assert values("x-{{ .DisplayName }}", "y-a") == set()
    assert values("{{ .Zone }}.m", "west.m") == set()
