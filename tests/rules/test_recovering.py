"""Global while its log may lack something: what begins that, what is not done, what ends it."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import msgpack
import pytest

from globalcp.inputs import Doubt, Merge, TakeCopy
from globalcp.recovering import YOUNG_MS
from tests.builders import NOW_MS, replayed
from tests.maps import service as service_record
from tests.zones_up import SERVICE, VIP, Global, Stream, bound, key_of, service
from zonemesh.deciding import Put
from zonemesh.ipam import BLOCK, Binding, Block
from zonemesh.model import Change, Cursor, Key, Position
from zonemesh.recovery import COPIES_MS, LIMIT_MS, RECOVERY, Recovery
from zonemesh.settings import GLOBAL_KEY
from zonemesh.travel import VERDICT, block_verdict

MULTI = Put(
    "MeshMultiZoneService",
    Key("default", "", "", "redis"),
    {},
    {
        "selector": {"meshService": {"matchLabels": {"app": "redis"}}},
        "ports": [{"port": 80, "appProtocol": "tcp"}],
    },
)


def recovery_of(mesh: Global) -> Recovery:
    recovery = Recovery.of(mesh.state.registry)
    assert recovery is not None
    return recovery


def recovering(mesh: Global) -> bool:
    return Recovery.of(mesh.state.registry) is not None


def free_block(mesh: Global, *, granted_ms: int = NOW_MS) -> Block:
    taken = mesh.state.ledgers[SERVICE].leased()
    pool = mesh.settings.pool(SERVICE)
    return next(Block(*each, granted_ms) for each in pool.blocks() if each[0] not in taken)


def lost(stream: Stream, cursor: Cursor) -> Merge:
    """A heartbeat of a zone that has applied what is not in the log."""
    merge = stream.merge()
    return replace(merge, report=replace(merge.report, lost=cursor))


def test_in_doubt_nothing_is_leased_and_nothing_bound(
    mesh: Global, west: Stream, east: Stream
) -> None:
    mesh.submit(west.merge())
    mesh.submit(Doubt("a test says so"))

    mesh.submit(east.merge(service("web", "east"), bound("web", None, "east")), MULTI)
    mesh.tick()

    assert mesh.blocks("east") == []
    packed = mesh.state.registry.get("vip.MeshMultiZoneService", MULTI.key.packed)
    assert packed is not None
    assert Binding.unpack(packed).address is None


def test_it_is_over_once_every_zone_has_said_what_it_holds(
    mesh: Global, west: Stream, east: Stream
) -> None:
    mesh.submit(west.merge(), east.merge(), MULTI)
    mesh.submit(Doubt("a test says so"))
    asked = recovery_of(mesh).id

    mesh.submit(west.claim(recovery=asked))
    mesh.submit(east.claim(recovery="another"))
    mesh.tick()
    assert recovery_of(mesh).reported == ("west",)
    mesh.submit(east.claim(recovery=asked))
    assert recovering(mesh), "a zone's copy may know of addresses that this log does not"
    mesh.submit(TakeCopy((), last=True))

    assert not recovering(mesh)
    packed = mesh.state.registry.get("vip.MeshMultiZoneService", MULTI.key.packed)
    assert packed is not None
    assert Binding.unpack(packed).live


def test_it_is_not_over_for_zones_before_what_waited_is_bound(mesh: Global, west: Stream) -> None:
    """They show the map they had until then: nothing of it may be missing for a moment."""
    mesh.submit(west.merge())
    mesh.submit(Doubt("a test says so"))
    mesh.submit(MULTI)
    mesh.submit(west.claim(recovery=recovery_of(mesh).id))
    mesh.submit(TakeCopy((), last=True))

    assert not recovering(mesh)
    changed = [
        {change.kind: change.payload for change in sealed.entry.changes}
        for sealed in mesh.leader.chain.entries
    ]
    (end,) = [n for n, each in enumerate(changed) if each.get(RECOVERY, b"") is None]
    (bound_in,) = [
        n
        for n, each in enumerate(changed)
        if (packed := each.get("vip.MeshMultiZoneService")) and Binding.unpack(packed).live
    ]
    assert bound_in <= end


def test_a_zone_that_says_nothing_is_waited_for_a_minute_of_log_time(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge())
    mesh.submit(Doubt("a test says so"))

    mesh.tick(LIMIT_MS - 1)
    assert recovering(mesh)
    mesh.tick(1)

    assert not recovering(mesh)
    silent = [each.entry.note["recovered"][1] for each in mesh.leader.chain.entries
              if "recovered" in each.entry.note]  # fmt: skip
    assert silent == [["west"]]


def test_what_a_zone_has_applied_of_this_log_and_beyond_it_is_a_doubt(
    mesh: Global, west: Stream
) -> None:
    here = mesh.state.registry.incarnation
    mesh.submit(west.merge())
    before = mesh.state.registry.position

    mesh.submit(lost(west, Cursor(here, Position(9, 9))))

    assert "west" in recovery_of(mesh).reason
    assert recovery_of(mesh).wants
    assert recovery_of(mesh).beyond == before


def test_another_incarnation_is_a_doubt_only_in_a_log_that_has_just_begun(
    west: Stream, east: Stream
) -> None:
    other = Cursor("another", Position(9, 9))
    young, old = Global(), Global()
    old.tick(YOUNG_MS)

    young.submit(west.merge(), lost(west, other))
    old.submit(east.merge(), lost(east, other))

    assert recovery_of(young).wants
    assert not recovering(old)


def test_a_claim_to_what_nobody_holds_is_granted_as_it_was(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    block = free_block(mesh, granted_ms=NOW_MS - 1_000)

    mesh.submit(west.claim(block))

    assert block in mesh.blocks()


def test_a_claim_that_fits_no_block_of_the_pool_is_refused(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    block = free_block(mesh)

    mesh.submit(west.claim(block._replace(first=block.first + 1)))

    assert mesh.seen().conflicts == 1
    assert block_verdict("west", SERVICE, block.first + 1) in mesh.state.registry.table(VERDICT)


def test_what_is_held_stays_with_its_holder_when_nothing_is_in_doubt(
    mesh: Global, west: Stream, east: Stream
) -> None:
    mesh.submit(west.merge(), east.merge())
    held = mesh.blocks("east")[0]

    mesh.submit(west.claim(held._replace(granted_ms=0)))
    assert held in mesh.blocks("east")
    verdict = block_verdict("west", SERVICE, held.first)
    assert verdict in mesh.state.registry.table(VERDICT)
    assert mesh.seen().conflicts == 1

    mesh.submit(west.claim())
    assert verdict not in mesh.state.registry.table(VERDICT)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_of_two_claims_the_earlier_grant_wins_in_whatever_order_they_come(
    mesh: Global, west: Stream, east: Stream, order: tuple[int, ...]
) -> None:
    mesh.submit(west.merge(), east.merge())
    block = free_block(mesh)
    mesh.submit(Doubt("a test says so"))
    asked = recovery_of(mesh).id
    said = [
        lambda: west.merge(bound("web", block.first + 1)),
        lambda: west.claim(block._replace(granted_ms=NOW_MS - 1), recovery=asked),
        lambda: east.merge(bound("db", block.first + 2, "east")),
        lambda: east.claim(block._replace(granted_ms=NOW_MS - 2), recovery=asked),
    ]

    for number in order:
        mesh.submit(said[number]())

    assert mesh.state.ledgers[SERVICE].owner(block.first) == "east"
    assert mesh.binding("db", "east").address == block.first + 2
    assert mesh.binding("web").address is None
    assert key_of("web") in mesh.state.registry.table(VERDICT)
    assert key_of("db", "east") not in mesh.state.registry.table(VERDICT)
    replayed(mesh.leader.chain.entries)


def test_a_copy_gives_back_globals_own_part_and_zones_that_are_away(west: Stream) -> None:
    before, after = Global(), Global()
    before.submit(
        west.merge(service("web"), bound("web", before.settings.pool(SERVICE).blocks()[0][0]))
    )
    before.submit(MULTI)
    rows = [
        Change(kind, key, payload)
        for kind, table in before.state.registry.tables.items()
        if kind not in (BLOCK, RECOVERY)
        for key, payload in table.items()
    ]
    after.submit(west.merge(), lost(west, Cursor("another", Position(9, 9))))

    after.submit(TakeCopy(rows, last=False), TakeCopy((), last=True))

    registry = after.state.registry
    assert registry.get(MULTI.kind, MULTI.key.packed) is not None
    assert registry.get(SERVICE, key_of("web")) == service("web").payload
    assert after.order("web") == before.order("web")
    assert not recovery_of(after).wants
    after.submit(west.merge(service("late"), bound("late", None)))
    assert after.order("late") > after.order("web")


def test_what_is_no_record_in_a_copy_costs_only_itself(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(), lost(west, Cursor("another", Position(9, 9))))

    bad = [Change(VIP, "x", b"\xc1"), Change("zone.seen", "/north//", b"\x01")]
    mesh.submit(TakeCopy([*bad, service_record("kept", "north")], last=True))

    assert mesh.state.registry.get(SERVICE, key_of("kept", "north")) is not None
    assert mesh.state.registry.get(VIP, "x") is None


def test_copies_are_taken_when_all_announced_zones_have_answered() -> None:
    recovery = Recovery(id="r", reason="", since_ms=0, wants=True)

    assert not recovery.takes_copies({"west"}, COPIES_MS)
    assert not recovery.with_report("west").takes_copies({"west"}, COPIES_MS - 1)
    assert recovery.with_report("west").takes_copies({"west"}, COPIES_MS)
    assert recovery.takes_copies({"west"}, LIMIT_MS // 2)
    assert not recovery.with_copy().takes_copies((), LIMIT_MS)


def test_a_recovery_is_a_record_like_any_other() -> None:
    recovery = Recovery(id="r", reason="why", since_ms=5, wants=True, reported=("a", "b"))

    assert Recovery.unpack(recovery.pack()) == recovery
    assert GLOBAL_KEY == "///"


def test_a_recovery_of_a_lost_term_lasts_until_a_term_above_it_has_begun(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge())
    at = mesh.state.registry.cursor
    mesh.submit(lost(west, at._replace(position=Position(at.position.term + 1, 7))))
    assert recovery_of(mesh).above == at.position.term + 1

    mesh.submit(west.claim(recovery=recovery_of(mesh).id))
    mesh.tick()

    assert recovering(mesh)


def test_a_recovery_written_by_an_earlier_build_passes_over_no_term() -> None:
    recovery = Recovery(id="one.1-1", reason="a test says so", since_ms=0)
    fields = msgpack.unpackb(recovery.pack())
    del fields["above"]

    assert Recovery.unpack(msgpack.packb(fields)) == recovery


# Addresses that global has given out since the state that it was set back to


MULTI_VIP = "vip.MeshMultiZoneService"
LEGACY_KEY = "default//service/api"


def at(mesh: Global, kind: str, key: str) -> Binding | None:
    packed = mesh.state.registry.get(kind, key)
    return None if packed is None else Binding.unpack(packed)


def set_back(mesh: Global, *rows: Change) -> None:
    """In doubt, and then a newer copy: what zones hold is known."""
    mesh.submit(Doubt("a test says so"))
    mesh.submit(TakeCopy(rows, last=False), TakeCopy((), last=True))
    mesh.tick(LIMIT_MS)
    assert not recovering(mesh)


def multi_binding(address: int, *, key: str = MULTI.key.packed, order: int = 50) -> Change:
    return Change(MULTI_VIP, key, Binding(address, order, None, 0).pack())


MULTI_FIRST = 243 << 24


def made(mesh: Global, put: Put = MULTI) -> tuple[Binding, int]:
    """Its binding, and the address in it."""
    mesh.submit(put)
    mesh.tick()
    found = at(mesh, MULTI_VIP, put.key.packed)
    assert found is not None
    assert found.address is not None
    return found, found.address


def test_what_is_made_again_has_the_address_that_a_newer_copy_knows(mesh: Global) -> None:
    address = MULTI_FIRST + 4096 * 7 + 99

    set_back(mesh, multi_binding(address))
    assert mesh.state.registry.get(MULTI.kind, MULTI.key.packed) is None
    rests = at(mesh, MULTI_VIP, MULTI.key.packed)
    assert rests is not None
    assert rests.released_ms is not None

    mesh.submit(MULTI)
    mesh.tick()
    found = at(mesh, MULTI_VIP, MULTI.key.packed)
    assert found is not None
    assert (found.address, found.live) == (address, True)
    assert mesh.state.ledgers[MULTI.kind].owner(address) == ""


def test_what_exists_stays_in_use_where_the_copy_has_it_elsewhere(mesh: Global) -> None:
    before, address = made(mesh)

    set_back(mesh, multi_binding(address + 1))

    found = at(mesh, MULTI_VIP, MULTI.key.packed)
    assert found == before._replace(address=address + 1)


def test_of_two_the_newer_has_the_address_and_the_other_gets_another_one(mesh: Global) -> None:
    _, address = made(mesh)
    newer = Key("default", "", "", "newer").packed

    set_back(mesh, multi_binding(address, key=newer))
    mesh.tick()

    found, other = at(mesh, MULTI_VIP, MULTI.key.packed), at(mesh, MULTI_VIP, newer)
    assert found is not None
    assert other is not None
    assert other.address == address
    assert found.live
    assert found.address != address


def test_two_that_have_changed_places_since_both_have_theirs(mesh: Global) -> None:
    other = replace(MULTI, key=Key("default", "", "", "other"))
    keys = MULTI.key.packed, other.key.packed
    (first, its), (second, others) = made(mesh), made(mesh, other)

    set_back(mesh, multi_binding(others, key=keys[0]), multi_binding(its, key=keys[1]))

    assert at(mesh, MULTI_VIP, keys[0]) == first._replace(address=others)
    assert at(mesh, MULTI_VIP, keys[1]) == second._replace(address=its)


def test_an_address_in_a_zone_s_block_is_not_taken_for_global_s(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    address = mesh.blocks()[0].first + 1

    set_back(mesh, Change("vip.Legacy", LEGACY_KEY, Binding(address, None, None, 0).pack()))

    assert at(mesh, "vip.Legacy", LEGACY_KEY) is None


def test_a_legacy_name_that_nobody_wants_any_more_rests(mesh: Global) -> None:
    address = 250 << 24

    set_back(mesh, Change("vip.Legacy", LEGACY_KEY, Binding(address, None, None, 0).pack()))

    found = at(mesh, "vip.Legacy", LEGACY_KEY)
    assert found is not None
    assert found.address == address
    assert found.released_ms is not None


def test_nothing_but_addresses_of_global_s_own_is_taken_where_something_is_left(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge())
    held = mesh.block_records()
    there = service_record("web", "north"), Change("Zone", Key("", "", "", "north").packed, b"x")

    set_back(mesh, *there, bound("web", 241 << 24, "north"), Change(MULTI_VIP, "x", b"\xc1"))

    assert mesh.state.registry.get(SERVICE, key_of("web", "north")) is None
    assert mesh.state.registry.get("Zone", Key("", "", "", "north").packed) is None
    assert mesh.state.registry.get(VIP, key_of("web", "north")) is None
    assert mesh.block_records() == held


def test_no_order_is_drawn_twice(mesh: Global) -> None:
    set_back(mesh, multi_binding(MULTI_FIRST, order=50))

    mesh.submit(replace(MULTI, key=Key("default", "", "", "late")))

    found = at(mesh, MULTI_VIP, Key("default", "", "", "late").packed)
    assert found is not None
    assert found.order is not None
    assert found.order > 50
