"""Generators make hostnames; claims decide who holds them, whatever the order of events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zonemesh import labels
from zonemesh.errors import InputError
from zonemesh.hostnames import (
    KINDS,
    MESH_EXTERNAL_SERVICE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    Claims,
    Generator,
    Reason,
    Refusal,
    ServiceFacts,
    ServiceId,
    default_global_generators,
    default_zone_generators,
    hostname,
    matches,
    parse_generator,
)
from zonemesh.model import START, Key, Position, Record
from zonemesh.resources import catalogue
from zonemesh.template import Template

HERE = "west"


def service(
    name: str = "redis",
    zone: str = HERE,
    *,
    kind: str = MESH_SERVICE,
    namespace: str = "",
    own_labels: Mapping[str, str] | None = None,
    order: int | None = None,
    position: Position = START,
    here: str = HERE,
) -> ServiceFacts:
    key = Key("default", zone, namespace, name)
    declared = replace(catalogue.KINDS[MESH_SERVICE], by_zone=kind != MESH_MULTI_ZONE_SERVICE)
    shown = labels.shown(declared, key, own_labels or {}, here)
    return ServiceFacts(kind, key.packed, shown, order, position)


def generator(
    template: str,
    name: str = "gen",
    *,
    kind: str = MESH_SERVICE,
    match_labels: Mapping[str, str] | None = None,
    origin: str = "zone",
    created_ms: int = 0,
) -> Generator:
    return Generator(
        name=name,
        key=f"/{HERE}//{name}",
        origin=origin,
        created_ms=created_ms,
        kind=kind,
        match_labels=tuple((match_labels or {}).items()),
        template=Template.parse(template),
    )


def default_generators(here: str) -> list[Generator]:
    """The seven, as a zone sees them."""
    found = [("", default) for default in default_global_generators()]
    found += [(here, default) for default in default_zone_generators()]
    return [
        parse_generator(
            Key("", zone, "", default.name),
            Record(created_ms=0, modified_ms=0, labels=default.labels, spec=default.spec),
            here,
        )
        for zone, default in found
    ]


def claims(generators: Iterable[Generator], *services: ServiceFacts) -> Claims:
    table = {(facts.kind, facts.key): facts for facts in services}
    result = Claims(HERE, lambda kind, key: table[kind, key], generators)
    for facts in services:
        result.put(None, facts)
    return result


# --- what the default generators call things


POD = {
    "kuma.io/env": "kubernetes",
    "k8s.kuma.io/is-headless-service": "true",
    "k8s.kuma.io/service-name": "redis",
    "statefulset.kubernetes.io/pod-name": "redis-0",
}
CLUSTER_IP = {"kuma.io/env": "kubernetes", "k8s.kuma.io/is-headless-service": "false"}


@pytest.mark.parametrize(
    "facts, expected",
    [
        (service("redis", "west"), "redis.svc.mesh.local"),
        (service("redis", "east"), "redis.svc.east.mesh.local"),
        (
            service("redis", "east", namespace="redis-system", own_labels=CLUSTER_IP),
            "redis.redis-system.svc.east.mesh.local",
        ),
        (
            service("redis-x", "east", namespace="redis-system", own_labels=POD),
            "redis-0.redis.redis-system.svc.east.mesh.local",
        ),
        (service("aurora", "west", kind=MESH_EXTERNAL_SERVICE), "aurora.extsvc.mesh.local"),
        (service("aurora", "", kind=MESH_EXTERNAL_SERVICE), "aurora.extsvc.mesh.local"),
        (service("redis", "", kind=MESH_MULTI_ZONE_SERVICE), "redis.mzsvc.mesh.local"),
    ],
)
def test_the_default_generators_name_everything_once(facts: ServiceFacts, expected: str) -> None:
    [outcome] = claims(default_generators(HERE), facts).outcomes(facts)

    assert outcome.hostname == expected
    assert outcome.generated
    assert outcome.message == ""


def test_a_generator_of_global_is_shown_hashed_in_a_zone() -> None:
    shown = {found.name for found in default_generators(HERE)}

    assert "local-universal-mesh-service" in shown
    assert "synced-universal-mesh-service" not in shown
    assert sum(name.startswith("synced-universal-mesh-service-") for name in shown) == 1


def test_a_kubernetes_zone_names_only_external_services_itself() -> None:
    names = [default.name for default in default_zone_generators(labels.KUBERNETES)]

    assert names == ["local-mesh-external-service"]


# --- one generator, one service


@pytest.mark.parametrize(
    "template, expected",
    [
        ("{{ .DisplayName }}.{{ .Mesh }}.{{ .Zone }}", "redis.default.east"),
        ("{{ .Name }}.mesh", "redis-cd75xf46x4b2zx4x.mesh"),
        ('{{ label "team" }}.mesh', "a.mesh"),
        ("{{ .Namespace }}x", "x"),
    ],
)
def test_what_a_template_can_say(template: str, expected: str) -> None:
    facts = service("redis", "east", own_labels={"team": "a"})

    made = hostname(generator(template), facts, HERE)

    assert made == expected


def test_a_service_is_called_by_its_own_name_where_it_was_made() -> None:
    assert hostname(generator("{{ .Name }}.mesh"), service("redis", HERE), HERE) == "redis.mesh"


def test_a_service_without_a_zone_is_of_the_zone_that_evaluates() -> None:
    facts = service("redis", "", kind=MESH_MULTI_ZONE_SERVICE)
    found = generator("{{ .DisplayName }}.{{ .Zone }}", kind=MESH_MULTI_ZONE_SERVICE)

    assert hostname(found, facts, HERE) == "redis.west"


@pytest.mark.parametrize(
    "template, message",
    [
        ('{{ label "none" }}', "label none not found"),
        ("{{ .Port }}", "can't evaluate field Port"),
        ("{{ .DisplayName }}_x", '"redis_x" is not a valid DNS name'),
        ("a" * 64, "every label must be no more than 63"),
    ],
)
def test_what_cannot_become_a_name_is_refused(template: str, message: str) -> None:
    made = hostname(generator(template), service(), HERE)

    assert isinstance(made, Refusal)
    assert made.reason is Reason.TEMPLATE_ERROR
    assert message in made.message


def test_a_generator_selects_services_with_every_pair() -> None:
    found = generator("x", match_labels={"team": "a", "tier": "1"})

    assert matches(found, {"team": "a", "tier": "1", "more": "x"})
    assert not matches(found, {"team": "a", "tier": "2"})
    assert not matches(found, {"team": "a"})
    assert matches(generator("x"), {})


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"selector": {"meshService": {}}},
        {"selector": {}, "template": "a"},
        {"selector": {"meshService": {}, "meshExternalService": {}}, "template": "a"},
        {"selector": {"meshFutureService": {}}, "template": "a"},
        {"selector": {"meshService": "all"}, "template": "a"},
        {"selector": {"meshService": {}}, "template": "{{ range }}"},
    ],
)
def test_a_stored_generator_that_this_build_cannot_evaluate_is_refused(spec: Any) -> None:
    record = Record(created_ms=0, modified_ms=0, spec=spec)

    with pytest.raises(InputError):
        parse_generator(Key("", "", "", "gen"), record, HERE)


# --- who wins


FOO = "foo.mesh"


def winner_of(generators: Iterable[Generator], *services: ServiceFacts) -> ServiceId | None:
    return claims(generators, *services).winner(FOO)


def test_nobody_holds_a_name_that_nobody_wants() -> None:
    assert winner_of([generator(FOO)]) is None


def test_kinds_decide_before_all_else() -> None:
    services = [service(kind=kind, order=order) for order, kind in enumerate(reversed(KINDS))]
    generators = [
        generator(FOO, kind=kind, created_ms=created_ms)
        for created_ms, kind in enumerate(reversed(KINDS))
    ]
    assert KINDS == (MESH_MULTI_ZONE_SERVICE, MESH_EXTERNAL_SERVICE, MESH_SERVICE)

    for weaker in range(len(services)):
        winner = winner_of(generators, *services[: weaker + 1])

        assert winner is not None
        assert winner.kind == services[weaker].kind


@pytest.mark.parametrize(
    "stronger, weaker",
    [
        ({"origin": "zone", "created_ms": 2}, {"origin": "global", "created_ms": 1}),
        ({"created_ms": 1, "name": "b"}, {"created_ms": 2, "name": "a"}),
        ({"name": "a"}, {"name": "b"}),
    ],
)
def test_generators_rank_by_origin_then_age_then_name_and_before_services(
    stronger: dict[str, Any], weaker: dict[str, Any]
) -> None:
    generators = [
        generator(FOO, **weaker, match_labels={"team": "weak"}),
        generator(FOO, **stronger, match_labels={"team": "strong"}),
    ]
    old = service("old", own_labels={"team": "weak"}, order=1)
    young = service("young", own_labels={"team": "strong"})

    winner = winner_of(generators, old, young)

    assert winner == (young.kind, young.key)


@pytest.mark.parametrize(
    "stronger, weaker",
    [
        ({"order": 1, "position": Position(9, 9)}, {"order": 2}),
        ({"order": 0}, {"order": 1}),
        ({"order": 9, "position": Position(9, 9)}, {"position": Position(1, 1)}),
        ({"position": Position(1, 2)}, {"position": Position(2, 1)}),
    ],
)
def test_services_rank_by_order_then_by_their_place_in_the_own_log(
    stronger: dict[str, Any], weaker: dict[str, Any]
) -> None:
    first, last = service("z", **stronger), service("a", **weaker)

    assert winner_of([generator(FOO)], first, last) == (first.kind, first.key)
    assert winner_of([generator(FOO)], last, first) == (first.kind, first.key)


def test_merging_in_sequence_changes_no_verdict() -> None:
    generators = [generator(FOO)]
    table = {
        name: service(name, position=Position(1, at)) for at, name in enumerate("cab", start=1)
    }
    result = Claims(HERE, lambda _, key: table[Key.parse(key).name], generators)
    for facts in table.values():
        result.put(None, facts)

    for order, name in enumerate("cab"):
        merged = table[name]._replace(order=order)
        changed = result.put(table[name], merged)
        table[name] = merged

        assert changed == set()


def test_a_service_that_loses_its_rank_loses_the_name() -> None:
    first, second = service("a", order=1), service("b", order=2)
    table = {facts.key: facts for facts in (first, second)}
    result = Claims(HERE, lambda _, key: table[key], [generator(FOO)])
    result.put(None, first)
    result.put(None, second)

    last = table[first.key] = first._replace(order=3)

    assert result.put(first, last) == {FOO}
    assert result.winner(FOO) == (second.kind, second.key)
    assert result.remove(second) == {FOO}
    assert result.winner(FOO) == (last.kind, last.key)
    assert result.remove(last) == {FOO}
    assert result.winner(FOO) is None


def test_the_loser_is_told_who_won() -> None:
    winner = service("aurora", "", kind=MESH_EXTERNAL_SERVICE)
    first = service("redis", "east", namespace="data", order=1)
    second = service("redis", "west", order=2)
    generators = [generator(FOO), generator(FOO, kind=MESH_EXTERNAL_SERVICE)]

    [within] = claims(generators[:1], first, second).outcomes(second)
    [across] = claims(generators, winner, first, second).outcomes(second)

    assert within.reason is Reason.COLLISION
    assert within.hostname == FOO
    assert within.winner == (first.kind, first.key)
    assert within.message == "Hostname collision with MeshService: data/redis (zone east)"
    assert across.message == "Hostname collision with MeshExternalService: aurora (global)"
    assert not across.generated


def test_one_service_may_get_one_name_of_two_generators() -> None:
    facts = service()
    result = claims([generator(FOO, "b"), generator(FOO, "a"), generator("bar", "c")], facts)

    outcomes = result.outcomes(facts)

    assert [(outcome.generator.name, outcome.hostname) for outcome in outcomes] == [
        ("a", FOO),
        ("b", FOO),
        ("c", "bar"),
    ]
    assert all(outcome.generated for outcome in outcomes)
    assert result.hostnames_of(facts) == [FOO, "bar"]


def test_a_template_error_is_an_outcome_and_claims_nothing() -> None:
    facts = service()
    result = claims([generator('{{ label "none" }}')], facts)

    [outcome] = result.outcomes(facts)

    assert outcome.reason is Reason.TEMPLATE_ERROR
    assert outcome.hostname is None
    assert len(result) == 0


# --- incremental is the same as from scratch


# Few keys and names: what matters is that changes meet.
NAMES = st.sampled_from(["a", "b"])
FACTS = st.builds(
    service,
    NAMES,
    st.sampled_from(["west", "east"]),
    kind=st.sampled_from(KINDS[1:]),
    own_labels=st.dictionaries(st.just("team"), st.sampled_from(["x", "y"])),
    order=st.none() | st.integers(0, 3),
    position=st.builds(Position, st.integers(1, 2), st.integers(0, 2)),
)
GENERATORS = st.lists(
    st.builds(
        generator,
        st.sampled_from(
            [
                FOO,
                "{{ .DisplayName }}.mesh",
                "{{ .DisplayName }}.{{ .Zone }}.mesh",
                '{{ label "team" }}.mesh',
                "{{ .Name }}_",
            ]
        ),
        st.sampled_from(["g", "h", "i"]),
        kind=st.sampled_from(KINDS[1:]),
        match_labels=st.dictionaries(st.just("team"), st.just("x")),
        origin=st.sampled_from(["zone", "global"]),
        created_ms=st.integers(0, 2),
    ),
    max_size=5,
    unique_by=lambda found: found.name,
)
Table = dict[tuple[str, str], ServiceFacts]


def winners_by_definition(generators: Iterable[Generator], table: Table) -> dict[str, ServiceId]:
    """The rule, written down without regard to cost: the least of all claims to each name."""
    wanted: dict[str, list[tuple[Any, ...]]] = {}
    for facts in table.values():
        for found in generators:
            if found.kind != facts.kind or not matches(found, facts.labels):
                continue
            name = hostname(found, facts, HERE)
            if isinstance(name, str):
                late = (1, facts.position) if facts.order is None else (0, facts.order)
                local = 0 if found.origin == "zone" else 1
                ranks = (local, found.created_ms, found.name, *late, facts.position, facts.key)
                wanted.setdefault(name, []).append((KINDS.index(facts.kind), *ranks))
    return {name: ServiceId(KINDS[min(who)[0]], min(who)[-1]) for name, who in wanted.items()}


def winners(result: Claims) -> dict[str, ServiceId]:
    names = list(result.hostnames())
    assert len(names) == len(set(names))
    found = {name: result.winner(name) for name in names}
    return {name: winner for name, winner in found.items() if winner is not None}


def changes(before: Mapping[str, ServiceId], after: Mapping[str, ServiceId]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


class AnyHistory(RuleBasedStateMachine):
    """After any sequence of changes, claims are what the rule makes of the state alone.

    Every answer of `put` and `move` is exactly the difference that it made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = {}
        self.generators: list[Generator] = []
        self.claims = Claims(HERE, lambda kind, key: self.table[kind, key])
        self.known: dict[str, ServiceId] = {}

    @rule(facts=FACTS)
    def put(self, facts: ServiceFacts) -> None:
        old = self.table.get((facts.kind, facts.key))
        self.table[facts.kind, facts.key] = facts
        self.check(self.claims.put(old, facts))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.table:
            gone = self.table.pop(data.draw(st.sampled_from(sorted(self.table))))
            self.check(self.claims.remove(gone))

    @rule(generators=GENERATORS)
    def set_generators(self, generators: list[Generator]) -> None:
        self.generators = generators
        kinds = self.claims.change_generators(
            generators, lambda kind: [key for each, key in self.table if each == kind]
        )
        for facts in [facts for facts in self.table.values() if facts.kind in kinds]:
            before = winners(self.claims)
            moved = self.claims.move(facts.kind, facts.key, facts)
            assert moved == changes(before, winners(self.claims))
        self.check(changes(self.known, winners(self.claims)))

    def check(self, changed: set[str]) -> None:
        after = winners_by_definition(self.generators, self.table)
        assert changed == changes(self.known, after)
        self.known = after

    @invariant()
    def the_rule_decides(self) -> None:
        assert winners(self.claims) == self.known

    @invariant()
    def every_name_is_held_by_who_is_told_so(self) -> None:
        for facts in self.table.values():
            for outcome in self.claims.outcomes(facts):
                if outcome.hostname is None:
                    continue
                holder = self.known[outcome.hostname]
                assert outcome.generated == (holder == (facts.kind, facts.key))
                assert outcome.winner == (None if outcome.generated else holder)
                assert outcome.generated or Key.parse(holder.key).name in outcome.message


TestAnyHistory = AnyHistory.TestCase


@given(GENERATORS, st.lists(FACTS, unique_by=lambda facts: (facts.kind, facts.key)), st.randoms())
def test_the_verdict_does_not_depend_on_the_order_of_arrival(
    generators: list[Generator], services: list[ServiceFacts], random: Any
) -> None:
    shuffled = random.sample(services, len(services))

    assert winners(claims(generators, *services)) == winners(claims(generators, *shuffled))


@given(GENERATORS, st.lists(FACTS, unique_by=lambda facts: (facts.kind, facts.key)))
def test_removing_everything_leaves_nothing(
    generators: list[Generator], services: list[ServiceFacts]
) -> None:
    table = {(facts.kind, facts.key): facts for facts in services}
    result = Claims(HERE, lambda kind, key: table[kind, key], generators)
    for facts in services:
        result.put(None, facts)

    for facts in services:
        del table[facts.kind, facts.key]
        result.remove(facts)

    assert len(result) == 0


def test_putting_the_same_again_changes_nothing() -> None:
    facts = service()
    result = claims([generator(FOO)], facts)

    assert result.put(facts, service()) == set()
    assert result.put(None, None) == set()
    assert result.winner(FOO) == (facts.kind, facts.key)
