"""How much a zone may bring: its quota, what is held of it, and why a record of it is refused.

A quota protects the others' memory from one zone: new records beyond it are refused one by one,
while changes and removals of what is held always pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from zonemesh.draft import Draft
from zonemesh.errors import Violation
from zonemesh.ipam import pool_of
from zonemesh.model import Change, zone_of
from zonemesh.resources.catalogue import KINDS
from zonemesh.seen import Seen
from zonemesh.travel import NOT_MERGED, accepted_from_zone

SERVICES_LABEL = "zonemesh.io/quota-services"
BYTES_LABEL = "zonemesh.io/quota-bytes"
RETRY_MS = 60_000
"""Log time between two tries to take in what was refused, while there is not room for all of it:
each costs a full sync of the zone."""
SOON_MS = 10_000
"""The same, while there is."""
_ROOM_SHARE = 0.95
"""Room for bytes is made once so little of the quota is used; a record may need any part of it."""
_NUMBER_MAX = 1 << 53


class Quota(NamedTuple):
    """What one zone may bring at most."""

    services: int
    bytes: int

    def for_zone(self, labels: Mapping[str, str]) -> Quota:
        """With what the labels of the Zone resource say instead."""
        return Quota(
            _number(labels.get(SERVICES_LABEL), self.services),
            _number(labels.get(BYTES_LABEL), self.bytes),
        )


def label_faults(labels: Mapping[str, str]) -> list[Violation]:
    """What is wrong with the quota labels of a Zone."""
    return [
        Violation(f'labels["{label}"]', f"{labels[label]!r} is not a whole number from 0 on")
        for label in (SERVICES_LABEL, BYTES_LABEL)
        if label in labels and _number(labels[label], -1) < 0
    ]


def _number(text: str | None, otherwise: int) -> int:
    if (
        text is None
        or not (text.isascii() and text.isdecimal())
        or len(text) > len(str(_NUMBER_MAX))
    ):
        return otherwise
    return min(int(text), _NUMBER_MAX)


class Holdings:
    """An index: what is held of each zone."""

    def __init__(self) -> None:
        self.services: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        zone = zone_of(key)
        if not zone or not accepted_from_zone(kind):
            return
        self.bytes[zone] += size_of(kind, key, new) - size_of(kind, key, old)
        if counts(kind):
            self.services[zone] += (new is not None) - (old is not None)


class Use:
    """What a zone has, as an entry is being decided: what is held, and what the entry adds."""

    def __init__(self, quota: Quota, services: int, size: int) -> None:
        self.quota = quota
        self.services = services
        self.bytes = size

    def refuses(self, draft: Draft, change: Change) -> str | None:
        """Why a record that is not held yet may not come in, or None."""
        kind, key, payload = change
        service = pool_of(kind)
        # A binding goes with its service; without one it rests, and is to rest here too.
        refused_too = (
            service is not None and payload is not None and draft.get(service, key) is None
        )
        if self.services >= self.quota.services and (counts(kind) or refused_too):
            return f"quota: {self.quota.services} services"
        if self.bytes + size_of(kind, key, payload) > self.quota.bytes:
            return f"quota: {self.quota.bytes} bytes"
        return None

    def put(self, change: Change, held: bytes | None) -> None:
        """Take a change of the entry into account."""
        kind, key, payload = change
        self.bytes += size_of(kind, key, payload) - size_of(kind, key, held)
        if counts(kind):
            self.services += (payload is not None) - (held is not None)

    def asks_again(self, seen: Seen, log_time_ms: int) -> bool:
        """Whether a zone is to be asked again for what was refused of it."""
        if not seen.refused or not seen.online or seen.h == NOT_MERGED:
            return False
        waited_ms = log_time_ms - seen.retried_ms
        spare = self.quota.services - self.services
        all_fit = spare >= seen.refused and self.bytes <= _ROOM_SHARE * self.quota.bytes
        any_fits = spare > 0 and self.bytes < self.quota.bytes
        return (all_fit and waited_ms >= SOON_MS) or (any_fits and waited_ms >= RETRY_MS)


def counts(kind: str) -> bool:
    """Whether records of a kind are services, of which a quota counts the number."""
    declared = KINDS.get(kind)
    return declared is not None and bool(declared.pool)


def size_of(kind: str, key: str, payload: bytes | None) -> int:
    return 0 if payload is None else len(kind) + len(key) + len(payload)
