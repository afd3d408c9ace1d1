"""What a zone decides about its own services: generated ones, users' ones, their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.builders import left_to_the_collector, put_dataplane, put_service, replayed
from tests.zones import GRACE_MS, QUARANTINE_MS, SERVICE, SETTINGS_HERE, VIP, Zone, gone
from zonecp.inputs import Begin, FromGlobal, Tick
from zonemesh.deciding import Put, Written
from zonemesh.errors import NotFoundError
from zonemesh.ipam import BLOCK, Block
from zonemesh.members import generated
from zonemesh.model import Change, Cursor, Key, Position
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings
from zonemesh.travel import GRACE


@pytest.fixture
def zone() -> Zone:
    return Zone()


# Generation


@pytest.mark.parametrize(
    "dataplane, selector",
    [
        (put_dataplane("web-1", "web"), {"dataplaneTags": {"kuma.io/service": "web"}}),
        (
            put_dataplane("web-1", workload="web"),
            {"dataplaneLabels": {"matchLabels": {"kuma.io/workload": "web"}}},
        ),
    ],
)
def test_a_dataplane_makes_its_service_with_an_address_in_one_decision(
    zone: Zone, dataplane: Put, selector: Mapping[str, Any]
) -> None:
    decision = zone.leader.step(dataplane)

    kinds = [change.kind for change in decision.changes if change.kind != "counter"]
    assert kinds[:3] == ["Dataplane", SERVICE, VIP]
    assert zone.spec("web") == {
        "state": "Available",
        "selector": selector,
        "ports": [{"name": "80", "port": 80, "targetPort": 80, "appProtocol": "tcp"}],
    }
    assert zone.binding("web").live


def test_a_dataplane_of_several_services_makes_each_with_its_own_ports(zone: Zone) -> None:
    zone.submit(put_dataplane("both-1", "web", "api", port=80))

    assert [port["port"] for port in zone.spec("web")["ports"]] == [80]
    assert [port["port"] for port in zone.spec("api")["ports"]] == [81]


def test_an_inbound_without_a_tag_is_no_tagged_services_port(zone: Zone) -> None:
    put = put_dataplane("web-1", "web", port=80)
    put.spec["networking"]["inbound"].append({"port": 9000})

    zone.submit(put)

    assert [port["port"] for port in zone.spec("web")["ports"]] == [80]


def test_numbers_and_names_of_generated_ports_are_distinct(zone: Zone) -> None:
    put = put_dataplane("web-1", workload="web", port=80)
    inbound = put.spec["networking"]["inbound"]
    inbound += [{"port": 80, "address": "10.0.0.2"}, {"port": 81, "name": "80"}, {"port": 82}]

    zone.submit(put)

    assert [port["name"] for port in zone.spec("web")["ports"]] == ["80", "82"]


def test_a_name_that_is_no_dns_label_makes_no_service(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "Web_v1"))

    assert not zone.state.registry.table(SERVICE)


def test_where_dataplanes_disagree_about_ports_what_is_stored_stays_while_one_agrees(
    zone: Zone,
) -> None:
    zone.submit(put_dataplane("web-1", "web", port=80))
    zone.submit(put_dataplane("web-2", "web", port=90))
    assert [port["port"] for port in zone.spec("web")["ports"]] == [80]

    zone.submit(gone("web-1"))
    assert [port["port"] for port in zone.spec("web")["ports"]] == [90]
    zone.submit(put_dataplane("a-web", "web", port=70))

    assert [port["port"] for port in zone.spec("web")["ports"]] == [90]


def test_a_generated_service_is_available_while_one_dataplane_is_ready(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"), put_dataplane("web-2", "web"))
    zone.submit(put_dataplane("web-1", "web", ready=False))
    assert zone.spec("web")["state"] == "Available"

    zone.submit(put_dataplane("web-2", "web", ready=False))

    assert zone.spec("web")["state"] == "Unavailable"


def test_dataplanes_by_tag_and_by_workload_label_of_one_name_are_one_service(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"), put_dataplane("web-2", workload="web"))

    zone.submit(gone("web-2"))

    assert zone.spec("web")["state"] == "Available"
    assert not zone.state.registry.table(GRACE)


def test_a_write_that_changes_nothing_makes_no_entry(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"), put_service("db"))
    entries = len(zone.leader.chain.entries)

    outcomes = zone.submit(put_dataplane("web-1", "web"), put_service("db"))

    assert [outcome.created for outcome in outcomes] == [False, False]
    assert {outcome.position for outcome in outcomes} == {zone.state.registry.position}
    assert len(zone.leader.chain.entries) == entries


def test_a_write_answers_where_it_is_held(zone: Zone) -> None:
    (written,) = zone.submit(put_service("db"))

    assert written == Written(created=True, position=zone.leader.chain.entries[-1].entry.position)


def test_deleting_what_is_not_there_is_an_outcome_and_not_the_others(zone: Zone) -> None:
    missing, written = zone.submit(gone("web-1"), put_service("db"))

    assert isinstance(missing, NotFoundError)
    assert isinstance(written, Written)
    assert zone.record("db") is not None


# Leaving


def test_the_last_dataplane_leaves_and_comes_back_to_the_same_address(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"))
    before = zone.binding("web")
    zone.submit(gone("web-1"))
    assert zone.spec("web")["state"] == "Unavailable"
    assert zone.binding("web") == before

    zone.tick(GRACE_MS - 1)
    assert zone.record("web") is not None
    zone.tick(1)
    assert zone.record("web") is None
    released = zone.binding("web")
    assert released == before._replace(released_ms=zone.state.registry.log_time_ms)

    zone.tick(QUARANTINE_MS - 1)
    zone.submit(put_dataplane("web-1", "web"))

    assert zone.binding("web") == before
    assert zone.spec("web")["state"] == "Available"


def test_a_dataplane_that_is_back_in_time_ends_the_grace_period(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"))
    zone.submit(gone("web-1"))
    zone.leader.wait(GRACE_MS)

    zone.submit(put_dataplane("web-1", "web"), Tick({}))
    zone.tick(GRACE_MS)

    record = zone.record("web")
    assert record is not None
    assert record.spec["state"] == "Available"
    assert record.created_ms < record.modified_ms
    assert not zone.state.registry.table(GRACE)


def test_a_dataplane_moved_to_another_service_in_one_write_moves_its_service(zone: Zone) -> None:
    zone.submit(put_dataplane("one", "web"))

    zone.submit(put_dataplane("one", "api"))

    assert zone.spec("web")["state"] == "Unavailable"
    assert zone.spec("api")["state"] == "Available"


def test_without_a_grace_period_a_service_leaves_with_its_last_dataplane() -> None:
    zone = Zone()
    zone.submit(Begin("uid", Settings(grace_ms=0), adopted=True), put_dataplane("web-1", "web"))
    zone.submit(gone("web-1"))

    assert zone.record("web") is None
    assert not zone.binding("web").live


def test_a_removed_service_rests_for_its_own_key_only() -> None:
    zone = Zone(pool="10.0.0.0/30")
    zone.submit(*(put_service(f"s{number}") for number in range(4)))
    assert len(zone.bound()) == 4
    address = zone.binding("s0").address
    zone.submit(gone("s0", SERVICE), put_service("new"))
    assert zone.binding("new").address is None

    zone.tick(QUARANTINE_MS - 1)
    assert zone.binding("new").address is None
    zone.tick(1)

    assert zone.binding("new").address == address
    assert len(zone.state.registry.table(VIP)) == 4
    zone.submit(put_service("s0"))
    assert zone.binding("s0").address is None


# Users' services


def test_a_users_service_follows_the_state_of_what_it_selects(zone: Zone) -> None:
    zone.submit(put_service("db", team="a"))
    assert zone.spec("db")["state"] == "Unavailable"
    put = put_dataplane("any-1", "other")
    put.spec["networking"]["inbound"][0]["tags"]["team"] = "a"

    zone.submit(put)
    assert zone.spec("db")["state"] == "Available"
    zone.submit(gone("any-1"))

    assert zone.spec("db")["state"] == "Unavailable"


@pytest.mark.parametrize("sent", ["Available", "Unavailable", None])
def test_a_clients_state_neither_sets_nor_resets_a_services(zone: Zone, sent: str | None) -> None:
    zone.submit(put_dataplane("db-1", "db"), put_service("db"))
    put = put_service("db")

    zone.submit(Put(SERVICE, put.key, put.labels, {**put.spec, "state": sent}))

    assert zone.spec("db")["state"] == "Available"


@pytest.mark.parametrize("user_first", [True, False])
def test_generation_leaves_a_users_service_of_the_same_name_alone(
    zone: Zone, user_first: bool
) -> None:
    writes = [put_service("web", team="a"), put_dataplane("web-1", "web", port=8080)]
    for write in writes if user_first else reversed(writes):
        zone.submit(write)
    address = zone.binding("web").address

    zone.submit(put_dataplane("web-1", "web", port=9090))
    zone.submit(gone("web-1"))
    zone.tick(2 * GRACE_MS)

    record = zone.record("web")
    assert record is not None
    assert not generated(record)
    assert [port["port"] for port in record.spec["ports"]] == [80]
    assert zone.binding("web").address == address


def test_a_user_may_take_a_service_over_in_the_entry_in_which_it_would_expire(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web"))
    zone.submit(gone("web-1"))
    zone.leader.wait(GRACE_MS)

    zone.submit(put_service("web", team="a"), Tick({}))

    assert zone.record("web") is not None
    assert zone.binding("web").live


def test_what_a_user_deletes_and_dataplanes_still_name_is_generated_again(zone: Zone) -> None:
    zone.submit(put_service("web", team="a"), put_dataplane("web-1", "web", port=8080))
    address = zone.binding("web").address

    zone.submit(gone("web", SERVICE))

    assert [port["port"] for port in zone.spec("web")["ports"]] == [8080]
    assert zone.binding("web").address == address
    assert zone.binding("web").live


# Every decision is replayed alike


def test_every_entry_replayed_gives_the_same_state(zone: Zone) -> None:
    zone.submit(put_dataplane("web-1", "web", "api"), put_service("db"))
    zone.submit(gone("web-1"), put_dataplane("web-2", workload="web"))
    zone.tick(GRACE_MS)
    block = Block(241 << 24, 4096, 1).pack()
    zone.submit(
        FromGlobal(
            Cursor("g", Position(1, 1)),
            [
                Change(BLOCK, Key("", "west", SERVICE, "9").packed, block),
                Change(SETTINGS, GLOBAL_KEY, SETTINGS_HERE.pack()),
            ],
        )
    )

    replica = replayed(zone.leader.chain.entries)

    assert replica.digest == zone.state.registry.digest
    assert replica.parts() == zone.state.registry.parts()
    assert replica.cursors == {"global": Cursor("g", Position(1, 1))}


def test_a_decision_leaves_nothing_to_the_garbage_collector() -> None:
    zone = Zone()

    def change() -> None:
        zone.submit(put_dataplane("web-1", "web"), put_service("own"), gone("absent"))
        zone.submit(gone("web-1"), Tick({}))

    change()  # what is made once and kept

    assert left_to_the_collector(change) == 0
