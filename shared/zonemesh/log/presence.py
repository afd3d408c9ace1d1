"""Who follows a log right now, what each holds of it, and which formats each can read.

Every replica says so each second, for the next five, under its writer's name. It is how the longest
history is found when a store has lost its own, and how a leader learns what all readers can read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import structlog

from zonemesh.errors import WireError
from zonemesh.log.port import Store
from zonemesh.model import SEQ_MAX, Cursor, Position
from zonemesh.wire import HASH_BYTES, Place, known

EVERY_S = 1.0
"""A replica that has said nothing for 5 s is gone (`Store.present`)."""

_TEXT_MAX = 300

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What a replica says of itself."""

    writer: str
    url: str
    place: Place
    """The newest entry that it has applied; `replica.NOWHERE` before the first."""
    formats: tuple[int, ...]
    """Of entries and snapshots that it can read."""
    unbridged: bool = False
    """It can read on only from a snapshot that is still to be made."""
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What else replicas of this log tell each other."""

    @property
    def cursor(self) -> Cursor:
        return self.place.cursor

    def pack(self) -> bytes:
        incarnation, position, h = self.place
        packed: bytes = msgpack.packb(
            {
                **self.more,
                "url": self.url,
                "applied": [incarnation, list(position), h],
                "formats": list(self.formats),
                "unbridged": self.unbridged,
            }
        )
        return packed

    @classmethod
    def unpack(cls, writer: str, payload: bytes) -> Replica:
        """Raises WireError."""
        try:
            fields = msgpack.unpackb(payload)
            incarnation, (term, seq), h = fields["applied"]
            url, formats = fields["url"], tuple(fields["formats"])
        except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
            raise WireError(f"replica {writer}: {error!r}") from error
        sound = (
            _text(incarnation)
            and _text(url)
            and all(type(n) is int and 0 <= n <= SEQ_MAX for n in (term, seq, *formats))
            and type(h) is bytes
            and len(h) == HASH_BYTES
        )
        if not sound:
            raise WireError(f"replica {writer} says what no replica would")
        place = Place(incarnation, Position(term, seq), h)
        return cls(
            writer=writer,
            url=url,
            place=place,
            formats=formats,
            unbridged=fields.get("unbridged") is True,
            more=fields,
        )


class Presence:
    """One replica's word to the others of its log."""

    def __init__(
        self,
        store: Store,
        log_name: str,
        writer: str,
        *,
        url: str,
        place: Callable[[], Place],
        unbridged: Callable[[], bool] = lambda: False,
        formats: Collection[int] | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`formats`: those that this replica reads; None for all that this build knows.
        `more`: what it says besides what it holds (`Replica.more`).
        """
        self._store = store
        self._log_name = log_name
        self._writer = writer
        self._url = url
        self._place = place
        self._unbridged = unbridged
        self._formats = known() if formats is None else tuple(formats)
        self._more = more

    async def run(self) -> None:
        """Say it for ever."""
        while True:
            await self.say()
            await asyncio.sleep(EVERY_S)

    async def say(self) -> None:
        mine = Replica(
            writer=self._writer,
            url=self._url,
            place=self._place(),
            formats=self._formats,
            unbridged=self._unbridged(),
            more=self._more(),
        )
        await self._store.present(self._log_name, self._writer, mine.pack())

    async def others(self) -> list[Replica]:
        """Every other replica that lives, by what it last said."""
        found = []
        for writer, payload in (await self._store.replicas(self._log_name)).items():
            if writer == self._writer:
                continue
            try:
                found.append(Replica.unpack(writer, payload))
            except WireError as error:
                log.warning("replica_unreadable", log=self._log_name, error=str(error))
        return found


def longest(replicas: Iterable[Replica]) -> Replica | None:
    """Who holds the longest history; of equals, the first by name.

    Terms never go back, not even with a new incarnation: positions tell the longer one.
    """

    def order(replica: Replica) -> tuple[int, int, str]:
        term, seq = replica.place.position
        return -term, -seq, replica.writer

    return min(replicas, key=order, default=None)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_MAX
