"""What global has merged of a zone's stream, and whether it can read on from there."""

from __future__ import annotations

from collections.abc import Sequence

from zonemesh.errors import WireError
from zonemesh.log.follower import Follower
from zonemesh.log.port import Log, SnapshotInfo
from zonemesh.model import Cursor, Position
from zonemesh.seen import Seen
from zonemesh.travel import up_log
from zonemesh.wire import NO_HASH, Entry, Place, decode


class Merged:
    """By the copy of global's log as it was read last."""

    def __init__(self, zone: str, stream: Log, follower: Follower) -> None:
        self._zone = zone
        self._stream = stream
        self._global = follower

    @property
    def to(self) -> Cursor | None:
        """Which entry of the stream global has merged last, as far as is known here."""
        return self._global.newest.cursors.get(up_log(self._zone))

    async def readable_from(self, cursor: Cursor, place: Place) -> bool:
        """Whether the stream goes on where global stands, or from a snapshot beyond that.

        Global looks for the very entry that it has merged last: with it, it checks the next.
        """
        if cursor.incarnation == place.incarnation:
            for raw in await self._stream.read(cursor.position.before(), count=1):
                sealed, _ = decode(raw.data, NO_HASH)
                if raw.position == cursor.position and self._h() in (b"", sealed.h):
                    return await self._continues(cursor.position, sealed.h, place)
        for info in await self._stream.snapshots():
            beyond = cursor.incarnation != info.incarnation or cursor.position < info.position
            if beyond and info.incarnation == place.incarnation:
                return await self._continues(info.position, info.h, place)
        return False

    def _h(self) -> bytes:
        """Hash of the entry that global has merged last, b"" if it does not say."""
        seen = Seen.of(self._global.newest, self._zone)
        return b"" if seen is None else seen.h

    async def _continues(self, start: Position, h: bytes, place: Place) -> bool:
        """Whether the stream's next entry, if there is one, follows a place."""
        for raw in await self._stream.read(start, count=1):
            try:
                sealed, chained = decode(raw.data, h)
            except WireError:
                return False
            return chained and sealed.entry.previous == start
        return start == place.position

    def overtaken(self, incarnation: str, end: Position) -> bool:
        """Whether global has read more of this stream than there is: its store went back in time.

        A cursor of another incarnation is no such sign: global comes to this one by its snapshot.
        """
        cursor = self.to
        return cursor is not None and cursor.incarnation == incarnation and cursor.position > end

    async def has_snapshot(self, newest: Entry, base: Position) -> bool:
        """Whether the snapshot that the content begins with was published, or is not needed."""
        cursor = self.to
        if cursor is not None and cursor.incarnation == newest.incarnation and cursor[1] >= base:
            return True
        infos: Sequence[SnapshotInfo] = await self._stream.snapshots()
        return any(
            info.incarnation == newest.incarnation and info.position >= base for info in infos
        )
