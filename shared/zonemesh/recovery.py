"""A log whose history may lack something: what holds until everybody has said what they hold.

While global's log has such a record, its leader binds no address and leases no block: what was
given out in a history that is lost could be given out again. That is over once every zone that was
not deleted has reported its blocks behind all that it had published, or after 60 s of log time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import msgpack

from zonemesh.draft import Draft
from zonemesh.errors import WireError
from zonemesh.ipam import BLOCK_ADDRESSES_MAX
from zonemesh.model import TIME_MS_MAX, Change, Cursor, Position
from zonemesh.registry import Registry
from zonemesh.settings import GLOBAL_KEY

RECOVERY = "recovery"
"""Kind of the record; its key is global's."""

LIMIT_MS = 60_000
"""Log time after which a zone that has not reported is waited for no longer."""

COPIES_MS = 5_000
"""Log time in which zones come to say what they hold of a log of which nothing is left."""

CLAIMS_MAX = 20_000
"""Blocks that one zone may claim; all pools together have fewer by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One recovery, from the entry that began it on."""

    id: str
    """The cursor of that entry, as text: what zones answer."""
    reason: str
    since_ms: int
    """Log time."""
    wants: bool = False
    """Something of global's own part is lost: it is taken from whoever holds the newest copy."""
    held: str = ""
    """Up to where the log has what it had before, as the text of a cursor: of a copy that goes
    beyond, only addresses are taken. "" if nothing is left: all of it."""
    reported: tuple[str, ...] = ()
    """Zones that have said what they hold."""
    above: int = 0
    """A term that was used in what is lost: whoever has read of it passes over what is below it."""
    settles: bool = False
    """Nothing more is waited for: what is without an address or a block gets one, and the record
    goes with the last of that. Zones, which show the map they had until it does, miss nothing."""

    @classmethod
    def founded(cls, first: Cursor, held: Registry, reason: str) -> Self:
        """Of a log that is founded again at `first` with what a registry holds."""
        return cls(
            id=str(first),
            reason=reason,
            since_ms=held.log_time_ms,
            wants=True,
            held=str(held.cursor),
        )

    def with_report(self, zone: str) -> Recovery:
        return replace(self, reported=tuple(sorted({*self.reported, zone})))

    def with_term(self, term: int) -> Recovery:
        return replace(self, above=max(term, self.above))

    @property
    def beyond(self) -> Position | None:
        """Which copies are of use: those after this; None: any."""
        return Cursor.parse(self.held).position if self.held else None

    def with_copy(self) -> Recovery:
        return replace(self, wants=False)

    def settling(self) -> Recovery:
        return replace(self, settles=True, wants=False)

    def over(self, zones: Collection[str], log_time_ms: int) -> bool:
        """Whether nothing more is waited for; `zones` are those that were not deleted."""
        if log_time_ms - self.since_ms >= LIMIT_MS:
            return True
        return not self.wants and set(zones) <= set(self.reported)

    def takes_copies(self, announced: Collection[str], log_time_ms: int) -> bool:
        """Whether whoever holds a copy has had the time to offer it."""
        # Of a log that is not empty it is known who comes: whoever reports has offered before.
        settled_ms = 0 if self.held else COPIES_MS
        if not self.wants or log_time_ms - self.since_ms < settled_ms:
            return False
        waited = log_time_ms - self.since_ms >= LIMIT_MS // 2
        return waited or set(announced) <= set(self.reported)

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb({name: getattr(self, name) for name in Recovery.__slots__})
        return packed

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        try:
            fields = msgpack.unpackb(payload)
            return cls(
                id=fields["id"],
                reason=fields["reason"],
                since_ms=int(fields["since_ms"]),
                wants=bool(fields["wants"]),
                held=str(fields.get("held", "")),
                reported=tuple(fields["reported"]),
                above=int(fields.get("above", 0)),
                settles=fields.get("settles") is True,
            )
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise WireError(f"malformed recovery: {error!r}") from error

    def change(self) -> Change:
        """What begins it."""
        return Change(RECOVERY, GLOBAL_KEY, self.pack())

    @classmethod
    def of(cls, registry: Registry | Draft) -> Self | None:
        """The one that is under way, or settles."""
        packed = registry.get(RECOVERY, GLOBAL_KEY)
        return None if packed is None else cls.unpack(packed)

    @classmethod
    def waiting(cls, registry: Registry | Draft) -> Self | None:
        """The one in which nothing is bound or leased yet."""
        recovery = cls.of(registry)
        return None if recovery is None or recovery.settles else recovery


@dataclass(frozen=True, slots=True)
class Claim:
    """A block that a zone holds by its own log."""

    pool: str
    first: int
    size: int
    granted_ms: int
    """Wall time of the grant: of two claims the earlier one wins, then the zone's name."""

    def pack(self) -> list[Any]:
        return [self.pool, self.first, self.size, self.granted_ms]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a zone says that it holds, in the note of an up entry."""

    blocks: tuple[Claim, ...]
    recovery: str
    """The recovery that it answers; "" if none is under way."""

    @classmethod
    def of(cls, note: Any) -> Self | None:
        """Of an entry's note; None if it has none. Of malformed ones what is sound is taken."""
        match note:
            case {"claims": list() | tuple() as blocks}:
                recovery = note.get("recovery", "")
                found = (_claim(each) for each in blocks[:CLAIMS_MAX])
                return cls(
                    tuple(each for each in found if each is not None),
                    recovery if isinstance(recovery, str) else "",
                )
            case _:
                return None


def returned_of(note: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The blocks, pool and first address, that a zone has handed back, of an entry's note."""
    match note.get("returned"):
        case list() | tuple() as returned:
            pairs = [each for each in returned[:CLAIMS_MAX] if isinstance(each, list | tuple)]
            return [
                (pool, first)
                for pool, first in (each for each in pairs if len(each) == 2)
                if isinstance(pool, str) and isinstance(first, int)
            ]
        case _:
            return []


def _claim(value: Any) -> Claim | None:
    match value:
        case [str(pool), int(first), int(size), int(granted_ms)] if (
            0 <= first < 1 << 32
            and 0 < size <= BLOCK_ADDRESSES_MAX
            and 0 <= granted_ms <= TIME_MS_MAX
        ):
            return Claim(pool, first, size, granted_ms)
        case _:
            return None
