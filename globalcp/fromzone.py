"""What a zone's records must be like to be taken in, and in which order they are."""

from __future__ import annotations

from collections.abc import Sequence

from globalcp.fullsync import birth
from zonemesh.errors import WireError
from zonemesh.ipam import pool_of
from zonemesh.model import Change, Key, Record, zone_of
from zonemesh.resources.catalogue import KINDS
from zonemesh.travel import accepted_from_zone

KEY_MAX = 1_000
"""Of a zone's kind and key, which global may repeat in what it adds. Valid ones are half of it."""


def check_place(zone: str, kind: str, key: str) -> None:
    """Whether a record is a zone's to write; raises WireError."""
    if not accepted_from_zone(kind) or zone_of(key) != zone or Key.parse(key).zone != zone:
        raise WireError(f"not zone {zone}'s to write")
    if len(kind) + len(key) > KEY_MAX:
        raise WireError(f"a key of {len(kind) + len(key)} characters; at most {KEY_MAX}")


def check_record(kind: str, key: str, payload: bytes) -> None:
    """What zones and indexes rely on in a record of a known kind; raises InputError."""
    record = Record.unpack(payload)
    record.check_foreign()
    if not all(type(value) is str for pair in record.labels.items() for value in pair):
        raise WireError("labels are not strings")
    KINDS[kind].validate(record.spec, Key.parse(key).name)


def by_birth(changes: Sequence[Change]) -> list[Change]:
    """Records, bindings as their zone ranks them (merging keeps the order of names), removals."""
    return sorted(changes, key=_birth)


def _birth(change: Change) -> tuple[bool, int]:
    if change.payload is None or pool_of(change.kind) is None:
        return change.payload is None, -1
    return False, birth(change.payload)
