"""What would become of the addresses of a zone that stood alone, should it join a mesh.

Two control planes say what they hold; what would be kept, and what would move, follows from the
rule by which global answers claims: what nobody holds is granted, what somebody holds is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from zonemesh.errors import InputError
from zonemesh.ipam import BLOCK, Binding, Block, ipv4_text, parse_ipv4, vip_kind
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.model import Key, zone_of
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import Settings

_DEFAULT_MESH = ("Mesh", "default")
"""Every plane has it from its beginning on."""


class HeldBlock(NamedTuple):
    pool: str
    zone: str
    first: int
    size: int

    @property
    def text(self) -> str:
        return f"{ipv4_text(self.first)}-{ipv4_text(self.first + self.size - 1)}"


class Vip(NamedTuple):
    pool: str
    mesh: str
    name: str
    address: int


class Name(NamedTuple):
    """A legacy name: `sort` is service or host."""

    mesh: str
    sort: str
    name: str
    address: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a control plane says that it holds (`GET /_addresses`)."""

    zone: str
    """\"\" for global."""
    uid: str = ""
    zones: Mapping[str, str] = field(default_factory=dict)
    """Names and UIDs of the zones that global knows, by their last report."""
    settings: Settings = field(default_factory=Settings)
    blocks: Sequence[HeldBlock] = ()
    vips: Sequence[Vip] = ()
    """Of a zone: its own services' addresses."""
    names: Sequence[Name] = ()
    made_here: Sequence[tuple[str, str, str]] = ()
    """Kind, mesh and name of what a zone has that only global may have once there is one."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what a control plane has answered.

        Raises:
            InputError: It is nothing of the sort.
        """
        try:
            return cls(
                zone=str(document["zone"]),
                uid=str(document["uid"]),
                zones=dict(document["zones"]),
                settings=Settings(
                    pools={name: tuple(each) for name, each in document["pools"].items()},
                    former={name: tuple(each) for name, each in document["former"].items()},
                ),
                blocks=[
                    HeldBlock(pool, zone, parse_ipv4(first), int(size))
                    for pool, zone, first, size in document["blocks"]
                ],
                vips=[
                    Vip(pool, mesh, name, parse_ipv4(address))
                    for pool, mesh, name, address in document["vips"]
                ],
                names=[
                    Name(mesh, sort, name, parse_ipv4(address))
                    for mesh, sort, name, address in document["names"]
                ],
                made_here=[(kind, mesh, name) for kind, mesh, name in document["made_here"]],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"not what a control plane holds: {error!r}") from error


def block_rows(registry: Registry) -> Iterator[tuple[str, str, str, int]]:
    """Pool, zone ("" is global), first address and size of every block."""
    found = {}
    for key, packed in list(registry.table(BLOCK).items()):
        block, parsed = Block.unpack(packed), Key.parse(key)
        # A zone that has joined may have two records of one block.
        found[parsed.namespace, block.first] = parsed.zone, block.size
    for (pool, first), (zone, size) in sorted(found.items()):
        yield pool, zone, ipv4_text(first), size


def vip_rows(registry: Registry, zone: str) -> Iterator[tuple[str, str, str, str]]:
    """Pool, mesh, name and address of a zone's own services in use."""
    for pool in sorted(name for name, kind in KINDS.items() if kind.pool):
        for key, packed in list(registry.table(vip_kind(pool)).items()):
            binding = Binding.unpack(packed)
            if binding.live and binding.address is not None and zone_of(key) == zone:
                parsed = Key.parse(key)
                yield pool, parsed.mesh, parsed.name, ipv4_text(binding.address)


def name_rows(registry: Registry) -> Iterator[tuple[str, str, str, str]]:
    """Mesh, sort, name and address of every legacy name in use."""
    for key, packed in list(registry.table(LEGACY_VIP).items()):
        binding, parsed = Binding.unpack(packed), Key.parse(key)
        if binding.live and binding.address is not None:
            yield parsed.mesh, parsed.namespace, parsed.name, ipv4_text(binding.address)


def made_here_rows(registry: Registry) -> Iterator[tuple[str, str, str]]:
    """Objects of kinds that only global has in a mesh of zones."""
    for name, kind in sorted(KINDS.items()):
        if kind.by_zone:
            continue
        for key in list(registry.table(name)):
            parsed = Key.parse(key)
            if (name, parsed.name) != _DEFAULT_MESH:
                yield name, parsed.mesh, parsed.name


class Lost(NamedTuple):
    block: HeldBlock
    why: str


class Moved(NamedTuple):
    name: Name
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What joining would do."""

    refused: str | None
    """Why the zone could not join at all."""
    kept: Sequence[HeldBlock]
    draining: Sequence[HeldBlock]
    """Of those: in ranges that the mesh gives nothing new out of."""
    lost: Sequence[Lost]
    vips: Sequence[Vip]
    """Those in lost blocks: each gets another address."""
    names: Sequence[Moved]
    """Legacy names that get another address, for this zone."""
    left_out: Sequence[tuple[str, str, str]]
    """Not seen by anybody in the mesh, until it is made on global."""

    @property
    def harmless(self) -> bool:
        return self.refused is None and not (self.vips or self.names or self.left_out)


def compare(zone: Side, mesh: Side) -> Outcome:
    """What would become of a zone's blocks, addresses and names; `mesh` is what a global says."""
    assert zone.zone
    assert not mesh.zone
    lost = [Lost(block, why) for block in zone.blocks if (why := _refusal(zone, mesh, block))]
    gone = {each.block for each in lost}
    kept = [block for block in zone.blocks if block not in gone]
    return Outcome(
        refused=_refused(zone, mesh),
        kept=kept,
        draining=[
            block
            for block in kept
            if not mesh.settings.pool(block.pool).covers(block.first, block.size)
        ],
        lost=lost,
        vips=sorted(_within(zone.vips, gone), key=lambda vip: vip.address),
        names=list(_moved(zone, mesh)),
        left_out=zone.made_here,
    )


def _refused(zone: Side, mesh: Side) -> str | None:
    known = mesh.zones.get(zone.zone)
    if known is None or known == zone.uid:
        return None
    return (
        f"the mesh has a zone {zone.zone} already, with UID {known} (this one is {zone.uid}); give"
        " one of them another multizone.zone.name"
    )


def _refusal(zone: Side, mesh: Side, block: HeldBlock) -> str | None:
    """Why global would not leave a block to the zone."""
    for other in mesh.blocks:
        if _overlap(block, other) and (other.zone != zone.zone or other.pool != block.pool):
            owner = f"zone {other.zone}" if other.zone else "global"
            return f"{owner} holds {other.text} of pool {other.pool}"
    for name in mesh.names:
        if block.first <= name.address < block.first + block.size:
            return f"the legacy name {name.name} is bound to {ipv4_text(name.address)}"
    settings = mesh.settings
    pools = (settings.pool(block.pool), settings.former_pool(block.pool))
    if (block.first, block.size) in [each.block_at(block.first) for each in pools]:
        return None
    ranges = ", ".join(settings.pool(block.pool).cidrs)
    return f"no block of the mesh's pool {block.pool} ({ranges})"


def _overlap(one: HeldBlock, other: HeldBlock) -> bool:
    return one.first < other.first + other.size and other.first < one.first + one.size


def _within(vips: Iterable[Vip], blocks: Iterable[HeldBlock]) -> Iterator[Vip]:
    spans = [(block.pool, block.first, block.first + block.size) for block in blocks]
    for vip in vips:
        if any(vip.pool == pool and first <= vip.address < end for pool, first, end in spans):
            yield vip


def _moved(zone: Side, mesh: Side) -> Iterator[Moved]:
    held = {name[:3]: name.address for name in mesh.names}
    holders = {name.address: name for name in mesh.names}
    for name in sorted(zone.names):
        there = held.get(name[:3])
        if there is not None:
            if there != name.address:
                yield Moved(name, f"the mesh has it at {ipv4_text(there)}")
            continue
        if (holder := holders.get(name.address)) is not None:
            yield Moved(name, f"the mesh has {holder.name} at its address")
            continue
        for block in mesh.blocks:
            if block.first <= name.address < block.first + block.size:
                yield Moved(name, f"its address lies in a block of the mesh, {block.text}")
                break
