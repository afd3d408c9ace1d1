"""A zone's own log as one control plane holds it: followed, kept in memory and on disk, put back.

Nobody else writes a file. In a Redis the log may be another's to write, and may be lost: then those
who hold it give it back (`log.restore`). A history that lacks what was published is noticed by the
leader (`uplink`), which adopts the rest; until that can have been, nothing is shown of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from zonecp.ownership import newest_entry
from zonecp.state import ZoneState
from zonemesh.errors import DamagedFileError, NewerFormatError, UnavailableError
from zonemesh.log import follower
from zonemesh.log.clock import Clock
from zonemesh.log.copykeeper import CopyKeeper, CopyLog
from zonemesh.log.follower import Follower
from zonemesh.log.history import History
from zonemesh.log.port import Log, Store
from zonemesh.log.presence import Presence
from zonemesh.log.restore import Restorer
from zonemesh.log.tail import Tail
from zonemesh.model import Change, Cursor
from zonemesh.runtime.supervise import Component
from zonemesh.settings import zone_key
from zonemesh.travel import ZONE_STATE, up_log
from zonemesh.wire import Sealed

SETTLE_S = 5.0
"""After the own log has lost entries: a leader's taking over, and its first look at the stream."""
LAG_MAX_S = 5.0
"""A replica that has not heard of its zone's log for longer is not ready: others know more."""


class OwnLog:
    """The log, the state of it in `state.registry`, and how far that is to be trusted."""

    def __init__(
        self,
        target: Log,
        state: ZoneState,
        *,
        presence: Presence | None,
        disk: CopyLog | None,
        store: Store | None,
        writer: str,
        clock: Clock,
        on_entries: Callable[[Sequence[Sealed]], None],
        on_replaced: Callable[[], None],
        formats: Collection[int],
    ) -> None:
        """`presence`: of others that may write the log; `disk` holds a copy of it then. `store` is
        global's, None for a zone alone. `formats` are those that are read.
        """
        self.log = target
        self.tail = Tail()
        self.presence = presence
        self._state = state
        self._store = store
        self._clock = clock
        self._on_replaced = on_replaced
        self._keeper = None if disk is None else CopyKeeper(disk, state.registry, formats=formats)
        self._formats = formats
        self._read = False
        self._settled_s = 0.0
        self.follower = Follower(
            target,
            state.registry,
            clock=clock,
            on_entries=on_entries,
            on_replaced=self._replaced,
            formats=formats,
            healer=None if presence is None else self._restorer(presence, writer),
        )

    def _restorer(self, presence: Presence, writer: str) -> Restorer:
        return Restorer(
            self.log,
            self._state.registry,
            History(self.tail, self._keeper),
            presence,
            writer=writer,
            clock=self._clock,
            known_term=self.known_term,
            first_changes=self._continued,
            founded=self._restored,
        )

    async def load(self) -> None:
        """Take up the log where the copy on disk ends; where it is a file itself, where that ends.

        Raises:
            DamagedFileError: The file cannot be read, or what is in it does not lead to its end.
        """
        if self._keeper is not None:
            self._read = await self._keeper.load()
        elif self.presence is None:
            await self._load_file()

    async def _load_file(self) -> None:
        head = await self.log.head()
        if head is None:
            return
        try:
            found = await follower.load(self.log, self._state.registry, head, self._formats)
        except NewerFormatError:
            return  # whoever follows it says so
        if found is None:
            why = f"neither its beginning nor a snapshot leads to {head.position}"
            raise DamagedFileError([f"log {self.log.name}: {why}"])
        self._read = True

    async def flush(self) -> None:
        """Write what the copy on disk lacks yet."""
        if self._keeper is not None:
            await self._keeper.flush()

    def components(self) -> Mapping[str, Component]:
        return {} if self._keeper is None else {"own_copy": self._keeper.run}

    def applied(self, entries: Sequence[Sealed], *, led: bool) -> None:
        """Told of what was applied; `led`: this process has led, so that it has read everything."""
        self._read = self._read or led or self.follower.current
        for sealed in entries:
            self.tail.push(sealed)
        if self._keeper is not None:
            self._keeper.applied(entries)

    def incomplete(self) -> str | None:
        """Why nothing may be shown of it, or None."""
        if not self._read:
            return "the zone's own log has not been read yet"
        if self._clock.mono_s() < self._settled_s:
            return "the zone's own log has lost entries, and it is seen which of them are published"
        return None

    def behind(self) -> str | None:
        """Why others should be asked instead, though what is here is sound; None if not."""
        if self.follower.halted is not None:
            return f"stopped following the zone's own log: {self.follower.halted}"
        lag_s = self.follower.lag_s
        if lag_s is None or lag_s > LAG_MAX_S:
            since = "" if lag_s is None else f" for {lag_s:.1f} s"
            return f"has heard nothing of the zone's own log{since}"
        return None

    async def known_term(self) -> int:
        """The highest term of the log that is known elsewhere: by what was published of it."""
        if self._store is None:
            return 0
        up = self._store.log(up_log(self._state.zone))
        try:
            head = await up.head()
            newest = None if head is None else await newest_entry(up, head)
        except UnavailableError:
            return 0
        src = None if newest is None else newest.src.get(self.log.name)
        return 0 if src is None else src.position.term

    def _continued(self, first: Cursor) -> Sequence[Change]:
        """What a log that is founded again begins with: how much of the lost one it holds."""
        del first
        note = self._state.note
        if note is None:
            return ()
        note = replace(note, continues=str(self._state.registry.cursor))
        return [Change(ZONE_STATE, zone_key(self._state.zone), note.pack())]

    def _replaced(self) -> None:
        if self._read:
            # Another history may lack what was published. Whoever leads finds that out, and adopts
            # it; until then names that exist would be taken away.
            self._settled_s = self._clock.mono_s() + SETTLE_S
        self._restored()

    def _restored(self) -> None:
        self._read = True
        if self._keeper is not None:
            self._keeper.replaced()
        self._on_replaced()
