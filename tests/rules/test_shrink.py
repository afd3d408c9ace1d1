"""What a new copy of global's log may lack: a proof, a few, or nothing."""

from __future__ import annotations

import msgpack
import pytest

from tests.builders import NOW_MS
from zonecp.shrink import GuardedCopy, Limits, withheld
from zonemesh.ipam import Binding, vip_kind
from zonemesh.model import Change, Cursor, Key, Position, Record
from zonemesh.registry import Registry
from zonemesh.settings import zone_key
from zonemesh.travel import NOT_MERGED, SEEN, up_log

SERVICE = "MeshService"
VIP = vip_kind(SERVICE)
LIMITS = Limits(services=3, share=0.3)
BASE = 241 << 24


def service(name: str, zone: str = "west", address: int | None = None) -> list[Change]:
    key = Key("default", zone, "", name).packed
    record = Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec={"ports": []}).pack()
    at = BASE + sum(map(ord, zone + name)) * 64 + len(name) if address is None else address
    return [Change(SERVICE, key, record), Change(VIP, key, Binding(at, 1, None, 1).pack())]


def services(count: int, zone: str = "west") -> list[Change]:
    return [
        change
        for number in range(count)
        for change in service(f"s{number}", zone, BASE + number + (4096 if zone == "east" else 0))
    ]


def copy(
    *changes: Change,
    into: Registry | None = None,
    incarnation: str = "log",
    at: int = 100,
    **merged: tuple[str, int],
) -> Registry:
    """A copy of global's log; `merged`: how far it holds zones' streams."""
    registry = Registry() if into is None else into
    for change in changes:
        registry.put(*change)
    registry.incarnation, registry.position = incarnation, Position(1, at)
    for zone, (stream, seq) in merged.items():
        registry.cursors[up_log(zone)] = Cursor(stream, Position(1, seq))
    return registry


def seen(zone: str, **fields: object) -> Change:
    return Change(SEEN, zone_key(zone), msgpack.packb(fields))


def lacking(former: Registry, fresh: Registry) -> dict[str, int]:
    found = withheld("here", former, fresh, LIMITS)
    return {zone: sum(each.kind == SERVICE for each in changes) for zone, changes in found.items()}


FORMER = copy(*services(10), west=("up", 50))


def test_what_a_new_log_lacks_is_withheld_until_its_zone_is_merged_again() -> None:
    assert lacking(FORMER, copy(incarnation="new")) == {"west": 10}


@pytest.mark.parametrize(
    "stream, seq, held",
    [("up", 49, 10), ("up", 50, 0), ("up", 51, 0), ("other", 1, 0)],
)
def test_a_zone_that_is_merged_as_far_as_before_has_removed_what_is_missing(
    stream: str, seq: int, held: int
) -> None:
    found = lacking(FORMER, copy(incarnation="new", west=(stream, seq)))

    assert found == ({"west": held} if held else {})


def test_a_cursor_before_which_not_all_is_merged_proves_nothing() -> None:
    fresh = copy(seen("west", h=NOT_MERGED), west=("up", 60))

    assert lacking(FORMER, fresh) == {"west": 10}


def test_a_deleted_zone_takes_its_services_with_it() -> None:
    assert lacking(FORMER, copy(seen("west", deleted=True, h=NOT_MERGED))) == {}


def test_globals_own_are_withheld_unless_the_same_log_went_on() -> None:
    former = copy(*services(10, ""))

    assert lacking(former, copy(at=101)) == {}
    assert lacking(former, copy(at=99)) == {"": 10}
    assert lacking(former, copy(at=101, incarnation="new")) == {"": 10}


def test_a_zones_own_records_are_its_own_affair() -> None:
    former = copy(*services(10, "here"))

    assert lacking(former, copy(incarnation="new")) == {}


@pytest.mark.parametrize("gone, held", [(2, 0), (3, 0), (4, 4), (10, 10)])
def test_a_few_and_a_small_share_may_go_at_once(gone: int, held: int) -> None:
    fresh = copy(*services(10)[2 * gone :], incarnation="new")

    assert lacking(FORMER, fresh).get("west", 0) == held


def test_a_service_whose_address_is_anothers_by_now_is_not_withheld() -> None:
    taken = service("other", "east", BASE + 4)

    found = withheld("here", FORMER, copy(*taken, incarnation="new"), LIMITS)

    names = {Key.parse(change.key).name for change in found["west"]}
    assert names == {f"s{number}" for number in range(10)} - {"s4"}


def test_control_records_are_never_withheld() -> None:
    former = copy(*services(10), seen("west", h=b""), Change("block", "/west/MeshService/0", b"x"))

    kinds = {change.kind for change in withheld("here", former, copy(), LIMITS)["west"]}

    assert kinds == {SERVICE, VIP}


# The copy that applies it


@pytest.fixture
def guarded() -> GuardedCopy:
    registry = GuardedCopy("here", limits=LIMITS)
    copy(*services(10), into=registry, west=("up", 50))
    return registry


def held_names(registry: Registry) -> set[str]:
    return {Key.parse(key).name for key in registry.table(SERVICE)}


def test_a_copy_keeps_what_its_successor_lacks_and_tells_no_index_of_a_removal(
    guarded: GuardedCopy,
) -> None:
    told: list[tuple[str, bytes | None]] = []

    class Index:
        def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
            del kind, old
            told.append((key, new))

    guarded.add_index(Index())
    told.clear()
    guarded.become(copy(*service("fresh"), incarnation="new"))

    assert held_names(guarded) == {"fresh", *(f"s{number}" for number in range(10))}
    assert guarded.holding == {"west": 10}
    assert all(new is not None for _, new in told)
    assert guarded.incarnation == "new"


def test_what_the_log_says_of_a_key_holds(guarded: GuardedCopy) -> None:
    guarded.become(copy(incarnation="new"))

    for change in service("s1", address=BASE + 1):
        guarded.put(*change)  # merged again
    key = Key("default", "west", "", "s2").packed
    guarded.put(SERVICE, key, None)  # removed by its zone
    guarded.put(VIP, key, None)

    assert guarded.holding == {"west": 8}
    while guarded.release("west", 3):
        pass
    assert held_names(guarded) == {"s1"}
    assert guarded.holding == {}
    assert set(guarded.table(VIP)) == {Key("default", "west", "", "s1").packed}


def test_an_address_that_the_log_gives_to_another_service_is_held_no_more(
    guarded: GuardedCopy,
) -> None:
    guarded.become(copy(incarnation="new"))

    for change in service("other", "east", BASE + 7):
        guarded.put(*change)

    assert "s7" not in held_names(guarded)
    addresses = [Binding.unpack(packed).address for packed in guarded.table(VIP).values()]
    assert len(set(addresses)) == len(addresses)


def test_a_zone_is_proven_once_the_log_has_it_as_far_as_before(guarded: GuardedCopy) -> None:
    guarded.become(copy(incarnation="new"))
    assert guarded.proven() == []

    guarded.cursors[up_log("west")] = Cursor("up", Position(1, 49))
    assert guarded.proven() == []
    guarded.cursors[up_log("west")] = Cursor("up", Position(1, 50))

    assert guarded.proven() == ["west"]


def test_a_second_loss_is_measured_by_what_was_known_before_the_first(
    guarded: GuardedCopy,
) -> None:
    guarded.become(copy(incarnation="new", west=("up", 3)))
    guarded.become(copy(incarnation="newer", west=("up", 5)))

    assert guarded.holding == {"west": 10}
    assert guarded.proven() == []


def test_what_is_held_is_not_written_to_disk(guarded: GuardedCopy) -> None:
    guarded.become(copy(*service("fresh"), incarnation="new"))

    rows = {key for kind, key, _ in guarded.freeze().rows() if kind == SERVICE}

    assert rows == {Key("default", "west", "", "fresh").packed}


def test_a_copy_that_is_loaded_first_holds_nothing() -> None:
    registry = GuardedCopy("here", limits=LIMITS)
    registry.become(copy(*services(10)))
    assert registry.holding == {}
