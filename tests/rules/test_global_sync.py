"""Full syncs: the difference, in bounded entries, redone by anyone at any point."""

from __future__ import annotations

import pytest

from globalcp.inputs import Begin
from tests.builders import Chain
from tests.zones_up import SERVICE, VIP, Global, Stream, bound, key_of, service
from zonemesh.deciding import Delete
from zonemesh.model import Key
from zonemesh.travel import SEEN


def grown(stream: Stream, count: int) -> None:
    """Services of a size that one entry of global cannot hold all of."""
    for number in range(count):
        stream.write(service(f"s{number}", padding="x" * 2_000), bound(f"s{number}", None))


def test_a_full_sync_merges_the_difference_and_removes_what_is_gone(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge(service("old"), bound("old", None), service("kept")))
    fresh = Stream(incarnation="anew")
    fresh.write(service("kept"), service("new"), bound("new", None))

    assert mesh.submit(fresh.replace()) == [True]

    assert mesh.held()[SERVICE] == {key_of("kept"), key_of("new")}
    assert mesh.held()[VIP] == {key_of("new")}
    assert mesh.cursor == fresh.report.cursor


def test_a_large_full_sync_takes_bounded_entries_and_moves_the_cursor_last(
    mesh: Global, west: Stream
) -> None:
    grown(west, 1_000)
    start = len(mesh.leader.chain.entries)

    outcomes = []
    whole = west.replace()
    while True not in outcomes:
        outcomes += mesh.submit(whole)

    written = mesh.leader.chain.entries[start:]
    assert len(outcomes) > 2
    moved = [bool(sealed.entry.src) for sealed in written if sealed.entry.changes]
    assert moved.index(True) >= len(outcomes) - 1
    assert moved.count(True) == 1
    assert len(mesh.held()[SERVICE]) == len(mesh.held()[VIP]) == 1_000


@pytest.mark.parametrize("done", range(5))
def test_a_full_sync_can_be_redone_by_another_leader_at_any_point(
    mesh: Global, west: Stream, done: int
) -> None:
    mesh.submit(west.merge(service("old"), bound("old", None)))
    west.write(service("old")._replace(payload=None), bound("old", None)._replace(payload=None))
    grown(west, 1_000)
    begun = west.replace()
    for _ in range(done):
        mesh.submit(begun)

    other = Global(begin=False)
    for sealed in mesh.leader.chain.entries:
        if sealed.entry.position > other.state.registry.position:
            other.state.registry.apply(sealed)
    other.leader.chain = Chain(other.state.registry)
    other.submit(Begin(other.settings))
    whole = west.replace()
    while other.submit(whole) != [True]:
        pass

    assert other.held()[SERVICE] == {key_of(f"s{number}") for number in range(1_000)}
    assert sorted(other.order(f"s{number}") for number in range(1_000)) == list(range(2, 1_002))
    assert other.cursor == west.report.cursor


def test_a_full_sync_sees_what_is_merged_just_before_it(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("web", version="1")))
    changed = west.merge(service("web", version="2"))
    west.write(service("web", version="1"))

    mesh.submit(changed, west.replace())

    assert mesh.state.registry.get(SERVICE, key_of("web")) == service("web", version="1").payload


def test_a_full_sync_that_changes_nothing_changes_no_record(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("web"), bound("web", None)))
    address = mesh.blocks()[0].first
    mesh.submit(west.merge(bound("web", address)), west.merge(bound("web", address, released_ms=9)))

    decision = mesh.leader.step(west.replace())

    assert {change.kind for change in decision.changes} <= {SEEN}


def test_a_full_sync_of_what_is_merged_already_is_bounded_too(mesh: Global, west: Stream) -> None:
    west.write(*(bound(f"s{number}", None) for number in range(20_000)))
    whole = west.replace()
    while mesh.submit(whole) != [True]:
        pass
    fresh = Stream(incarnation="anew")
    fresh.write(*(bound(f"s{number}", None) for number in range(1, 20_000)))
    again = fresh.replace()

    parts = 1
    while mesh.submit(again) != [True]:
        assert mesh.cursor == west.report.cursor
        parts += 1

    assert parts > 2
    assert mesh.held()[VIP] == {key_of(f"s{number}") for number in range(1, 20_000)}
    assert mesh.cursor == fresh.report.cursor


def test_a_full_sync_begins_again_if_the_zone_is_deleted_meanwhile(
    mesh: Global, west: Stream
) -> None:
    grown(west, 1_000)
    whole = west.replace()
    assert mesh.submit(whole) == [False]
    mesh.tick(10_000)
    mesh.submit(Delete("Zone", Key("", "", "", "west")))

    while mesh.submit(whole) != [True]:
        pass

    assert len(mesh.held()[SERVICE]) == len(mesh.held()[VIP]) == 1_000
