"""What a zone's control plane knows by its own log, with the indexes that decisions need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgpack

from zonemesh.agents import Agents
from zonemesh.draft import Draft
from zonemesh.forgetting import Forgetting
from zonemesh.ipam import Binding, Block, Ledger
from zonemesh.leasing import is_handed_back
from zonemesh.legacy import Naming
from zonemesh.legacybinding import LegacyBindings
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.members import (
    Members,
    UserServices,
)
from zonemesh.model import Key
from zonemesh.registry import Index, Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings, zone_key
from zonemesh.travel import ZONE_STATE


@dataclass(frozen=True, slots=True)
class ZoneNote:
    """What a zone's log says about the zone itself."""

    uid: str
    adopted: bool
    continues: str = ""
    """The cursor up to which another incarnation of this log, lost since, is held in this one."""
    alone: bool = False
    """It was never part of a mesh: what a global has under its name is another zone's."""

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb((self.uid, self.adopted, self.continues, self.alone))
        return packed

    @classmethod
    def of(cls, registry: Registry | Draft, zone: str) -> ZoneNote | None:
        packed = registry.get(ZONE_STATE, zone_key(zone))
        return None if packed is None else cls(*msgpack.unpackb(packed))


class ZoneState:
    """A zone's own registry with the indexes that decisions need."""

    def __init__(self, zone: str, *, federated: bool, naming: Naming | None = None) -> None:
        """`naming`: how a zone without a global makes legacy names; the others take global's."""
        self.zone = zone
        self.federated = federated
        self.registry = Registry()
        self.members = Members()
        self.user_services = UserServices()
        self.ledgers = {name: Ledger(name) for name, kind in KINDS.items() if kind.pool}
        self.shortages: dict[str, str] = {}
        """Pool -> why a service was left without an address, as of the last try."""
        self.overdue: set[str] = set()
        """Services whose state is to be looked at again."""
        self.legacy = (
            None
            if federated
            else LegacyBindings(self.registry, naming or Naming(), self.ledgers.values())
        )
        self.forgetting = Forgetting()
        self.agents = Agents()
        self.cleanup_ms: int | None = None
        """Log time after which a Dataplane goes whose agent is gone; None: it stays."""
        self.led_since_ms = 0
        """Log time at which this leader began: nobody's absence is reckoned from before."""
        indexes: list[Index] = [
            self.members,
            self.user_services,
            self.agents,
            *self.ledgers.values(),
        ]
        for index in indexes:
            self.registry.add_index(index)

    def other_ledgers(self, pool: str) -> list[Ledger]:
        """Those of all pools but one: what they hold, that one does not give out."""
        found = [ledger for name, ledger in self.ledgers.items() if name != pool]
        return found if self.legacy is None else [*found, self.legacy.ledger]

    @property
    def note(self) -> ZoneNote | None:
        return ZoneNote.of(self.registry, self.zone)

    @property
    def adopted(self) -> bool:
        """Whether this zone knows all that was ever bound for it, so that it may bind more."""
        note = self.note
        return note is not None and note.adopted

    def legacy_claims(self) -> dict[str, bytes]:
        """Where this zone has legacy names that it gave addresses to itself, and global does not
        know of yet.
        """
        if not self.federated:
            return {}
        table = self.registry.table(LEGACY_VIP)
        return {key: packed for key, packed in table.items() if Binding.unpack(packed).live}

    @property
    def knows_pools(self) -> bool:
        """Whether these are the mesh's: until global has said, all that is known is the usual."""
        return not self.federated or self.registry.get(SETTINGS, GLOBAL_KEY) is not None

    def has_handed_back(self, key: str, payload: bytes) -> bool:
        """Whether a lease that global tells of is one that this zone has given up already."""
        block, pool = Block.unpack(payload), Key.parse(key).namespace
        ledger = self.ledgers.get(pool)
        if block.retired or ledger is None or not self.knows_pools:
            return False
        return is_handed_back(self.settings.pool(pool), ledger, block)

    @property
    def settings(self) -> Settings:
        """Global's where the zone has them, with the zone's own grace period."""
        own = self.registry.get(SETTINGS, zone_key(self.zone))
        settings = Settings() if own is None else Settings.unpack(own)
        shared = self.registry.get(SETTINGS, GLOBAL_KEY)
        if shared is None:
            return settings
        return replace(
            Settings.unpack(shared), grace_ms=settings.grace_ms, propagate=settings.propagate
        )
