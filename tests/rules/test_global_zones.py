"""How zones come, go and disagree: claims, verdicts, silence, deletion."""

from __future__ import annotations

import msgpack
import pytest

from globalcp.inputs import Begin, Tick
from tests.builders import NOW_MS, Chain, replayed
from tests.zones_up import DAY_MS, SERVICE, VIP, Global, Stream, bound, key_of, service
from zonemesh.deciding import Delete, Put
from zonemesh.errors import ConflictError, NotFoundError, TooLargeError
from zonemesh.ipam import BLOCK
from zonemesh.model import Change, Key, zone_of
from zonemesh.settings import Settings
from zonemesh.travel import NOT_MERGED, VERDICT

DELETE_WEST = Delete("Zone", Key("", "", "", "west"))


def free_address(mesh: Global, skip: int = 0) -> int:
    """An address in a block that nobody holds."""
    taken = set(mesh.state.ledgers[SERVICE].leased())
    blocks = [first for first, _ in mesh.settings.pool(SERVICE).blocks() if first not in taken]
    return blocks[skip] + 9


def hand_over(former: Global, to: Global) -> None:
    """Another leader begins a term, having applied all that the former one wrote."""
    for sealed in former.leader.chain.entries:
        if sealed.entry.position > to.state.registry.position:
            to.state.registry.apply(sealed)
    to.leader.chain = Chain(to.state.registry)
    to.submit(Begin(to.settings))


# Addresses


def test_a_zone_may_use_the_addresses_of_its_own_blocks(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    address = mesh.blocks()[1].first + 3

    mesh.submit(west.merge(bound("web", address)))

    assert mesh.binding("web").address == address
    assert mesh.seen().conflicts == 0


def test_a_claim_to_a_block_that_nobody_holds_is_granted(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    address = free_address(mesh)

    mesh.submit(west.merge(bound("a", address), bound("b", address + 1)))

    assert mesh.binding("a").address == address
    assert mesh.state.ledgers[SERVICE].owner(address) == "west"
    assert len(mesh.blocks()) == 3


@pytest.mark.parametrize("together", [True, False])
def test_of_two_claims_to_a_block_the_first_is_granted_and_the_other_is_answered(
    mesh: Global, west: Stream, together: bool
) -> None:
    east = Stream("east")
    mesh.submit(west.merge(), east.merge())
    address = free_address(mesh)
    claims = west.merge(bound("web", address)), east.merge(bound("web", address + 1, "east"))

    if together:
        mesh.leader.step(*claims)
    else:
        for claim in claims:
            mesh.submit(claim)

    assert mesh.binding("web").address == address
    assert mesh.binding("web", "east").address is None
    assert mesh.seen("east").conflicts == 1
    verdict = mesh.state.registry.get(VERDICT, key_of("web", "east"))
    assert verdict == msgpack.packb((SERVICE, address + 1))


def test_a_claim_and_a_grant_in_one_entry_never_give_the_same_block() -> None:
    for number in range(30):
        mesh = Global(pool="10.0.0.0/30")
        west, east = Stream("west"), Stream(f"east-{number}")
        mesh.submit(west.merge())

        mesh.submit(east.merge(), west.merge(bound("web", free_address(mesh, number % 2))))

        firsts = mesh.block_firsts()
        assert len(set(firsts)) == len(firsts)


def test_an_address_of_another_zones_block_is_refused_until_it_is_given_up(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(Stream("east").merge(), west.merge())
    foreign, own = mesh.blocks("east")[0].first, mesh.blocks("west")[0].first

    mesh.submit(west.merge(service("web"), bound("web", foreign)))
    assert mesh.binding("web").address is None
    assert key_of("web") in mesh.held()[SERVICE]
    mesh.submit(west.merge(bound("web", own)))

    assert mesh.binding("web").address == own
    assert VERDICT not in mesh.held()


def test_a_verdict_goes_with_the_binding_that_it_is_about(mesh: Global, west: Stream) -> None:
    mesh.submit(Stream("east").merge(), west.merge())
    mesh.submit(west.merge(bound("web", mesh.blocks("east")[0].first)))
    assert VERDICT in mesh.held()

    mesh.submit(west.merge(bound("web", None)._replace(payload=None)))

    assert VERDICT not in mesh.held()


@pytest.mark.parametrize("address", [-1, 0, 0xFFFFFFFF, 1 << 40, (240 << 24) + 5])
def test_an_address_outside_the_pool_is_refused(mesh: Global, west: Stream, address: int) -> None:
    mesh.submit(west.merge(bound("web", address)))

    assert mesh.binding("web").address is None
    assert mesh.seen().conflicts == 1


def test_a_zone_that_draws_on_its_stock_is_granted_more(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    first = mesh.blocks()[0].first

    mesh.submit(west.merge(*(bound(f"s{number}", first + number) for number in range(10))))

    assert (
        mesh.state.ledgers[SERVICE].free(mesh.settings.pool(SERVICE), "west", 0, DAY_MS) >= 2 * 4096
    )


def test_a_shortage_is_one_zones_and_is_told() -> None:
    mesh = Global(pool="10.0.0.0/30")
    for zone in ("a", "b", "c"):
        mesh.submit(Stream(zone).merge(service("web", zone), bound("web", None, zone)))

    assert [len(mesh.blocks(zone)) for zone in ("a", "b", "c")] == [3, 1, 0]
    assert "all 4 blocks are leased" in mesh.state.shortages[SERVICE, "c"]
    assert mesh.held("c")[SERVICE]


# Silence


def test_a_zone_is_offline_after_ten_seconds_of_silence_in_log_time(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge())

    mesh.tick(9_999)
    assert mesh.seen().online
    mesh.tick(1)

    assert not mesh.seen().online
    assert mesh.seen().disconnected_ms is not None


def test_a_zone_that_is_heard_from_is_online_again(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("web")))
    since_ms = mesh.seen().connected_ms
    mesh.tick(10_000)
    west.write()

    mesh.tick(1_000, west=west.report)

    seen = mesh.seen()
    assert (seen.online, seen.disconnected_ms) == (True, None)
    assert seen.connected_ms == since_ms + 11_000
    assert mesh.cursor == west.report.cursor
    assert seen.records == 1


def test_a_zone_heard_from_in_the_entry_of_a_heartbeat_is_not_offline(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge())
    mesh.leader.wait(60_000)

    mesh.leader.step(west.merge(service("web")), Tick({}))

    assert mesh.seen().online
    assert mesh.seen().entries == 2


# Deletion


def test_a_zone_that_is_online_is_not_deleted(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("web")))

    (outcome,) = mesh.submit(DELETE_WEST)

    assert isinstance(outcome, ConflictError)
    assert mesh.state.registry.get("Zone", Key("", "", "", "west").packed) is not None
    assert SERVICE in mesh.held()


def test_a_zone_that_is_offline_is_deleted_with_all_that_it_brought(
    mesh: Global, west: Stream
) -> None:
    east = Stream("east")
    mesh.submit(east.merge(service("web", "east")), west.merge())
    foreign = mesh.blocks("east")[0].first
    future = Change("MeshFuture", key_of("x"), b"")
    mesh.submit(west.merge(service("web"), bound("web", foreign), future))
    before = mesh.held("east")
    mesh.tick(10_000, east=east.report)

    mesh.submit(DELETE_WEST)

    assert mesh.state.registry.get("Zone", Key("", "", "", "west").packed) is None
    assert mesh.held().keys() == {BLOCK}
    assert mesh.blocks() == []
    assert mesh.held("east")[SERVICE] == before[SERVICE]
    assert len(mesh.blocks("east")) == 2


def test_a_large_zone_is_deleted_in_bounded_entries_also_by_the_next_leader() -> None:
    mesh = Global()
    west = Stream()
    for number in range(14):
        west.write(*(bound(f"service-{number}-{each}", None) for each in range(1_000)))
    whole = west.replace()
    while mesh.submit(whole) != [True]:
        pass
    mesh.tick(10_000)
    mesh.leader.step(DELETE_WEST)
    assert 0 < len(mesh.held()[VIP]) < 14_000

    other = Global(begin=False)
    replayed(mesh.leader.chain.entries[1:], into=other.state.registry)
    other.leader.chain = Chain(other.state.registry)
    other.submit(Begin(other.settings))

    assert other.held().keys() == {BLOCK}


def test_a_leader_that_began_a_deletion_does_not_go_on_with_it_after_others_have_led() -> None:
    former, other, west = Global(), Global(begin=False), Stream()
    for number in range(14):
        west.write(*(bound(f"service-{number}-{each}", None) for each in range(1_000)))
    whole = west.replace()
    while former.submit(whole) != [True]:
        pass
    former.tick(10_000)
    former.leader.step(DELETE_WEST)
    assert 0 < len(former.held()[VIP]) < 14_000
    hand_over(former, other)
    assert other.held().keys() == {BLOCK}
    other.submit(Stream(incarnation="anew").merge(service("web"), bound("web", None)))

    hand_over(other, former)

    assert former.held() == other.held()
    assert former.held()[SERVICE] == {key_of("web")}


def test_a_zone_that_is_deleted_is_leased_no_more_blocks(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    first = mesh.blocks()[0].first
    mesh.tick(10_000)

    mesh.leader.step(west.merge(*(bound(f"s{number}", first + number) for number in range(10))))
    mesh.tick(10_000)
    mesh.submit(DELETE_WEST)
    mesh.submit(Begin(mesh.settings))

    assert mesh.blocks() == []


def test_a_zone_that_is_back_while_it_is_deleted_stays(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge(service("web")))
    mesh.tick(10_000)

    mesh.submit(DELETE_WEST, west.merge(service("api")))

    assert mesh.state.registry.get("Zone", Key("", "", "", "west").packed) is not None
    assert key_of("api") in mesh.held()[SERVICE]
    assert mesh.seen().online


def test_a_deleted_zone_that_is_back_has_its_own_blocks_again(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    address = mesh.blocks()[0].first
    mesh.submit(west.merge(service("web"), bound("web", address)))
    mesh.tick(10_000)
    mesh.submit(DELETE_WEST)

    mesh.submit(west.replace())

    assert mesh.binding("web").address == address
    assert address in {block.first for block in mesh.blocks()}
    assert mesh.seen().conflicts == 0


def test_a_deleted_zone_that_is_back_is_merged_up_to_nowhere_until_it_is_whole(
    mesh: Global, west: Stream
) -> None:
    mesh.submit(west.merge(service("web")))
    merged = mesh.cursor
    mesh.tick(10_000)
    mesh.submit(DELETE_WEST)
    west.write()

    mesh.tick(west=west.report)
    mesh.submit(west.merge(service("api")))

    assert mesh.seen().online
    assert (mesh.cursor, mesh.seen().h) == (merged, NOT_MERGED)
    assert mesh.held()[SERVICE] == {key_of("api")}
    assert len(mesh.blocks()) == 2
    mesh.submit(west.replace())
    assert (mesh.cursor, mesh.seen().h) == (west.report.cursor, west.report.h)
    assert mesh.held()[SERVICE] == {key_of("web"), key_of("api")}


@pytest.mark.parametrize("late", ["earlier", "another incarnation"])
def test_a_late_report_does_not_move_a_cursor_back(mesh: Global, west: Stream, late: str) -> None:
    west.write()
    earlier = west.report
    mesh.submit(west.merge(service("web")))
    report = earlier
    if late == "another incarnation":
        other = Stream(incarnation="former")
        other.write()
        other.write()
        other.write()
        report = other.report

    mesh.tick(west=report)

    assert mesh.cursor == west.report.cursor
    assert mesh.seen().online


def test_blocks_of_a_deleted_zone_go_to_others_after_quarantine_if_nothing_else_is_left() -> None:
    mesh = Global(pool="10.0.0.0/30")
    mesh.submit(Stream("west").merge())
    mesh.tick(10_000)
    mesh.submit(DELETE_WEST)
    east = Stream("east")

    mesh.submit(east.merge(*(bound(f"s{n}", None, "east") for n in range(2))))
    assert len(mesh.blocks("east")) == 2
    mesh.tick(DAY_MS - 1)
    mesh.submit(east.merge(bound("s2", None, "east")))
    assert len(mesh.blocks("east")) == 2
    assert (SERVICE, "east") in mesh.state.shortages
    mesh.tick(1)

    assert len(mesh.blocks("east")) == 4
    firsts = mesh.block_firsts()
    assert len(firsts) == len(set(firsts)) == 4
    assert {zone_of(key) for key in mesh.block_records()} == {"east"}


def test_deleting_a_zone_that_is_not_there_is_answered_so(mesh: Global) -> None:
    (outcome,) = mesh.submit(DELETE_WEST)

    assert isinstance(outcome, NotFoundError)


# Terms and writes


def test_a_term_puts_what_must_be_there_once(mesh: Global, west: Stream) -> None:
    mesh.submit(west.merge())
    before = mesh.state.registry.digest
    entries = len(mesh.leader.chain.entries)

    mesh.leader.wait(1_000)
    mesh.submit(Begin(mesh.settings))

    assert mesh.state.registry.digest == before
    assert len(mesh.leader.chain.entries) == entries + 1
    assert len(mesh.state.registry.table("Mesh")) == 1
    assert len(mesh.state.registry.table("HostnameGenerator")) == 5


def test_what_configuration_leaves_out_is_not_put() -> None:
    mesh = Global(begin=False)

    mesh.submit(Begin(Settings(), skip_mesh=True, skip_generators=True))

    assert {kind for kind, table in mesh.state.registry.tables.items() if table} == {"settings"}


def test_a_record_that_no_entry_could_hold_is_refused_and_the_others_are_not(mesh: Global) -> None:
    large = Put("Mesh", Key("", "", "", "large"), {}, {"logging": {"x": "x" * (1 << 20)}})

    refused, written = mesh.submit(large, Put("Mesh", Key("", "", "", "small"), {}, {}))

    assert isinstance(refused, TooLargeError)
    assert written.created
    assert mesh.state.registry.time_ms == NOW_MS
