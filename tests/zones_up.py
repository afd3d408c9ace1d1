"""Zones as global sees them: streams of entries and snapshots, and a global that leads itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from globalcp.deciding import decide
from globalcp.inputs import Begin, Merge, Replace, Tick
from globalcp.report import Report
from globalcp.state import GlobalState
from tests.builders import NOW_MS, Chain, Leader, put_service
from zonemesh.ipam import BLOCK, Binding, Block, vip_kind
from zonemesh.model import Change, Cursor, Key, Record, zone_of
from zonemesh.recovery import Claim
from zonemesh.seen import Seen
from zonemesh.settings import Settings
from zonemesh.wire import Sealed

SERVICE = "MeshService"
VIP = vip_kind(SERVICE)
DAY_MS = 24 * 3600 * 1000


def key_of(name: str, zone: str = "west") -> str:
    return Key("default", zone, "", name).packed


def service(name: str, zone: str = "west", **tags: str) -> Change:
    put = put_service(name, zone=zone, **tags)
    record = Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec=put.spec)
    return Change(SERVICE, key_of(name, zone), record.pack())


def bound(
    name: str,
    address: int | None,
    zone: str = "west",
    *,
    birth: int = 1,
    released_ms: int | None = None,
    order: int | None = None,
) -> Change:
    packed = Binding(address, order, released_ms, birth).pack()
    return Change(VIP, key_of(name, zone), packed)


class Stream:
    """One zone's up stream."""

    def __init__(self, zone: str = "west", *, incarnation: str = "up") -> None:
        self.zone = zone
        self.chain = Chain(incarnation=incarnation)

    def write(self, *changes: Change) -> Sealed:
        return self.chain.commit(*changes)

    @property
    def report(self) -> Report:
        return Report(self.chain.registry.cursor, f"uid-{self.zone}", NOW_MS)

    def merge(self, *changes: Change) -> Merge:
        """The stream's next entry alone."""
        return Merge(self.zone, [self.write(*changes)], self.report)

    def claim(self, *blocks: Block, recovery: str = "") -> Merge:
        """An entry that says which blocks the zone holds."""
        claims = [Claim(SERVICE, each.first, each.size, each.granted_ms).pack() for each in blocks]
        sealed = self.chain.commit(note={"claims": claims, "recovery": recovery})
        return Merge(self.zone, [sealed], self.report)

    def merge_all(self, start: int = 0) -> Merge:
        return Merge(self.zone, self.chain.entries[start:], self.report)

    def replace(self) -> Replace:
        """A snapshot of everything written."""
        return Replace(self.zone, self.chain.registry.freeze().tables, self.report)


class Global:
    """A global that leads itself."""

    def __init__(self, *, pool: str = "241.0.0.0/8", begin: bool = True) -> None:
        self.state = GlobalState()
        self.leader = Leader(self.state.registry, partial(decide, self.state))
        self.settings = Settings(pools={SERVICE: (pool,)})
        if begin:
            self.submit(Begin(self.settings))

    def submit(self, *inputs: Any) -> list[Any]:
        return self.leader.submit(*inputs)

    def tick(self, ms: int = 1_000, **moved: Report) -> None:
        self.leader.wait(ms)
        self.submit(Tick({}, moved))

    def seen(self, zone: str = "west") -> Seen:
        seen = Seen.of(self.state.registry, zone)
        assert seen is not None
        return seen

    def binding(self, name: str, zone: str = "west") -> Binding:
        packed = self.state.registry.get(VIP, key_of(name, zone))
        assert packed is not None
        return Binding.unpack(packed)

    def order(self, name: str, zone: str = "west") -> int:
        order = self.binding(name, zone).order
        assert order is not None
        return order

    def blocks(self, zone: str = "west") -> list[Block]:
        return self.state.ledgers[SERVICE].blocks(zone)

    def block_records(self) -> dict[str, Block]:
        """Blocks of the services' pool by the keys of their records, whoever holds them."""
        table = self.state.registry.table(BLOCK).items()
        blocks = {key: Block.unpack(payload) for key, payload in table}
        return {key: block for key, block in blocks.items() if Key.parse(key).namespace == SERVICE}

    def block_firsts(self) -> list[int]:
        return [block.first for block in self.block_records().values()]

    def held(self, zone: str = "west") -> Mapping[str, set[str]]:
        """Keys that are held of a zone, by kind; what global notes of it as well."""
        return {
            kind: keys
            for kind, table in self.state.registry.tables.items()
            if (keys := {key for key in table if zone_of(key) == zone})
        }

    @property
    def cursor(self) -> Cursor | None:
        return self.state.registry.cursors.get("zone:west:up")
