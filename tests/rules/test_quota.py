"""What one zone may bring: new records over its quota are refused, and taken when there is room."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from globalcp.inputs import Begin
from tests.builders import replayed
from tests.zones_up import SERVICE, VIP, Global, Stream, bound, key_of, service
from zonemesh.deciding import Put
from zonemesh.errors import ValidationError
from zonemesh.model import Change, Key
from zonemesh.settings import Settings
from zonemesh.travel import NOT_MERGED


def limited(**limits: Any) -> Global:
    mesh = Global(begin=False)
    mesh.submit(Begin(Settings(pools=mesh.settings.pools, **limits)))
    return mesh


@pytest.fixture
def mesh() -> Global:
    return limited(quota_services=3)


def registered(name: str, address: int | None = None) -> list[Change]:
    return [service(name), bound(name, address)]


def services(mesh: Global, zone: str = "west") -> set[str]:
    return {Key.parse(key).name for key in mesh.held(zone).get(SERVICE, ())}


def gone(name: str) -> list[Change]:
    return [Change(SERVICE, key_of(name), None), Change(VIP, key_of(name), None)]


def label(mesh: Global, **labels: str) -> Any:
    named = {f"zonemesh.io/quota-{name}": value for name, value in labels.items()}
    return mesh.leader.submit(Put("Zone", Key("", "", "", "west"), named, {}))[0]


def test_new_services_beyond_the_quota_are_refused_with_their_bindings_and_the_rest_goes_on(
    mesh: Global, west: Stream
) -> None:
    changes = [change for name in "abcde" for change in registered(name)]
    mesh.submit(west.merge(*changes))

    assert services(mesh) == {"a", "b", "c"}
    assert {Key.parse(key).name for key in mesh.held()[VIP]} == {"a", "b", "c"}
    assert (mesh.seen().refused, mesh.seen().refusal) == (4, "quota: 3 services")
    assert mesh.seen().rejected == 0
    assert mesh.cursor == west.report.cursor


def test_a_zones_quota_is_its_own(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abcde")))

    mesh.submit(Stream("east").merge(*(service(name, "east") for name in "abc")))

    assert services(mesh, "east") == {"a", "b", "c"}
    assert mesh.seen("east").refused == 0


def test_changes_and_removals_of_what_is_held_pass_a_full_quota(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abc")))

    mesh.submit(west.merge(service("a", other="tag"), *gone("b")))

    assert services(mesh) == {"a", "c"}
    assert mesh.seen().refused == 0
    assert mesh.seen().records == 5


def test_a_removal_makes_room_for_what_comes_after_it(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abc")))

    mesh.submit(west.merge(*gone("b")))
    mesh.submit(west.merge(service("d"), service("e")))

    assert services(mesh) == {"a", "c", "d"}


def test_what_was_refused_is_taken_once_there_is_room_for_it(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abcde")))
    mesh.tick(60_000, west=west.report)
    assert mesh.seen().h != NOT_MERGED  # there is no room at all

    mesh.submit(west.merge(*gone("a"), *gone("b")))
    mesh.tick(1_000, west=west.report)
    assert mesh.seen().h == NOT_MERGED  # which has the zone publish itself anew
    west.write()
    mesh.submit(west.replace())

    assert services(mesh) == {"c", "d", "e"}
    assert (mesh.seen().refused, mesh.seen().refusal) == (0, "")
    assert mesh.seen().h != NOT_MERGED


def test_while_there_is_not_room_for_all_a_zone_is_asked_once_a_minute(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge(*map(service, "abcdefg")), west.merge(*gone("a")))
    asked = []

    for second in range(200):
        mesh.tick(1_000, west=west.report)
        if mesh.seen().h == NOT_MERGED:
            asked.append(second)
            west.write(*(gone("b") if len(asked) == 2 else ()))
            mesh.submit(west.replace())
            mesh.submit(west.merge(*gone("c" if len(asked) == 1 else "d")))

    assert len(asked) in (3, 4)
    assert min(late - early for early, late in pairwise(asked)) >= 9


def test_a_label_of_the_zone_gives_it_another_quota_at_once(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abcde")))

    label(mesh, services="5")
    mesh.tick(60_000, west=west.report)
    west.write()
    mesh.submit(west.replace())

    assert services(mesh) == set("abcde")


@pytest.mark.parametrize("wrong", ["-1", "many", "", "1.5", "٣"])
def test_a_label_that_is_no_number_is_refused_with_its_name(
    mesh: Global, west: Stream, wrong: str
) -> None:
    mesh.submit(west.merge())

    with pytest.raises(ValidationError, match="quota-services"):
        raise label(mesh, services=wrong)


def test_bytes_are_limited_over_records_of_every_kind(west: Stream) -> None:
    one = service("a")
    size = len(one.kind) + len(one.key) + len(one.payload or b"")
    mesh = limited(quota_bytes=3 * size)

    mesh.submit(west.merge(*map(service, "abcd")))

    assert services(mesh) == {"a", "b", "c"}
    assert mesh.seen().refusal == f"quota: {3 * size} bytes"
    assert mesh.state.holdings.bytes["west"] == 3 * size


def test_a_full_sync_takes_no_more_than_the_quota(mesh: Global, west: Stream) -> None:
    west.write(*(change for name in "abcdefgh" for change in registered(name)))

    mesh.submit(west.replace())

    assert len(services(mesh)) == 3
    assert mesh.seen().refused == 10


def test_replicas_agree_on_what_was_refused(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(*map(service, "abcde")), west.merge(*gone("a")))
    mesh.tick(60_000, west=west.report)

    copy = replayed(mesh.leader.chain.entries)

    assert copy.digest == mesh.state.registry.digest
