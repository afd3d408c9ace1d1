"""Addresses of what is made on global: multi-zone and external services."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from globalcp.deciding import decide
from globalcp.inputs import Begin
from globalcp.state import GlobalState
from tests.builders import Leader, replayed
from tests.zones_up import Global, Stream, bound, service
from zonemesh.deciding import Delete, Put
from zonemesh.errors import NotFoundError
from zonemesh.ipam import BLOCK, Binding, Block, vip_kind
from zonemesh.model import Change, Key, Record, zone_of
from zonemesh.settings import Settings
from zonemesh.wire import ENTRY_BYTES_MAX

EXTERNAL = "MeshExternalService"
MULTI_ZONE = "MeshMultiZoneService"
QUARANTINE_MS = 3_600_000
SPECS: Mapping[str, Mapping[str, Any]] = {
    EXTERNAL: {"match": {"port": 443}, "endpoints": [{"address": "192.0.2.1", "port": 443}]},
    MULTI_ZONE: {
        "selector": {"meshService": {"matchLabels": {"app": "web"}}},
        "ports": [{"port": 80}],
    },
}
BOTH = pytest.mark.parametrize("kind", [EXTERNAL, MULTI_ZONE])


def put(kind: str, name: str = "web", *, mesh: str = "default", **labels: str) -> Put:
    return Put(kind, Key(mesh, "", "", name), labels, SPECS[kind])


def delete(kind: str, name: str = "web") -> Delete:
    return Delete(kind, Key("default", "", "", name))


def began(**pools: str) -> Global:
    """A global with other pools than the usual, and a quarantine of an hour."""
    made = Global(begin=False)
    cidrs = {kind: (cidr,) for kind, cidr in pools.items()}
    made.submit(Begin(Settings(pools=cidrs, quarantine_ms=QUARANTINE_MS)))
    return made


def binding(made: Global, kind: str, name: str = "web", mesh: str = "default") -> Binding:
    packed = made.state.registry.get(vip_kind(kind), Key(mesh, "", "", name).packed)
    assert packed is not None
    return Binding.unpack(packed)


def address(made: Global, kind: str, name: str = "web") -> int | None:
    found = binding(made, kind, name)
    return found.address if found.live else None


def blocks(made: Global, kind: str) -> dict[str, list[Block]]:
    """By owner."""
    found: dict[str, list[Block]] = {}
    for key, packed in made.state.registry.table(BLOCK).items():
        if Key.parse(key).namespace == kind:
            found.setdefault(zone_of(key), []).append(Block.unpack(packed))
    return found


@pytest.mark.parametrize(
    "kind, first", [(EXTERNAL, 242 << 24), (MULTI_ZONE, 243 << 24)], ids=[EXTERNAL, MULTI_ZONE]
)
def test_what_is_made_on_global_has_an_address_at_once(kind: str, first: int) -> None:
    made = began()

    made.submit(put(kind))

    found = address(made, kind)
    assert found is not None
    assert first <= found < first + (1 << 24)
    assert made.state.shortages == {}


@BOTH
def test_a_service_of_every_mesh_has_an_address_of_its_own(kind: str) -> None:
    made = began()

    made.submit(put(kind), put(kind, mesh="shop"), put(kind, "other"))

    found = {
        binding(made, kind).address,
        binding(made, kind, mesh="shop").address,
        binding(made, kind, "other").address,
    }
    assert len(found - {None}) == 3


def test_ranks_among_equal_names_follow_the_order_of_making() -> None:
    made = began()

    made.submit(put(MULTI_ZONE, "a"), put(EXTERNAL, "a"))
    made.submit(put(MULTI_ZONE, "b"))

    orders = [binding(made, *each).order or 0 for each in ((MULTI_ZONE, "a"), (MULTI_ZONE, "b"))]
    assert 0 < orders[0] < orders[1]


@BOTH
def test_a_service_that_is_written_again_keeps_its_binding(kind: str) -> None:
    made = began()
    made.submit(put(kind))
    before = binding(made, kind)

    made.submit(put(kind, color="blue"))

    assert binding(made, kind) == before


@BOTH
@pytest.mark.parametrize("after_ms", [0, 100 * QUARANTINE_MS], ids=["at once", "much later"])
def test_a_service_deleted_and_made_again_has_its_address_and_rank_again(
    kind: str, after_ms: int
) -> None:
    made = began()
    made.submit(put(kind))
    before = binding(made, kind)

    made.submit(delete(kind))
    assert address(made, kind) is None
    made.tick(after_ms)
    made.submit(put(kind))

    assert binding(made, kind) == before


def test_a_service_deleted_and_made_in_one_entry_keeps_its_address() -> None:
    made = began()
    made.submit(put(MULTI_ZONE))
    before = binding(made, MULTI_ZONE)

    made.submit(delete(MULTI_ZONE), put(MULTI_ZONE))

    assert binding(made, MULTI_ZONE) == before


def test_what_is_not_there_is_not_deleted() -> None:
    made = began()

    (outcome,) = made.submit(delete(MULTI_ZONE))

    assert isinstance(outcome, NotFoundError)
    assert made.state.registry.table(vip_kind(MULTI_ZONE)) == {}


def test_an_address_rests_before_another_service_has_it() -> None:
    made = began(**{MULTI_ZONE: "10.0.0.0/32"})
    made.submit(put(MULTI_ZONE, "first"))
    at = address(made, MULTI_ZONE, "first")
    made.submit(delete(MULTI_ZONE, "first"), put(MULTI_ZONE, "second"))

    made.tick(QUARANTINE_MS - 1)
    assert address(made, MULTI_ZONE, "second") is None
    made.tick(1)

    assert address(made, MULTI_ZONE, "second") == at
    assert (
        made.state.registry.get(vip_kind(MULTI_ZONE), delete(MULTI_ZONE, "first").key.packed)
        is None
    )


def test_an_exhausted_pool_is_said_and_leaves_no_other_kind_waiting() -> None:
    made = began(**{MULTI_ZONE: "10.0.0.0/30"})

    made.submit(*(put(MULTI_ZONE, f"s{number}") for number in range(6)), put(EXTERNAL))

    found = [address(made, MULTI_ZONE, f"s{number}") for number in range(6)]
    assert sum(each is not None for each in found) == 4
    assert len(set(found) - {None}) == 4
    (why,) = made.state.shortages.values()
    assert made.state.shortages.keys() == {(MULTI_ZONE, "")}
    assert MULTI_ZONE in why
    assert "10.0.0.0/30" in why
    assert address(made, EXTERNAL) is not None


def test_who_waits_has_an_address_once_the_pool_is_larger() -> None:
    made = began(**{MULTI_ZONE: "10.0.0.0/32"})
    made.submit(put(MULTI_ZONE, "a"), put(MULTI_ZONE, "b"))
    assert made.state.shortages

    made.submit(Begin(Settings(pools={MULTI_ZONE: ("10.0.0.0/32", "10.1.0.0/24")})))

    assert None not in {address(made, MULTI_ZONE, "a"), address(made, MULTI_ZONE, "b")}
    assert made.state.shortages == {}


def test_a_service_that_waited_and_was_deleted_leaves_nothing() -> None:
    made = began(**{MULTI_ZONE: "10.0.0.0/32"})
    made.submit(put(MULTI_ZONE, "a"), put(MULTI_ZONE, "b"))

    made.submit(delete(MULTI_ZONE, "b"))

    assert len(made.state.registry.table(vip_kind(MULTI_ZONE))) == 1
    assert made.state.ledgers[MULTI_ZONE].waiting[""] == {}


def test_blocks_of_global_and_of_zones_are_disjoint() -> None:
    made = began(**{EXTERNAL: "10.0.0.0/20"})
    west, east = Stream("west"), Stream("east")

    made.submit(west.merge(service("a")), put(EXTERNAL, "a"), east.merge(service("a", "east")))
    made.submit(*(put(EXTERNAL, f"s{number}") for number in range(40)))
    made.tick()

    owned = blocks(made, EXTERNAL)
    assert owned.keys() == {"", "west", "east"}
    taken = [
        each
        for of in owned.values()
        for block in of
        for each in range(block.first, block.first + block.size)
    ]
    assert len(taken) == len(set(taken))
    mine = {each for block in owned[""] for each in range(block.first, block.first + block.size)}
    assert {address(made, EXTERNAL, f"s{number}") for number in range(40)} <= mine


def test_global_takes_no_block_of_what_nothing_is_made_of() -> None:
    made = began()
    made.submit(Stream().merge(service("a")))
    made.tick()

    assert blocks(made, MULTI_ZONE) == {}
    assert blocks(made, EXTERNAL).keys() == {"west"}

    made.submit(put(EXTERNAL))
    assert blocks(made, EXTERNAL).keys() == {"west", ""}


def test_a_zone_may_not_bind_what_lies_in_a_block_of_global() -> None:
    made = began()
    made.submit(put(EXTERNAL))
    mine = address(made, EXTERNAL)
    assert mine is not None

    key = Key("default", "west", "", "theirs").packed
    claim = Change(vip_kind(EXTERNAL), key, Binding(mine, None, None, 1).pack())
    made.submit(Stream().merge(claim))

    packed = made.state.registry.get(vip_kind(EXTERNAL), key)
    assert packed is not None
    assert Binding.unpack(packed).address is None
    assert made.seen().conflicts == 1
    assert address(made, EXTERNAL) == mine


def test_a_zone_cannot_write_a_service_of_global() -> None:
    made = began()
    made.submit(put(EXTERNAL))
    before = binding(made, EXTERNAL)

    forged = Change(vip_kind(EXTERNAL), put(EXTERNAL).key.packed, None)
    record = Record(created_ms=1, modified_ms=1, spec=SPECS[EXTERNAL])
    made.submit(Stream().merge(forged, Change(EXTERNAL, put(EXTERNAL).key.packed, record.pack())))

    assert binding(made, EXTERNAL) == before
    assert made.seen().rejected == 2


def test_a_zone_that_is_deleted_takes_nothing_of_global_with_it() -> None:
    made = began()
    made.submit(put(EXTERNAL), put(MULTI_ZONE), Stream().merge(service("a"), bound("a", 241 << 24)))
    before = [binding(made, kind) for kind in (EXTERNAL, MULTI_ZONE)]
    made.tick(60_000)

    made.submit(Delete("Zone", Key("", "", "", "west")))

    assert [binding(made, kind) for kind in (EXTERNAL, MULTI_ZONE)] == before


def test_many_that_are_made_at_once_all_have_addresses_in_entries_of_bounded_size() -> None:
    made = began()

    made.submit(*(put(MULTI_ZONE, f"s{number}") for number in range(6_000)))

    found = {address(made, MULTI_ZONE, f"s{number}") for number in range(6_000)}
    assert None not in found
    assert len(found) == 6_000
    assert all(len(each.data) <= ENTRY_BYTES_MAX for each in made.leader.chain.entries)


def test_a_successor_that_reads_the_log_goes_on_as_the_first_would_have() -> None:
    first, successor = began(), Global(begin=False)
    first.submit(*(put(MULTI_ZONE, f"s{number}") for number in range(20)), put(EXTERNAL))
    first.submit(delete(MULTI_ZONE, "s3"))
    successor.state = GlobalState()
    replayed(first.leader.chain.entries, successor.state.registry)
    successor.leader = Leader(successor.state.registry, partial(decide, successor.state))

    for each in (first, successor):
        each.submit(put(MULTI_ZONE, "s3"), put(MULTI_ZONE, "new"), put(EXTERNAL, "new"))

    for kind in (EXTERNAL, MULTI_ZONE):
        table = first.state.registry.table(vip_kind(kind))
        assert successor.state.registry.table(vip_kind(kind)) == table
        assert all(Binding.unpack(each).live for each in table.values())
