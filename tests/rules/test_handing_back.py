"""A block of a removed range goes back once it is empty, and rests before anybody else has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globalcp.inputs import Begin, Merge
from tests.builders import put_service
from tests.zones import QUARANTINE_MS, Zone, gone
from tests.zones_up import DAY_MS, SERVICE, Global, Stream, bound, service
from zonecp.inputs import Adopt, FromGlobal
from zonecp.inputs import Begin as ZoneBegin
from zonemesh.deciding import Delete
from zonemesh.ipam import BLOCK, Binding, Block, Pool, parse_ipv4
from zonemesh.leasing import foreign_to
from zonemesh.model import Change, Cursor, Key, Position
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings

OLD, NEW = "10.0.0.0/20", "10.1.0.0/20"
EXTERNAL = "MeshExternalService"


def pools(*cidrs: str, quarantine_ms: int = QUARANTINE_MS, external: str = "") -> Settings:
    others = {EXTERNAL: (external or "242.0.0.0/8",)}
    return Settings(pools={SERVICE: cidrs, **others}, quarantine_ms=quarantine_ms)


# A zone


class Federated(Zone):
    """A zone that has adopted and follows a global, which tells it of settings and blocks."""

    def __init__(self) -> None:
        super().__init__(federated=True)
        self.submit(Adopt([], last=True))
        self._seq = 0

    def hear(self, *changes: Change) -> None:
        self._seq += 1
        self.submit(FromGlobal(Cursor("global", Position(1, self._seq)), changes))

    def pools(self, *cidrs: str) -> None:
        self.hear(Change(SETTINGS, GLOBAL_KEY, pools(*cidrs).pack()))

    def block(self, first: int, *, at: int = 0, granted_ms: int = 1) -> Change:
        block = Block(first, 8, granted_ms)
        return Change(BLOCK, Key("", "west", SERVICE, str(at)).packed, block.pack())

    def blocks(self) -> list[int]:
        return [block.first for block in self.state.ledgers[SERVICE].blocks("west")]


FIRST = parse_ipv4("10.0.0.0")


@pytest.fixture
def zone() -> Federated:
    found = Federated()
    found.pools(OLD)
    found.hear(found.block(FIRST), found.block(FIRST + 8, at=1))
    return found


def test_an_empty_block_is_given_up_when_its_range_is_removed(zone: Federated) -> None:
    zone.tick()
    assert zone.blocks() == [FIRST, FIRST + 8]

    zone.pools(NEW)
    zone.tick()

    assert zone.blocks() == []


def test_a_block_is_kept_while_something_is_bound_or_rests_in_it(zone: Federated) -> None:
    zone.submit(put_service("web"))
    address = zone.binding("web").address
    assert address is not None
    kept = address - address % 8
    zone.pools(NEW)
    zone.tick()
    assert zone.blocks() == [kept]

    zone.submit(gone("web", SERVICE))
    zone.tick(QUARANTINE_MS - 10_000)
    assert zone.blocks() == [kept]
    zone.submit(put_service("web"))
    assert zone.binding("web").address == address
    zone.submit(gone("web", SERVICE))
    zone.tick(QUARANTINE_MS - 10_000)
    assert zone.blocks() == [kept]
    zone.tick(10_000)
    zone.tick()

    assert zone.blocks() == []


def test_what_global_says_before_it_has_heard_does_not_bring_a_block_back(zone: Federated) -> None:
    zone.pools(NEW)
    zone.tick()

    zone.hear(zone.block(FIRST))

    assert zone.blocks() == []
    zone.hear(zone.block(FIRST, granted_ms=2))
    assert zone.blocks() == [], "another lease of it is given up as well"
    packed = zone.state.registry.get(BLOCK, Key("", "west", SERVICE, "0").packed)
    assert packed is not None
    assert Block.unpack(packed).granted_ms == 2


def test_a_zone_that_has_not_heard_of_the_pools_gives_nothing_up() -> None:
    zone = Federated()
    zone.hear(zone.block(FIRST))

    zone.tick()

    assert zone.blocks() == [FIRST]


def test_a_zone_of_its_own_forgets_blocks_that_it_gave_up_once_they_have_rested() -> None:
    zone = Zone(pool=OLD)
    held = zone.state.ledgers[SERVICE].blocks("west")
    zone.submit(_begin(NEW))
    zone.tick()
    table = zone.state.registry.table(BLOCK)
    retired = [each for each in map(Block.unpack, table.values()) if each.retired]
    assert {each.first for each in retired} == {each.first for each in held}

    zone.tick(QUARANTINE_MS)
    zone.tick()

    pool = Pool(SERVICE, (NEW,))
    left = [
        Block.unpack(each) for key, each in table.items() if Key.parse(key).namespace == SERVICE
    ]
    assert left
    assert all(pool.covers(each.first, each.size) for each in left)


def _begin(cidr: str) -> ZoneBegin:
    return ZoneBegin("uid", pools(cidr), adopted=True)


# Global


def returns(west: Stream, *firsts: int) -> Merge:
    sealed = west.chain.commit(note={"returned": [[SERVICE, first] for first in firsts]})
    return Merge("west", [sealed], west.report)


def began() -> tuple[Global, Stream, int]:
    mesh, west = Global(begin=False), Stream()
    mesh.submit(Begin(pools(OLD, quarantine_ms=DAY_MS)))
    mesh.submit(west.merge())
    return mesh, west, mesh.blocks()[0].first


def test_a_returned_block_rests_and_is_then_forgotten() -> None:
    mesh, west, first = began()
    mesh.submit(Begin(pools(NEW, quarantine_ms=DAY_MS)))

    mesh.submit(returns(west, first))
    assert first not in {block.first for block in mesh.blocks()}
    mesh.tick(DAY_MS - 10_000)
    assert first in mesh.block_firsts()
    mesh.tick(20_000)

    assert first not in mesh.block_firsts()


def test_another_pool_has_the_addresses_only_after_the_rest() -> None:
    mesh, west, first = began()
    taken = pools(NEW, quarantine_ms=DAY_MS, external=OLD)
    mesh.submit(Begin(taken))
    mesh.submit(returns(west, first))

    def leasable() -> bool:
        return not foreign_to(taken.pool(EXTERNAL), mesh.state.other_ledgers(EXTERNAL))(first, 4)

    mesh.tick(DAY_MS - 10_000)
    assert not leasable()
    mesh.tick(20_000)
    assert leasable()


@pytest.mark.parametrize("spoil", ["bound", "resting", "other", "unknown"])
def test_a_block_that_is_not_empty_or_not_the_zone_s_is_not_taken_back(spoil: str) -> None:
    mesh, west, first = began()
    mesh.submit(Begin(pools(NEW, quarantine_ms=DAY_MS)))
    if spoil in ("bound", "resting"):
        released_ms = None if spoil == "bound" else 1
        mesh.submit(west.merge(service("web"), bound("web", first, released_ms=released_ms)))
    teller = Stream("east") if spoil == "other" else west
    at = first + 1 if spoil == "unknown" else first
    sealed = teller.chain.commit(note={"returned": [[SERVICE, at]]})
    before = mesh.block_records()

    mesh.submit(Merge(teller.zone, [sealed], teller.report))

    assert mesh.block_records().items() >= before.items()


def test_a_binding_of_the_same_entry_keeps_its_block() -> None:
    mesh, west, first = began()
    mesh.submit(Begin(pools(NEW, quarantine_ms=DAY_MS)))
    written = west.write(service("web"), bound("web", first))
    told = west.chain.commit(note={"returned": [[SERVICE, first]]})

    mesh.submit(Merge("west", [written, told], west.report))

    assert mesh.binding("web").address == first
    assert first in {block.first for block in mesh.blocks()}


@pytest.mark.parametrize(
    "note", [1, [[SERVICE]], [["Nothing", 1]], [[SERVICE, "x"]], [None], {"a": 1}, [[1, 2]]]
)
def test_nonsense_in_a_zone_s_note_changes_nothing(note: Any) -> None:
    mesh, west, _ = began()
    before = mesh.block_records()
    sealed = west.chain.commit(note={"returned": note})

    mesh.submit(Merge("west", [sealed], west.report))

    assert mesh.block_records() == before


def test_a_deleted_zone_s_blocks_of_a_removed_range_are_forgotten_as_well() -> None:
    mesh, _, first = began()
    mesh.submit(Begin(pools(NEW, quarantine_ms=DAY_MS)))
    mesh.tick(60_000)
    mesh.submit(Delete("Zone", Key("", "", "", "west")))
    mesh.tick()
    assert first in mesh.block_firsts()

    mesh.tick(DAY_MS)
    mesh.tick()

    assert first not in mesh.block_firsts()


# Both


STEPS: dict[str, Callable[[Zone, int], None]] = {
    "put": lambda zone, number: _put(zone, f"s{number}"),
    "remove": lambda zone, number: _remove(zone, f"s{number}"),
    "pass": lambda zone, _: zone.tick(QUARANTINE_MS // 3),
    "old": lambda zone, _: _change(zone, OLD),
    "new": lambda zone, _: _change(zone, NEW),
    "both": lambda zone, _: _change(zone, OLD, NEW),
    "beat": lambda zone, _: zone.tick(),
}


def _change(zone: Zone, *cidrs: str) -> None:
    zone.submit(ZoneBegin("uid", pools(*cidrs), adopted=True))
    zone.tick()


def _put(zone: Zone, name: str) -> None:
    zone.submit(put_service(name))


def _remove(zone: Zone, name: str) -> None:
    if zone.record(name) is not None:
        zone.submit(gone(name, SERVICE))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)), min_size=5, max_size=40)
)
def test_no_address_finds_another_key_before_it_has_rested_whatever_pools_do(
    steps: list[tuple[str, int]],
) -> None:
    zone = Zone(pool=OLD)
    released: dict[int, tuple[str, int]] = {}
    for step, number in steps:
        STEPS[step](zone, number)
        now_ms = zone.state.registry.log_time_ms
        for key, packed in zone.state.registry.table(f"vip.{SERVICE}").items():
            binding = Binding.unpack(packed)
            if binding.address is None:
                continue
            holder, until_ms = released.get(binding.address, (key, 0))
            assert holder == key or now_ms >= until_ms, "given to another while it rested"
            rest_ms = now_ms if binding.released_ms is None else binding.released_ms
            released[binding.address] = key, rest_ms + QUARANTINE_MS
        live = [each for each in _live(zone) if zone.state.ledgers[SERVICE].owner(each) != "west"]
        assert live == [], "bound outside of every block"


def _live(zone: Zone) -> list[int]:
    table = zone.state.registry.table(f"vip.{SERVICE}").values()
    found = (Binding.unpack(each) for each in table)
    return [each.address for each in found if each.live and each.address is not None]
