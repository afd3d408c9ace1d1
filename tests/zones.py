"""A zone's decisions under test: a state that leads itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.builders import Leader
from zonecp.deciding import decide
from zonecp.inputs import Begin, Tick
from zonecp.state import ZoneState
from zonemesh.deciding import Delete
from zonemesh.ipam import Binding, vip_kind
from zonemesh.model import Key, Record
from zonemesh.settings import Settings
from zonemesh.wire import UP_ENTRY_BYTES_MAX

SERVICE = "MeshService"
VIP = vip_kind(SERVICE)
GRACE_MS = 60_000
QUARANTINE_MS = 3_600_000
SETTINGS_HERE = Settings(grace_ms=GRACE_MS, quarantine_ms=QUARANTINE_MS)


class Zone:
    """A zone that leads itself."""

    def __init__(self, *, federated: bool = False, pool: str = "241.0.0.0/8") -> None:
        self.state = ZoneState("west", federated=federated)
        self.leader = Leader(
            self.state.registry, partial(decide, self.state), bytes_max=UP_ENTRY_BYTES_MAX
        )
        settings = Settings(
            pools={SERVICE: (pool,)}, grace_ms=GRACE_MS, quarantine_ms=QUARANTINE_MS
        )
        self.submit(Begin("uid", settings, adopted=not federated), Tick({}))

    def submit(self, *inputs: Any) -> list[Any]:
        return self.leader.submit(*inputs)

    def tick(self, ms: int = 1_000) -> None:
        self.leader.wait(ms)
        self.submit(Tick({"beat": 1}))

    def record(self, name: str, kind: str = SERVICE) -> Record | None:
        packed = self.state.registry.get(kind, key_of(name).packed)
        return None if packed is None else Record.unpack(packed)

    def spec(self, name: str) -> Mapping[str, Any]:
        record = self.record(name)
        assert record is not None
        return record.spec

    def binding(self, name: str) -> Binding:
        packed = self.state.registry.get(VIP, key_of(name).packed)
        assert packed is not None
        return Binding.unpack(packed)

    def bound(self) -> set[int | None]:
        return {Binding.unpack(each).address for each in self.state.registry.table(VIP).values()}


def key_of(name: str) -> Key:
    return Key("default", "west", "", name)


def gone(name: str, kind: str = "Dataplane") -> Delete:
    return Delete(kind, key_of(name))
