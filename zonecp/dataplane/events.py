"""The zone's feed, read line by line: Server-Sent Events in, parts of maps out. Pure.

A snapshot is one event whose data lines are broken between records:

    data: {"revision": …, "records":[
    data: {…},{…},          at most 256 records, and so on; no comma after the last
    data: ],"outbounds":[
    data: {…},{…}
    data: ]}

so that 20 MB of JSON are decoded in pieces of 0.3 ms. One of another shape is decoded whole.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeVar

import msgspec

from zonecp.dataplane.outbounds import Outbound
from zonemesh.errors import WireError

EVENT_BYTES_MAX: Final = 256 << 20
"""A million names with their outbounds."""


class Record(msgspec.Struct, gc=False):
    """One name of the map."""

    name: str
    ips: list[str]
    ttl: int = 60
    service: str = ""
    zone: str = ""


class Head(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a map is, without its records; also the head of the cache on disk."""

    revision: str
    mesh: str
    zone: str = ""
    zone_uid: str = ""
    domains: tuple[str, ...] = ()
    lag_s: float = msgspec.field(default=0.0, name="lag_s")
    hash: str = ""
    ttl_s: int | None = msgspec.field(default=None, name="ttl_s")
    """What this agent serves the names with, where that is not what the zone says."""


class SnapshotBegins(msgspec.Struct, frozen=True):
    head: Head


class Records(msgspec.Struct, frozen=True):
    """A piece of a snapshot."""

    records: list[Record]


class OutboundPiece(msgspec.Struct, frozen=True):
    """A piece of a snapshot whose records have all come."""

    outbounds: list[Outbound]


class SnapshotEnds(msgspec.Struct, frozen=True):
    pass


class Delta(msgspec.Struct, frozen=True, rename="camel"):
    since: str = msgspec.field(name="from")
    revision: str = msgspec.field(name="to")
    put: list[Record] = msgspec.field(default_factory=list)
    remove: list[str] = msgspec.field(default_factory=list)
    put_outbounds: list[Outbound] = msgspec.field(default_factory=list)
    remove_outbounds: list[str] = msgspec.field(default_factory=list)
    """Beginnings of ids; removed before the puts."""


class Heartbeat(msgspec.Struct, frozen=True):
    revision: str
    lag_s: float = 0.0
    hash: str = ""


Part = SnapshotBegins | Records | OutboundPiece | SnapshotEnds | Delta | Heartbeat

_HEAD: Final = msgspec.json.Decoder(Head)
_RECORDS: Final = msgspec.json.Decoder(list[Record])
_OUTBOUNDS: Final = msgspec.json.Decoder(list[Outbound])
_DELTA: Final = msgspec.json.Decoder(Delta)
_HEARTBEAT: Final = msgspec.json.Decoder(Heartbeat)


class _Whole(Head, frozen=True, rename="camel"):
    """A snapshot in one piece."""

    records: list[Record] = []
    outbounds: list[Outbound] = []


_WHOLE: Final = msgspec.json.Decoder(_Whole)

_HEAD_ENDS: Final = b'"records":['
_RECORDS_END: Final = b'],"outbounds":['

T = TypeVar("T")


class _In(Enum):
    """Where in a snapshot the reader is."""

    HEAD = auto()
    RECORDS = auto()
    OUTBOUNDS = auto()
    END = auto()
    WHOLE = auto()
    """Not of the shape above: collected, and decoded at its end."""


class Reader:
    """Takes lines, without their line ends, in order; gives what they complete."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._event = b""
        self._data: list[bytes] = []
        self._bytes = 0
        self._at = _In.HEAD

    def line(self, line: bytes) -> tuple[Part, ...]:
        """Read one line.

        Raises:
            WireError: Not what a zone sends; nothing after it can be trusted.
        """
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._event = value
        elif field == b"data":
            self._bytes += len(value)
            if self._bytes > EVENT_BYTES_MAX:
                raise WireError(f"an event of more than {EVENT_BYTES_MAX} bytes")
            if self._event == b"snapshot":
                return self._snapshot_line(value)
            self._data.append(value)
        # `id` repeats the revision that the data holds; a line without a field is a comment.
        return ()

    def _snapshot_line(self, value: bytes) -> tuple[Part, ...]:
        match self._at:
            case _In.HEAD if value.endswith(_HEAD_ENDS):
                self._at = _In.RECORDS
                return (SnapshotBegins(_decode(_HEAD, value + b"]}")),)
            case _In.HEAD | _In.WHOLE:
                self._at = _In.WHOLE
                self._data.append(value)
            case _In.RECORDS if value.startswith(b"]"):
                self._at = _In.OUTBOUNDS if value == _RECORDS_END else _In.END
            case _In.RECORDS:
                return (Records(_decode(_RECORDS, b"[" + value.removesuffix(b",") + b"]")),)
            case _In.OUTBOUNDS if value.startswith(b"]"):
                self._at = _In.END
            case _In.OUTBOUNDS:
                data = b"[" + value.removesuffix(b",") + b"]"
                return (OutboundPiece(_decode(_OUTBOUNDS, data)),)
            case _In.END:
                raise WireError("a snapshot goes on after its end")
        return ()

    def _dispatch(self) -> tuple[Part, ...]:
        event, data, at = self._event, b"\n".join(self._data), self._at
        self._start()
        if event == b"snapshot":
            return _snapshot_ends(at, data)
        if not data:
            return ()
        if event == b"delta":
            return (_decode(_DELTA, data),)
        if event == b"heartbeat":
            return (_decode(_HEARTBEAT, data),)
        return ()  # of a later protocol, and not needed to follow the map


def _snapshot_ends(at: _In, data: bytes) -> tuple[Part, ...]:
    if at is _In.END:
        return (SnapshotEnds(),)
    if at is not _In.WHOLE:
        raise WireError("a snapshot without its end")
    whole = _decode(_WHOLE, data)
    return (
        SnapshotBegins(whole),
        Records(whole.records),
        OutboundPiece(whole.outbounds),
        SnapshotEnds(),
    )


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise WireError(f"malformed feed event: {error}") from error
