"""A zone under a global: blocks that come late, adoption, verdicts, and entries that stay small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from tests.builders import NOW_MS, put_dataplane, put_service, replayed
from tests.zones import GRACE_MS, SERVICE, VIP, Zone, gone, key_of
from zonecp.inputs import Adopt, Begin, FromGlobal, Tick
from zonecp.sizes import ENTRY_BYTES_MAX, RECORD_BYTES_MAX
from zonemesh.errors import TooLargeError
from zonemesh.ipam import BLOCK, Binding, Block
from zonemesh.members import GENERATOR, MANAGED_BY
from zonemesh.model import Change, Cursor, Key, Position, Record
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings
from zonemesh.travel import GRACE, VERDICT

POOL = 241 << 24


def block(number: int, *, first: int | None = None, size: int = 4096) -> Change:
    start = POOL + number * 4096 if first is None else first
    return Change(
        BLOCK, Key("", "west", SERVICE, str(number)).packed, Block(start, size, NOW_MS).pack()
    )


def from_global(*changes: Change, seq: int = 1) -> FromGlobal:
    return FromGlobal(Cursor("g", Position(1, seq)), changes)


def adopted(*changes: Change, last: bool = True) -> Adopt:
    return Adopt(changes, last=last)


def bound(name: str, address: int | None, **options: Any) -> Change:
    fields = {"order": 7, "released_ms": None, "birth": 40} | options
    return Change(VIP, key_of(name).packed, Binding(address, **fields).pack())


def held(put: Any, **labels: str) -> Change:
    packed = Record(
        created_ms=NOW_MS - 10,
        modified_ms=NOW_MS - 5,
        labels={**put.labels, **labels},
        spec=put.spec,
    ).pack()
    return Change(put.kind, put.key.packed, packed)


@pytest.fixture
def zone() -> Zone:
    """Federated, and nothing is known of it yet."""
    return Zone(federated=True)


@pytest.fixture
def stocked(zone: Zone) -> Zone:
    zone.submit(adopted(), from_global(block(0), block(1)))
    return zone


# Blocks


def test_a_zone_that_is_not_adopted_accepts_services_and_binds_none(zone: Zone) -> None:
    zone.submit(from_global(block(0)), put_service("db"), put_dataplane("web-1", "web"))
    zone.tick()

    assert zone.record("db") is not None
    assert zone.record("web") is not None
    assert zone.bound() == {None}


def test_who_waits_is_bound_when_blocks_come(zone: Zone) -> None:
    zone.submit(adopted(), put_service("db"), put_service("web"))
    assert zone.bound() == {None}

    zone.submit(from_global(block(0)))

    assert len(zone.bound()) == 2
    assert None not in zone.bound()


def test_a_block_is_used_only_once_it_is_in_the_zones_own_log(zone: Zone) -> None:
    zone.submit(adopted())

    decision = zone.leader.step(from_global(block(0)), put_service("db"))

    assert zone.bound() == {None}
    assert decision.more
    assert decision.src == {"global": Cursor("g", Position(1, 1))}


def test_thousands_that_wait_are_bound_in_bounded_entries(zone: Zone) -> None:
    zone.submit(adopted(), *(put_service(f"service-{n}") for n in range(4_500)))
    entries = len(zone.leader.chain.entries)

    zone.submit(from_global(block(0), block(1)))

    addresses = zone.bound()
    assert len(addresses) == 4_500
    assert None not in addresses
    assert 2 < len(zone.leader.chain.entries) - entries < 10


def test_those_that_no_address_is_left_for_wait_and_the_others_do_not(zone: Zone) -> None:
    zone.submit(adopted(), from_global(block(0, size=3)))

    zone.submit(*(put_service(f"s{number}") for number in range(5)))

    assert len(zone.bound()) == 4
    assert len(zone.state.ledgers[SERVICE].waiting["west"]) == 2


def test_a_zone_without_a_global_has_addresses_from_its_first_service_on() -> None:
    zone = Zone()

    zone.submit(put_service("db"))

    assert zone.binding("db").live
    assert zone.state.ledgers[SERVICE].free(zone.state.settings.pool(SERVICE), "west", 0, 1) >= 4096


def test_a_zone_without_a_global_binds_more_at_once_than_it_has_in_stock() -> None:
    zone = Zone(pool="10.0.0.0/26")

    zone.submit(*(put_service(f"s{number}") for number in range(64)))

    assert len(zone.bound()) == 64
    assert None not in zone.bound()


def test_global_settings_hold_but_for_the_zones_own_grace_period(zone: Zone) -> None:
    theirs = Settings(quarantine_ms=5, grace_ms=1)

    zone.submit(from_global(Change(SETTINGS, GLOBAL_KEY, theirs.pack())))

    assert zone.state.settings.quarantine_ms == 5
    assert zone.state.settings.grace_ms == GRACE_MS


# Adoption


def test_adoption_restores_addresses_before_anything_is_bound(zone: Zone) -> None:
    zone.submit(put_service("db"), put_dataplane("web-1", "web"))

    zone.submit(
        adopted(bound("db", POOL + 5), block(0), last=False),
        adopted(bound("web", POOL + 6), bound("old", POOL + 7, released_ms=0)),
        put_service("old"),
    )

    assert zone.binding("db") == Binding(POOL + 5, 7, None, 40)
    assert zone.binding("web").address == POOL + 6
    assert zone.binding("old").address == POOL + 7
    assert zone.binding("old").live


@pytest.mark.parametrize("together", [True, False])
def test_a_service_that_comes_between_two_parts_gets_its_own_address_back(
    zone: Zone, together: bool
) -> None:
    part = adopted(bound("old", POOL + 7, released_ms=0), block(0), last=False)

    if together:
        zone.submit(part, put_service("old"))
    else:
        zone.submit(part)
        zone.submit(put_service("old"))
    zone.submit(adopted())

    assert zone.binding("old").address == POOL + 7
    assert zone.binding("old").live


def test_bindings_made_after_adoption_rank_after_adopted_ones(zone: Zone) -> None:
    zone.submit(adopted(bound("db", POOL + 5), block(0)))

    zone.submit(put_service("new"))

    assert zone.binding("new").birth > zone.binding("db").birth


def test_what_a_user_wrote_is_adopted_over_what_a_dataplane_made_meanwhile(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web", port=8080))

    zone.submit(adopted(held(put_service("web", team="a"))))

    assert zone.spec("web")["selector"] == {"dataplaneTags": {"team": "a"}}


def test_adopted_services_have_the_state_of_the_dataplanes_that_are_there(zone: Zone) -> None:
    user, lone = put_service("web"), put_service("lone")
    zone.submit(
        adopted(held(user), held(lone, **{MANAGED_BY: GENERATOR}), last=False),
        adopted(held(put_dataplane("web-1", "web"))),
    )

    assert zone.spec("web")["state"] == "Available"
    assert zone.spec("lone")["state"] == "Unavailable"
    assert list(zone.state.registry.table(GRACE)) == [key_of("lone").packed]
    zone.tick(GRACE_MS)
    assert zone.record("lone") is None


def test_an_edited_default_generator_survives_the_loss_of_the_log(zone: Zone) -> None:
    key = Key("", "west", "", "local-universal-mesh-service").packed
    spec = {"selector": {"meshService": {}}, "template": "{{ .DisplayName }}.mine"}
    edited = Record(created_ms=1, modified_ms=2, spec=spec).pack()

    zone.submit(adopted(Change("HostnameGenerator", key, edited)))

    assert zone.state.registry.get("HostnameGenerator", key) == edited
    assert len(zone.state.registry.table("HostnameGenerator")) == 2


# Verdicts


def test_a_refused_address_is_exchanged_for_one_of_another_block(stocked: Zone) -> None:
    stocked.submit(put_service("db"))
    refused = stocked.binding("db").address
    assert refused is not None
    lost = refused - refused % 4096

    verdict = Change(VERDICT, key_of("db").packed, msgpack.packb((SERVICE, refused)))
    stocked.submit(from_global(verdict, seq=2))
    stocked.submit(*(put_service(f"s{number}") for number in range(50)))

    addresses = {each for each in stocked.bound() if each is not None}
    assert len(addresses) == 51
    assert not [each for each in addresses if lost <= each < lost + 4096]


def test_a_verdict_about_an_address_that_is_not_held_any_more_changes_nothing(
    stocked: Zone,
) -> None:
    stocked.submit(put_service("db"))
    before = stocked.binding("db")

    verdict = Change(VERDICT, key_of("db").packed, msgpack.packb((SERVICE, POOL + 1_000_000)))
    stocked.submit(from_global(verdict, seq=2))

    assert stocked.binding("db") == before


def test_a_refused_address_at_rest_is_forgotten(stocked: Zone) -> None:
    stocked.submit(put_service("db"))
    refused = stocked.binding("db").address
    stocked.submit(gone("db", SERVICE))

    verdict = Change(VERDICT, key_of("db").packed, msgpack.packb((SERVICE, refused)))
    stocked.submit(from_global(verdict, seq=2))

    assert stocked.state.registry.get(VIP, key_of("db").packed) is None


# Sizes


@pytest.mark.parametrize(
    "inputs",
    [
        [put_dataplane(f"dataplane-{n}", f"service-{n}", "all") for n in range(500)],
        [put_service(f"service-{n}") for n in range(3_000)],
        [put_dataplane(f"d-{n}", *(f"s-{n}-{m}" for m in range(40))) for n in range(100)],
    ],
    ids=["dataplanes", "services", "many-tags"],
)
def test_thousands_of_inputs_fill_bounded_entries(stocked: Zone, inputs: Sequence[Any]) -> None:
    start = len(stocked.leader.chain.entries)

    outcomes = stocked.submit(*inputs)
    stocked.submit(*(gone(item.key.name, item.kind) for item in inputs))

    sizes = [len(sealed.data) for sealed in stocked.leader.chain.entries[start:]]
    assert len(outcomes) == len(inputs)
    assert max(sizes) <= ENTRY_BYTES_MAX
    assert len(sizes) < 80


def test_a_dataplane_that_moves_a_thousand_services_does_so_in_bounded_entries(
    stocked: Zone,
) -> None:
    services = [put_service(f"service-with-a-long-name-{n}", team="a") for n in range(1_500)]
    stocked.submit(*services)
    start = len(stocked.leader.chain.entries)
    put = put_dataplane("web-1", "web")
    put.spec["networking"]["inbound"][0]["tags"]["team"] = "a"

    stocked.submit(put)

    sizes = [len(sealed.data) for sealed in stocked.leader.chain.entries[start:]]
    assert max(sizes) <= ENTRY_BYTES_MAX + RECORD_BYTES_MAX // 8
    assert len(sizes) > 1
    assert {stocked.spec(item.key.name)["state"] for item in services} == {"Available"}


@pytest.mark.parametrize(
    "put",
    [
        put_service("large", note="x" * RECORD_BYTES_MAX),
        put_dataplane("many", *(f"service-{number}" for number in range(200))),
    ],
    ids=["record", "services"],
)
def test_what_no_entry_could_hold_is_refused_and_the_others_are_not(
    stocked: Zone, put: Any
) -> None:
    refused, written, after = stocked.submit(put, put_service("db"), Tick({}))

    assert isinstance(refused, TooLargeError)
    assert written.created
    assert after is None
    assert stocked.record(put.key.name, put.kind) is None


def test_services_expire_in_bounded_entries(stocked: Zone) -> None:
    puts = [put_dataplane(f"dataplane-{n}", f"service-{n}") for n in range(2_000)]
    stocked.submit(*puts)
    stocked.submit(*(gone(put.key.name) for put in puts))
    start = len(stocked.leader.chain.entries)

    stocked.tick(GRACE_MS)

    sizes = [len(sealed.data) for sealed in stocked.leader.chain.entries[start:]]
    assert max(sizes) <= ENTRY_BYTES_MAX
    assert not stocked.state.registry.table(SERVICE)
    assert not stocked.state.registry.table(GRACE)


def test_a_new_leader_looks_at_the_states_that_the_last_one_did_not_come_to(
    stocked: Zone,
) -> None:
    stocked.submit(put_service("web"))
    # As if the last leader had committed the Dataplane and died before what follows from it.
    stocked.leader.chain.commit(held(put_dataplane("web-1", "web")))
    assert stocked.spec("web")["state"] == "Unavailable"

    stocked.submit(Begin("uid", Settings(grace_ms=GRACE_MS), adopted=False))

    assert stocked.spec("web")["state"] == "Available"


def test_every_decision_replayed_gives_the_same_state(stocked: Zone) -> None:
    stocked.submit(*(put_dataplane(f"d-{n}", f"s-{n % 7}") for n in range(50)))
    stocked.submit(*(gone(f"d-{n}") for n in range(0, 50, 2)))
    stocked.tick(GRACE_MS)

    assert replayed(stocked.leader.chain.entries).digest == stocked.state.registry.digest


def test_what_rested_in_another_log_rests_anew_whatever_this_log_has_seen(zone: Zone) -> None:
    day_ms = 24 * 3600 * 1000
    zone.tick(10 * day_ms)

    zone.submit(
        adopted(block(0, size=1), bound("gone", POOL, released_ms=10 * day_ms - 1_000)),
        put_service("db"),
    )

    assert zone.binding("db").address is None
