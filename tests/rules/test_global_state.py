"""What global takes in from zones: each entry once, each record for itself, each order once."""

from __future__ import annotations

import itertools

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globalcp.inputs import Merge, Tick
from globalcp.merging import REJECTED_SHOWN_MAX
from tests.builders import NOW_MS, left_to_the_collector, put_dataplane, replayed
from tests.zones_up import SERVICE, VIP, Global, Stream, bound, key_of, service
from zonemesh.deciding import Put
from zonemesh.ipam import BLOCK, Block
from zonemesh.model import Change, Key, Record
from zonemesh.settings import SETTINGS
from zonemesh.travel import SEEN


def first_of(mesh: Global, zone: str = "west") -> int:
    return mesh.blocks(zone)[0].first


def test_a_zone_is_known_and_stocked_from_its_first_entry_on(mesh: Global, west: Stream) -> None:
    decision = mesh.leader.step(west.merge())

    assert {change.kind for change in decision.changes} == {"Zone", SEEN, BLOCK}
    assert len(mesh.blocks()) == 2
    assert mesh.cursor == west.report.cursor
    seen = mesh.seen()
    assert (seen.uid, seen.online, seen.entries) == ("uid-west", True, 1)


def test_two_zones_that_are_new_in_one_entry_get_different_blocks() -> None:
    for number in range(20):
        mesh = Global(pool="10.0.0.0/30")
        names = [f"zone-{number}-{each}" for each in "ab"]

        mesh.leader.step(*(Stream(name).merge() for name in names))

        firsts = mesh.block_firsts()
        assert len(set(firsts)) == len(firsts) == 4


# Exactly once


def test_an_entry_merged_again_changes_nothing(mesh: Global, west: Stream) -> None:
    merge = west.merge(service("web"), bound("web", None))
    mesh.submit(merge)
    before = mesh.state.registry.digest

    mesh.submit(merge)

    assert mesh.state.registry.digest == before
    assert mesh.seen().entries == 1


def test_the_same_entries_twice_in_one_decision_are_merged_once(mesh: Global, west: Stream) -> None:
    merge = west.merge(service("web"), bound("web", None))

    mesh.leader.step(merge, merge)

    assert mesh.seen().entries == 1
    assert mesh.order("web") == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), max_size=8))
def test_overlapping_reads_in_order_merge_every_entry_once(spans: list[tuple[int, int]]) -> None:
    mesh, west = Global(), Stream()
    for number in range(6):
        west.write(service("web", port=str(number)), bound(f"s{number}", None))

    done = 0
    for start, end in [*spans, (0, 6)]:
        if start <= done < end:
            entries = west.chain.entries[start:end]
            registry = replayed(west.chain.entries[:end])
            report = west.report.__class__(registry.cursor, "uid-west", NOW_MS)
            mesh.submit(Merge("west", entries, report))
            done = end

    assert mesh.seen().entries == 6
    assert mesh.cursor == west.report.cursor
    assert [mesh.order(f"s{number}") for number in range(6)] == [1, 2, 3, 4, 5, 6]
    assert mesh.state.registry.get(*service("web")[:2]) == service("web", port="5").payload


def test_a_cursor_moves_with_its_entries_and_never_back(mesh: Global, west: Stream) -> None:
    early = west.merge(service("web"))
    late = west.merge(service("api"))
    mesh.submit(early, late)

    mesh.submit(early)
    mesh.tick(west=early.report)

    assert mesh.cursor == late.report.cursor


# Every record for itself


def _malformed() -> list[Change]:
    spec = put_dataplane("x", "web").spec
    networking = {"networking": {"address": "10.0.0.1", "inbound": 7}}

    def dataplane(**fields: object) -> bytes:
        record = {"created_ms": 1, "modified_ms": 1, "labels": {}, "spec": spec} | fields
        return bytes(msgpack.packb([*record.values()]))

    key = key_of("x")
    return [
        Change(SERVICE, key_of("web", "east"), service("web", "east").payload),
        Change(SERVICE, key_of("web", ""), service("web").payload),
        Change(SERVICE, "west", b""),
        Change(SERVICE, "default/west/web", service("web").payload),
        Change(
            "Mesh", Key("", "west", "", "mine").packed, Record(created_ms=1, modified_ms=1).pack()
        ),
        Change("Zone", Key("", "west", "", "mine").packed, None),
        Change(BLOCK, Key("", "west", SERVICE, "0").packed, Block(0, 1, 1).pack()),
        Change(SETTINGS, "/west//", b""),
        Change(SEEN, "/west//", None),
        Change(SERVICE, key, b"garbage"),
        Change(VIP, key, b"garbage"),
        Change(VIP, key, msgpack.packb([True, None, None, 1])),
        Change("Dataplane", key, dataplane(spec=networking)),
        Change("Dataplane", key, dataplane(spec={"networking": 5})),
        Change("Dataplane", key, dataplane(labels={"kuma.io/workload": 5})),
        Change("Dataplane", key, dataplane(labels={5: "x"})),
        Change("Dataplane", key, dataplane(created_ms="1")),
        Change(SERVICE, key_of("No Label"), service("web").payload),
    ]


@pytest.mark.parametrize("bad", _malformed(), ids=itertools.count())
@pytest.mark.parametrize("full_sync", [False, True])
def test_a_bad_record_is_rejected_and_counted_and_the_rest_goes_on(
    mesh: Global, west: Stream, bad: Change, full_sync: bool
) -> None:
    mesh.submit(Stream("east").merge(service("web", "east"), bound("web", None, "east")))
    before = mesh.held("east")
    merge = west.merge(service("good"), bad, bound("good", None))

    mesh.submit(west.replace() if full_sync else merge)

    removal_of_nothing = bad.payload is None and full_sync
    assert mesh.seen().rejected == (0 if removal_of_nothing else 1)
    assert mesh.held() == {
        SERVICE: {key_of("good")},
        VIP: {key_of("good")},
        BLOCK: mesh.held()[BLOCK],
        SEEN: {"/west//"},
    }
    assert mesh.held("east") == before
    assert mesh.cursor == west.report.cursor


def test_what_is_wrong_with_rejected_records_is_told_within_bounds(
    mesh: Global, west: Stream
) -> None:
    bad = [Change("k" * 500, f"default/east//{'n' * 500}{number}", b"") for number in range(200)]
    for _ in range(60):
        west.write(*(each._replace(kind=f"{each.kind}{n}") for n, each in enumerate(bad)))

    mesh.submit(west.merge_all())

    notes = [sealed.entry.note.get("rejected", ()) for sealed in mesh.leader.chain.entries]
    assert mesh.seen().rejected == 60 * 200
    assert max(map(len, notes)) == REJECTED_SHOWN_MAX
    assert notes[-1][-1][3] == "not zone west's to write"


def test_kinds_that_this_build_does_not_know_are_carried_as_bytes(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge(Change("MeshFuture", key_of("x"), b"\xc1 anything")))

    assert mesh.state.registry.get("MeshFuture", key_of("x")) == b"\xc1 anything"
    mesh.submit(west.merge(Change("MeshFuture", key_of("x"), None)))
    assert mesh.state.registry.get("MeshFuture", key_of("x")) is None


# Order


def test_an_order_is_drawn_once_and_kept_through_rest_and_full_sync(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge(service("a"), bound("a", None, birth=1), bound("b", None, birth=2)))
    address = first_of(mesh)
    assert (mesh.order("a"), mesh.order("b")) == (1, 2)

    for step in (
        west.merge(bound("a", address, birth=1)),
        west.merge(
            bound("a", address, birth=1, released_ms=5), service("a")._replace(payload=None)
        ),
        west.replace(),
        west.merge(bound("a", address, birth=1)),
        Stream("west", incarnation="another").merge(bound("a", address, birth=1)),
    ):
        mesh.submit(step)
        assert (mesh.order("a"), mesh.order("b")) == (1, 2)


@pytest.mark.parametrize("full_sync", [False, True])
def test_orders_are_drawn_in_the_order_of_birth(
    mesh: Global, west: Stream, full_sync: bool
) -> None:
    births = {"a": 7, "b": 3, "c": 9, "d": 4}
    merge = west.merge(*(bound(name, None, birth=birth) for name, birth in births.items()))

    mesh.submit(west.replace() if full_sync else merge)

    assert sorted(births, key=mesh.order) == sorted(births, key=births.__getitem__)


def test_an_order_that_only_the_zone_still_knows_is_kept_and_not_drawn_again(
    mesh: Global, west: Stream
) -> None:
    west.write(bound("a", None, birth=1, order=5))
    mesh.submit(west.replace())

    mesh.submit(west.merge(*(bound(f"n{number}", None, birth=2 + number) for number in range(6))))

    assert mesh.order("a") == 5
    assert sorted(mesh.order(f"n{number}") for number in range(6)) == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("claimed", [-(1 << 60), 0, (1 << 64) - 1])
def test_an_order_that_global_cannot_have_drawn_is_not_taken(
    mesh: Global, west: Stream, claimed: int
) -> None:
    mesh.submit(west.merge(bound("a", None, order=claimed)))

    assert mesh.order("a") == 1


def test_a_rest_is_told_in_globals_log_time(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(bound("a", None)))
    address = first_of(mesh)
    mesh.submit(west.merge(bound("a", address)))
    mesh.leader.wait(5_000)

    mesh.submit(west.merge(bound("a", address, released_ms=77_000_000)))
    mesh.leader.wait(5_000)
    mesh.submit(west.replace())

    assert mesh.binding("a").released_ms == 5_000
    mesh.submit(west.merge(bound("a", address, released_ms=78_000_000)))
    assert mesh.binding("a").released_ms == 5_000
    mesh.submit(west.merge(bound("a", address)))
    assert mesh.binding("a").live


# Decisions


def test_every_decision_replayed_gives_the_same_state(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("a"), bound("a", None)), Stream("east").merge())
    mesh.submit(west.merge(bound("a", first_of(mesh, "east"))), Tick({"hash": "x"}))
    mesh.submit(Put("Mesh", Key("", "", "", "other"), {}, {}), west.replace())
    mesh.tick(20_000)

    replica = replayed(mesh.leader.chain.entries)

    assert replica.digest == mesh.state.registry.digest
    assert replica.parts() == mesh.state.registry.parts()
    assert replica.cursors == mesh.state.registry.cursors


def test_a_decision_leaves_nothing_to_the_garbage_collector(mesh: Global, west: Stream) -> None:
    merges = [west.merge(service(name), bound(name, None)) for name in ("a", "b", "c")]
    mesh.submit(merges[0])

    def change() -> None:
        mesh.submit(*merges[1:])
        mesh.submit(Tick({}, {}))

    assert left_to_the_collector(change) == 0
