"""Entries of a log for people and for programs: payloads decoded, the chain checked on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgpack

from zonemesh.errors import LogFaultError, MeshError, WireError
from zonemesh.ipam import BLOCK, Binding, Block, ipv4_text, pool_of
from zonemesh.log.port import Head, Raw
from zonemesh.model import START, Change, Record
from zonemesh.replica import check_head, follows
from zonemesh.resources.catalogue import KINDS
from zonemesh.wire import ENTRY_BYTES_MAX, NOWHERE, Place, Sealed, decode

Shown = Mapping[str, Any]
"""An entry, or a fault of the log: `{"fault": code, "text": …, "at": position}`."""

_TEXT_MAX = 160


class Chain:
    """What is read one after the other, and whether it is one history."""

    def __init__(self, *, from_beginning: bool) -> None:
        self._from_beginning = from_beginning
        self.place = NOWHERE
        self.faults = 0

    def take(self, raw: Raw) -> Iterator[Shown]:
        """The entry, after what is wrong with it."""
        try:
            sealed, chained = decode(raw.data, self.place.h, bytes_max=ENTRY_BYTES_MAX)
        except WireError as error:
            yield self._fault(error, str(raw.position))
            self.place = Place(self.place.incarnation, raw.position, b"")
            return
        yield from self._checked(sealed, chained=chained)
        self.place = sealed.place
        yield shown(sealed)

    def _checked(self, sealed: Sealed, *, chained: bool) -> Iterator[Shown]:
        entry = sealed.entry
        if self.place == NOWHERE:
            if self._from_beginning and entry.previous != START:
                text = f"what was before {entry.position} is trimmed"
                yield {"fault": "trimmed", "text": text, "at": str(entry.position)}
            return
        try:
            # After an entry that could not be read nobody knows its hash.
            follows(self.place, sealed, chained=chained or not self.place.h)
        except LogFaultError as error:
            yield self._fault(error, str(entry.position))

    def compare(self, head: Head | None) -> Shown | None:
        """What reading cannot show: a log that is gone, or ends before what was read."""
        place = None if head is None else head.place
        try:
            if self.place.h:
                check_head(self.place, place, read_nothing=True)
        except LogFaultError as error:
            self.place = place or NOWHERE
            return self._fault(error, "" if head is None else str(head.position))
        return None

    def _fault(self, error: MeshError, at: str) -> Shown:
        self.faults += 1
        return {"fault": error.code, "text": str(error), "at": at}


def shown(sealed: Sealed) -> dict[str, Any]:
    """An entry with everything that it says, as JSON could have it."""
    entry = sealed.entry
    return {
        "position": str(entry.position),
        "previous": str(entry.previous),
        "incarnation": entry.incarnation,
        "time": _time(entry.time_ms),
        "writer": entry.writer,
        "monoDeltaMs": entry.mono_delta_ms,
        "logTimeMs": entry.log_time_ms,
        "bytes": len(sealed.data),
        "h": sealed.h.hex(),
        "src": {log: str(cursor) for log, cursor in entry.src.items()},
        "note": _plain(entry.note),
        "changes": [_change(change) for change in entry.changes],
    }


def wanted(entry: Shown, kinds: Sequence[str], *, changes_only: bool) -> bool:
    """Whether an entry is shown; faults always are."""
    if "fault" in entry:
        return True
    if kinds:
        return any(_of_kind(change["kind"], kinds) for change in entry["changes"])
    return bool(entry["changes"]) or not changes_only


def _of_kind(kind: str, kinds: Sequence[str]) -> bool:
    return any(kind.lower() == each.lower() for each in kinds)


def text(entry: Shown, kinds: Sequence[str]) -> Iterator[str]:
    """Lines for people: the entry, then each of its changes."""
    if "fault" in entry:
        yield f"!! {entry['fault']} at {entry['at']}: {entry['text']}"
        return
    facts = [f"{entry['position']:>8}", entry["time"], f"by {entry['writer'][:8]}"]
    facts += [f"{log} read to {cursor}" for log, cursor in entry["src"].items()]
    note = ", ".join(_noted(name, value) for name, value in entry["note"].items())
    yield "  ".join([*facts, *([f"[{note}]"] if note else [])])
    for change in entry["changes"]:
        if kinds and not _of_kind(change["kind"], kinds):
            continue
        verb = "remove" if change["value"] is None else "put"
        value = "" if change["value"] is None else _short(change["value"])
        yield f"          {verb:6} {change['kind']} {change['key']} {value}".rstrip()


def _noted(name: str, value: Any) -> str:
    """The long ones are for `-o json`."""
    short = _short(value) if not isinstance(value, (dict, list)) else "…"
    return name if value is True else f"{name} {short}"


def _short(value: Any) -> str:
    found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found if len(found) <= _TEXT_MAX else found[: _TEXT_MAX - 1] + "…"


def _time(time_ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError):
        return f"{time_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _change(change: Change) -> dict[str, Any]:
    payload = change.payload
    value = None if payload is None else _value(change.kind, payload)
    return {"kind": change.kind, "key": change.key, "value": value}


def _value(kind: str, payload: bytes) -> Any:
    """A payload in the terms of its kind; octets of one that is unknown, or not of its shape."""
    try:
        if kind in KINDS:
            record = Record.unpack(payload)
            return {
                "created": _time(record.created_ms),
                "modified": _time(record.modified_ms),
                "labels": dict(record.labels),
                "spec": _plain(record.spec),
            }
        if pool_of(kind) is not None:
            binding = Binding.unpack(payload)
            address = None if binding.address is None else ipv4_text(binding.address)
            return {**binding._asdict(), "address": address}
        if kind == BLOCK:
            block = Block.unpack(payload)
            return {**block._asdict(), "first": ipv4_text(block.first)}
        return _plain(msgpack.unpackb(payload, strict_map_key=False))
    except (MeshError, ValueError, TypeError, msgpack.UnpackException):
        return payload.hex()


def _plain(value: Any) -> Any:
    """What msgpack can hold, as what JSON can."""
    match value:
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
