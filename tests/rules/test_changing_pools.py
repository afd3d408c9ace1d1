"""Pools that change under a running mesh: what is bound stays, and nothing new comes from there."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack
import pytest

from globalcp.inputs import Begin
from tests.builders import Chain
from tests.zones_up import DAY_MS, SERVICE, Global, Stream, bound, service
from zonemesh.deciding import Delete, Put
from zonemesh.errors import PoolExhaustedError
from zonemesh.ipam import BLOCK, Allocation, Binding, Block, Ledger, Pool, parse_ipv4, vip_kind
from zonemesh.leasing import grants
from zonemesh.legacypool import LEGACY_VIP, LegacyAllocation, ranges_without
from zonemesh.model import Change, Key
from zonemesh.recovery import Claim
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings

EXTERNAL = "MeshExternalService"
OLD, NEW = "10.0.0.0/20", "10.1.0.0/20"


def pools(service_cidr: str = OLD, external: str = "242.0.0.0/8") -> Settings:
    return Settings(pools={SERVICE: (service_cidr,), EXTERNAL: (external,)})


def began(settings: Settings | None = None) -> Global:
    mesh = Global(begin=False)
    mesh.submit(Begin(settings or pools()))
    return mesh


def within(cidr: str, address: int | None) -> bool:
    return address is not None and Pool("", (cidr,)).covers(address)


def claims(mesh: Global, zone: Stream, *blocks: Claim) -> None:
    sealed = zone.chain.commit(note={"claims": [each.pack() for each in blocks], "recovery": ""})
    mesh.submit(type(zone.merge())(zone.zone, [sealed], zone.report))


# The leader's configuration


def test_a_leader_with_other_pools_changes_the_mesh_s_and_remembers_the_former_ones() -> None:
    mesh = began()

    mesh.submit(Begin(pools(NEW)))

    assert mesh.state.settings.pools[SERVICE] == (NEW,)
    assert mesh.state.settings.former == {SERVICE: (OLD,)}


def test_a_removed_range_of_legacy_names_is_remembered_as_well() -> None:
    before, now = Settings(), Settings(legacy_cidrs=("250.0.0.0/8",))

    assert now.following(before).former == {"Legacy": ("240.0.0.0/4",)}


def test_a_range_that_comes_back_is_no_former_one() -> None:
    mesh = began()
    mesh.submit(Begin(pools(NEW)))

    mesh.submit(Begin(pools(OLD)))

    assert mesh.state.settings.former == {SERVICE: (NEW,)}


def test_the_same_configuration_again_changes_nothing() -> None:
    mesh = began()
    mesh.submit(Begin(pools(NEW)))
    packed = mesh.state.registry.get(SETTINGS, GLOBAL_KEY)

    mesh.submit(Begin(pools(NEW)))

    assert mesh.state.registry.get(SETTINGS, GLOBAL_KEY) == packed


def test_what_a_configuration_has_otherwise_is_told_by_name() -> None:
    mesh = began()

    differs = mesh.state.differs(Settings(pools=pools(NEW).pools, quarantine_ms=1))

    assert differs == {
        f"pools.{SERVICE}": ((OLD,), (NEW,)),
        "quarantine_ms": (DAY_MS, 1),
    }
    assert mesh.state.differs(pools()) == {}


def test_settings_are_read_as_they_were_packed_and_older_ones_without_former_ranges() -> None:
    changed = pools(NEW).following(pools())
    fields = msgpack.unpackb(changed.pack())
    del fields["former"]

    assert Settings.unpack(changed.pack()) == changed
    assert Settings.unpack(msgpack.packb(fields)).former == {}


def test_inputs_of_the_entry_before_a_change_are_bound_by_what_held_then() -> None:
    mesh = Global(begin=False)
    mesh.submit(Begin(pools(external=OLD)))
    mesh.submit(put("first"))

    mesh.submit(put("a"), Begin(pools(external=NEW)), put("b"))
    mesh.tick()

    assert within(OLD, external(mesh, "a"))
    assert within(NEW, external(mesh, "b"))


def put(name: str) -> Put:
    networking = {"endpoints": [{"address": "192.0.2.1", "port": 80}]}
    match = {"type": "HostnameGenerator", "port": 80, "protocol": "tcp"}
    return Put(EXTERNAL, Key("default", "", "", name), {}, {"match": match, **networking})


def external(mesh: Global, name: str) -> int | None:
    packed = mesh.state.registry.get(vip_kind(EXTERNAL), Key("default", "", "", name).packed)
    assert packed is not None
    return Binding.unpack(packed).address


# Draining


def test_bindings_and_blocks_of_a_removed_range_stay_and_new_blocks_come_from_elsewhere() -> None:
    mesh, west = began(), Stream()
    mesh.submit(west.merge())
    address = mesh.blocks()[0].first
    mesh.submit(west.merge(service("web"), bound("web", address)))
    before = set(mesh.blocks())

    mesh.submit(Begin(pools(NEW)))
    mesh.tick()

    assert mesh.binding("web").address == address
    assert before <= set(mesh.blocks())
    added = set(mesh.blocks()) - before
    assert len(added) == 2
    assert all(within(NEW, block.first) for block in added)
    assert mesh.state.draining() == {(SERVICE, "west"): 1}


def test_a_zone_that_has_not_heard_of_the_change_binds_in_its_old_blocks_and_keeps_that() -> None:
    mesh, west = began(), Stream()
    mesh.submit(west.merge())
    address = mesh.blocks()[0].first
    mesh.submit(Begin(pools(NEW)))

    mesh.submit(west.merge(service("late"), bound("late", address)))

    assert mesh.binding("late").address == address
    assert mesh.seen().conflicts == 0


def test_a_zone_that_restarts_claims_its_draining_blocks_and_keeps_them() -> None:
    mesh, west = began(), Stream()
    mesh.submit(west.merge())
    held = mesh.blocks()
    mesh.submit(Begin(pools(NEW)))

    claims(mesh, west, *(Claim(SERVICE, each.first, each.size, each.granted_ms) for each in held))

    assert set(held) <= set(mesh.blocks())
    assert mesh.seen().conflicts == 0


def test_another_pool_takes_over_a_range_but_not_what_is_still_held_in_it() -> None:
    mesh, west = began(pools(OLD)), Stream()
    mesh.submit(west.merge())
    held = {(block.first, block.size) for block in mesh.blocks()}

    mesh.submit(Begin(pools(NEW, external=OLD)))
    for number in range(40):
        mesh.submit(put(f"e{number}"))
    mesh.tick()

    found = [external(mesh, f"e{number}") for number in range(40)]
    assert all(within(OLD, address) for address in found)
    for address in found:
        assert address is not None
        assert not any(first <= address < first + size for first, size in held)


def test_a_range_that_legacy_names_had_is_taken_over_around_them() -> None:
    ledger, legacy = Ledger(SERVICE), Ledger("Legacy")
    pool = Pool(SERVICE, ("10.0.0.0/28",))  # 16 blocks of one address
    chain = Chain()
    chain.registry.add_index(legacy)
    first = pool.ranges[0][0]
    chain.commit(
        *(
            Change(
                LEGACY_VIP, f"default//service/s{at}", Binding(first + at, None, released, 0).pack()
            )
            for at, released in enumerate([None, 5, None])
        )
    )

    found = grant(pool, ledger, others=[legacy], limit=13)

    assert {block.first - first for block in found} == set(range(3, 16))


def grant(pool: Pool, ledger: Ledger, *, others: list[Ledger], limit: int) -> list[Block]:
    """All that there is, as zones ask for it."""
    found: list[Block] = []

    def granted(zone: str) -> list[Block]:
        drafted = [each.first for each in found]
        times = {"now_ms": 1, "log_time_ms": 0, "quarantine_ms": 1}
        answer = grants(pool, ledger, zone, **times, drafted=drafted, others=others)
        return [block for _, block in answer if block is not None]

    for number in range(limit):
        found += granted(f"z{number}")
        if len(found) >= limit:
            break
    with pytest.raises(PoolExhaustedError):
        granted("last")
    return found


def test_legacy_names_leave_out_what_other_pools_hold_of_a_range_that_was_theirs() -> None:
    services = Ledger(SERVICE)
    chain = Chain()
    chain.registry.add_index(services)
    first = parse_ipv4("10.0.0.0")
    chain.commit(
        Change(BLOCK, Key("", "west", SERVICE, "0").packed, Block(first, 8, 1).pack()),
        Change(vip_kind(SERVICE), "default///gone", Binding(first + 9, None, 1, 1).pack()),
    )
    allocation = LegacyAllocation(
        Ledger("Legacy"),
        ranges_without(["10.0.0.0/28"], ()),
        log_time_ms=0,
        quarantine_ms=1,
        others=[services],
    )

    found = {allocation.choose(f"default//service/s{n}", None)[0] - first for n in range(7)}

    assert found == {8, 10, 11, 12, 13, 14, 15}
    with pytest.raises(PoolExhaustedError):
        allocation.choose("default//service/late", None)


# Choosing


class Zone:
    """A zone with one block of eight addresses, in a range that is removed."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.ledger = Ledger(SERVICE)
        self.chain.registry.add_index(self.ledger)
        self.pool = Pool(SERVICE, ("10.1.0.0/20",))
        self.first = parse_ipv4("10.0.0.0")
        self.chain.commit(
            Change(BLOCK, Key("", "west", SERVICE, "0").packed, Block(self.first, 8, 1).pack())
        )

    def bind(self, **released_ms: int | None) -> None:
        self.chain.commit(
            *(
                Change(
                    vip_kind(SERVICE),
                    Key("default", "west", "", name).packed,
                    Binding(self.first + at, None, released, 1).pack(),
                )
                for at, (name, released) in enumerate(released_ms.items())
            )
        )

    def choose(self, name: str, former: int | None = None) -> int:
        allocation = Allocation(
            self.pool, self.ledger, "west", log_time_ms=10_000, quarantine_ms=1_000
        )
        return allocation.choose(Key("default", "west", "", name).packed, former)[0]


def test_nothing_new_is_chosen_out_of_a_block_that_drains() -> None:
    zone = Zone()
    zone.bind(live=None, old=0)

    with pytest.raises(PoolExhaustedError) as caught:
        zone.choose("new")

    assert "0 of 0 in use, 2 held in a removed range" in str(caught.value)


def test_a_key_has_its_own_address_in_a_removed_range_again_only_while_it_rests() -> None:
    zone = Zone()
    zone.bind(fresh=9_500, old=0)

    assert zone.choose("fresh", zone.first) == zone.first
    with pytest.raises(PoolExhaustedError):
        zone.choose("old", zone.first + 1)


def test_addresses_that_drain_are_not_counted_as_free_ones() -> None:
    zone = Zone()
    zone.bind(live=None, old=0)

    assert zone.ledger.free(zone.pool, "west", 10_000, 1_000) == 0
    assert zone.ledger.capacity(zone.pool, "west") == 0
    assert zone.ledger.draining(zone.pool, "west") == 2


@pytest.mark.parametrize(
    "cidrs, is_open",
    [
        (("10.0.0.0/29",), True),
        (("10.0.0.0/28",), True),
        (("10.0.0.0/30",), False),
        (("10.0.0.4/30", "10.0.0.0/30"), False),
    ],
)
def test_a_block_is_open_only_where_the_whole_of_it_is_in_one_range(
    cidrs: tuple[str, ...],
    is_open: bool,
) -> None:
    zone = Zone()

    blocks = zone.ledger.open_blocks(Pool(SERVICE, cidrs), "west")

    assert bool(blocks) == is_open


def test_a_range_that_is_cut_otherwise_overlaps_no_block_of_before() -> None:
    zone = Zone()
    finer = Pool(SERVICE, ("10.0.0.0/28",))  # blocks of one address, eight of them leased in one

    found = grant(finer, zone.ledger, others=[], limit=8)

    assert {block.first - zone.first for block in found} == set(range(8, 16))


# Claims


def test_a_claim_of_a_range_that_was_the_pool_s_is_granted_if_nobody_holds_it() -> None:
    mesh, west = began(), Stream()
    place = Pool(SERVICE, (OLD,)).blocks()[7]
    mesh.submit(Begin(pools(NEW)), west.merge())

    claims(mesh, west, Claim(SERVICE, *place, 1))

    assert place[0] in {block.first for block in mesh.blocks()}
    assert mesh.seen().conflicts == 0


def test_a_zone_that_stood_alone_brings_what_it_leased_of_the_usual_ranges() -> None:
    mesh, west = began(), Stream()
    place = Pool(SERVICE, ("241.0.0.0/8",)).blocks()[7]

    mesh.submit(west.merge(service("web"), bound("web", place[0] + 3)))
    claims(mesh, west, Claim(SERVICE, *place, 1))

    assert mesh.binding("web").address == place[0] + 3
    assert mesh.seen().conflicts == 0


@pytest.mark.parametrize(
    "claim",
    [
        Claim(SERVICE, parse_ipv4("198.51.100.0"), 4, 1),
        Claim(SERVICE, parse_ipv4("10.0.0.1"), 4, 1),
        Claim(SERVICE, parse_ipv4("10.0.0.0"), 8, 1),
    ],
)
def test_a_claim_that_was_never_a_block_of_the_pool_is_refused(claim: Claim) -> None:
    mesh, west = began(), Stream()
    mesh.submit(west.merge())

    claims(mesh, west, claim)

    assert claim.first not in mesh.block_firsts()
    assert mesh.seen().conflicts == 1


def test_a_former_range_that_another_pool_has_bound_in_is_refused_there() -> None:
    mesh, west = began(), Stream()
    mesh.submit(Begin(pools(NEW, external=OLD)))
    mesh.submit(*(put(f"e{number}") for number in range(3)))
    mesh.tick()
    taken = external(mesh, "e0")
    assert taken is not None
    place = Pool(SERVICE, (OLD,)).block_at(taken)
    assert place is not None

    claims(mesh, west, Claim(SERVICE, *place, 1))

    assert place[0] not in {block.first for block in mesh.blocks()}


def test_claims_of_two_pools_to_the_same_addresses_are_not_both_granted() -> None:
    mesh, west = began(pools(OLD, external=OLD.replace("10.0", "10.2"))), Stream()
    mesh.submit(Begin(pools(NEW, external=OLD)))
    mesh.submit(west.merge())
    place = Pool(SERVICE, (OLD,)).blocks()[7]

    claims(mesh, west, Claim(SERVICE, *place, 1), Claim(EXTERNAL, *place, 1))

    found: Mapping[str, bytes] = mesh.state.registry.table(BLOCK)
    held = [key for key, payload in found.items() if Block.unpack(payload).first == place[0]]
    assert len(held) == 1


def test_a_deleted_service_in_a_removed_range_leaves_nothing_that_is_given_out() -> None:
    mesh = Global(begin=False)
    mesh.submit(Begin(pools(external=OLD)))
    mesh.submit(put("a"))
    mesh.tick()
    was = external(mesh, "a")
    mesh.submit(Begin(pools(external=NEW)))
    mesh.submit(Delete(EXTERNAL, Key("default", "", "", "a")))
    mesh.tick(DAY_MS)

    mesh.submit(put("a"))
    mesh.tick()

    assert within(OLD, was)
    assert within(NEW, external(mesh, "a"))
