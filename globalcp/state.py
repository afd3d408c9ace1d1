"""What the global control plane knows by its log, with the indexes that decisions need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from globalcp.deletions import Deletions
from globalcp.quota import Holdings, Quota, Use
from zonemesh.draft import Draft
from zonemesh.forgetting import Forgetting
from zonemesh.ipam import Ledger
from zonemesh.legacy import Naming
from zonemesh.legacybinding import LegacyBindings
from zonemesh.legacypool import LEGACY
from zonemesh.lostzones import Withdrawals
from zonemesh.model import Key, Record, zone_of
from zonemesh.parts import Parts
from zonemesh.registry import Registry
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.settings import GLOBAL_KEY, SETTINGS, Settings
from zonemesh.travel import SEEN, accepted_from_zone, held_back, kept_by

STATES_TURNS = 5
"""Heartbeats in which every zone is told once what its copy must be, of up to 50 zones."""
STATES_MAX = 10
"""Zones told in one heartbeat, some 300 octets and 6 ms at 100 zones."""
STATE_DIGITS = 16
"""Of a digest: 64 bits tell two states apart that differ by accident."""


class GlobalState:
    """Global's registry with the indexes that decisions need."""

    def __init__(self, naming: Naming | None = None) -> None:
        """`naming`: how legacy names are made, should this replica come to lead."""
        self.registry = Registry()
        self.ledgers = {name: Ledger(name) for name, kind in KINDS.items() if kind.pool}
        for ledger in self.ledgers.values():
            self.registry.add_index(ledger)
        self.legacy = LegacyBindings(self.registry, naming or Naming(), self.ledgers.values())
        self._parts = Parts(self.registry, held_back)
        self._told = 0
        """Where the turn of zones is that are told the hash of what they keep."""
        self.unserved: set[str] = set()
        """Zones whose stock of free addresses is to be looked at in the next decision. Only saves
        looking at all of them: every term begins with all, and whoever waits is seen again."""
        self._deletions = Deletions()
        self.registry.add_index(self._deletions)
        self.withdrawals = Withdrawals()
        self.registry.add_index(self.withdrawals)
        self.forgetting = Forgetting()
        self.holdings = Holdings()
        self.registry.add_index(self.holdings)
        self.shortages: dict[tuple[str, str], str] = {}
        """(pool, zone) -> why no block could be leased, as of this leader's last try; for the zone
        "", global, why something made on it was left without an address."""

    @property
    def settings(self) -> Settings:
        packed = self.registry.get(SETTINGS, GLOBAL_KEY)
        return Settings() if packed is None else Settings.unpack(packed)

    def differs(self, wanted: Settings) -> dict[str, tuple[Any, Any]]:
        """What the log's settings have otherwise than a replica's configuration: both values."""
        known = self.registry.get(SETTINGS, GLOBAL_KEY) is not None
        return wanted.changed_from(self.settings) if known else {}

    def draining(self) -> dict[tuple[str, str], int]:
        """(pool, zone) -> addresses held in ranges that were removed, of whoever holds some."""
        settings, found = self.settings, {}
        for name, ledger in self.ledgers.items():
            for zone in ("", *self.zones()):
                found[name, zone] = ledger.draining(settings.pool(name), zone)
        found[LEGACY, ""] = self.legacy.draining(settings)
        return {place: held for place, held in found.items() if held}

    def other_ledgers(self, pool: str) -> list[Ledger]:
        """Those of all pools but one: what they hold, that one does not give out."""
        every = {**self.ledgers, LEGACY: self.legacy.ledger}
        return [ledger for name, ledger in every.items() if name != pool]

    def zones(self) -> list[str]:
        return sorted(zone_of(key) for key in self.registry.table(SEEN))

    def uids(self) -> dict[str, str]:
        """Of every zone that was heard of, by its last report."""
        found = ((zone, Seen.of(self.registry, zone)) for zone in self.zones())
        return {zone: seen.uid for zone, seen in found if seen is not None}

    def states(self) -> dict[str, str]:
        """By zone the hash of what it keeps of this state; of some zones at a time, in turn."""
        zones = self.zones()
        count = min(STATES_MAX, len(zones) // STATES_TURNS + 1)
        start = self._told % max(len(zones), 1)
        self._told = start + count
        turn = (zones + zones)[start : start + min(count, len(zones))]
        return {zone: self._parts.digest(kept_by(zone))[-STATE_DIGITS:] for zone in turn}

    def deleted(self, draft: Draft) -> set[str]:
        """Deleted zones of which records are left."""
        return self._deletions.under_way(draft)

    def use(self, zone: str, view: Registry | Draft | None = None) -> Use:
        """What a zone has of its quota; by a draft, the quota as it is being decided."""
        settings = self.settings
        packed = (view or self.registry).get("Zone", Key("", "", "", zone).packed)
        labels = {} if packed is None else Record.unpack(packed).labels
        quota = Quota(settings.quota_services, settings.quota_bytes).for_zone(labels)
        return Use(quota, self.holdings.services[zone], self.holdings.bytes[zone])

    def of_zone(self, zone: str) -> Iterator[tuple[str, str]]:
        """Kind and key of everything merged from a zone."""
        for kind, table in self.registry.tables.items():
            if accepted_from_zone(kind):
                yield from ((kind, key) for key in table if zone_of(key) == zone)
