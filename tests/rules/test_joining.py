"""What would become of a zone that stood alone, by what it and global say that they hold."""

from __future__ import annotations

import pytest

from zonemesh.errors import InputError
from zonemesh.ipam import parse_ipv4
from zonemesh.joining import HeldBlock, Name, Side, Vip, compare
from zonemesh.settings import Settings

SERVICE = "MeshService"


def block(first: str, zone: str, pool: str = SERVICE, size: int = 4096) -> HeldBlock:
    return HeldBlock(pool, zone, parse_ipv4(first), size)


def vip(name: str, address: str) -> Vip:
    return Vip(SERVICE, "default", name, parse_ipv4(address))


def name(text: str, address: str) -> Name:
    return Name("default", "service", text, parse_ipv4(address))


MINE, TAKEN = block("241.0.16.0", "west"), block("241.30.32.0", "west")
WEST = Side(
    zone="west",
    uid="1",
    blocks=[MINE, TAKEN],
    vips=[vip("kept", "241.0.16.5"), vip("moves", "241.30.47.255")],
    names=[name("redis", "240.0.0.1"), name("web", "240.0.0.2"), name("own", "240.0.0.3")],
)
MESH = Side(
    zone="",
    zones={"east": "2"},
    blocks=[block("241.30.32.0", "east"), block("242.0.0.0", "", "MeshExternalService")],
    names=[name("redis", "240.0.0.9"), name("other", "240.0.0.2")],
)


def test_only_what_lies_in_a_clashing_block_moves() -> None:
    outcome = compare(WEST, MESH)

    assert outcome.kept == [MINE]
    assert [(each.block, each.why) for each in outcome.lost] == [
        (TAKEN, "zone east holds 241.30.32.0-241.30.47.255 of pool MeshService")
    ]
    assert [each.name for each in outcome.vips] == ["moves"]
    assert not outcome.harmless


def test_names_move_to_where_the_mesh_has_them_or_away_from_another_s_address() -> None:
    outcome = compare(WEST, MESH)

    assert [(each.name.name, each.why) for each in outcome.names] == [
        ("redis", "the mesh has it at 240.0.0.9"),
        ("web", "the mesh has other at its address"),
    ]


def test_nothing_moves_where_nothing_clashes() -> None:
    outcome = compare(WEST, Side(zone="", zones={"east": "2"}))

    assert outcome.harmless
    assert (outcome.lost, outcome.vips, outcome.names) == ([], [], [])


def test_a_zone_that_is_in_the_mesh_already_keeps_its_blocks() -> None:
    outcome = compare(WEST, Side(zone="", zones={"west": "1"}, blocks=WEST.blocks))

    assert outcome.harmless
    assert outcome.kept == [MINE, TAKEN]


def test_a_mesh_that_has_another_zone_of_that_name_is_told() -> None:
    outcome = compare(WEST, Side(zone="", zones={"west": "other"}))

    assert outcome.refused is not None
    assert "UID other" in outcome.refused


def test_blocks_out_of_the_mesh_s_pools_drain_where_they_are_usual_ones() -> None:
    mesh = Side(zone="", settings=Settings(pools={SERVICE: ("10.0.0.0/8",)}))
    elsewhere = block("198.51.96.0", "west")

    outcome = compare(Side(zone="west", blocks=[MINE, elsewhere]), mesh)

    assert outcome.draining == [MINE]
    assert [each.why for each in outcome.lost] == [
        "no block of the mesh's pool MeshService (10.0.0.0/8)"
    ]


def test_a_block_with_a_legacy_name_of_the_mesh_in_it_is_lost() -> None:
    outcome = compare(WEST, Side(zone="", names=[name("redis", "241.0.16.9")]))

    assert outcome.kept == [TAKEN]
    assert "redis is bound to 241.0.16.9" in outcome.lost[0].why


def test_what_only_global_may_have_is_named() -> None:
    made = [("MeshMultiZoneService", "default", "redis")]

    outcome = compare(Side(zone="west", made_here=made), MESH)

    assert outcome.left_out == made
    assert not outcome.harmless


@pytest.mark.parametrize("document", [{}, {"zone": "west"}, {"zone": "", "uid": "", "zones": 3}])
def test_what_is_no_answer_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Side.of(document)
