"""Whose a zone's stream is: this control plane's, another's of that name, or a copy's of this one.

A stream has one owner, the UID in its head. Who finds another there and alive is refused, unless an
operator has said that it is to take over; who finds its own UID, written by another process, runs
on a copy of somebody's data directory. Nobody is fought over a stream: one of two always ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgpack
import structlog

from zonemesh.errors import ConfigError, RefusedError, UnavailableError
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Head, Log, Store
from zonemesh.model import Position
from zonemesh.travel import CONTENDER, up_log
from zonemesh.wire import NO_HASH, UP_ENTRY_BYTES_MAX, Entry, decode

_WATCH_S = 10.0
"""How long another UID's stream is watched for signs of life before its zone is taken over."""
_LOOK_S = 0.5
_TWIN_BEATS = 2.5
"""Heartbeats after which a process that writes a stream has certainly written again."""
_SEIZE_TRIES = 20
"""Each is lost only to an entry of the one who is to go; it writes a few in a second."""

log = structlog.get_logger()


class Ownership:
    """What one process knows of its claim to its zone; outlives its terms."""

    def __init__(
        self,
        store: Store,
        zone: str,
        *,
        writer: str,
        clock: Clock,
        heartbeat_s: float,
        url: str,
        alone: bool,
        takeover: bool = False,
    ) -> None:
        """`alone`: nobody else can write this zone's own log, so that another process with its UID
        is a copy; of several control planes that share one the log itself says who leads.
        `takeover`: an operator's word that the zone is this one's, good for one time.
        """
        self._store = store
        self._zone = zone
        self._log = store.log(up_log(zone))
        self._writer = writer
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._url = url
        self._alone = alone
        self._takeover = takeover
        self._silent: Head | None = None
        """The head of another UID's stream that was watched for long enough."""

    async def contend(self, uid: str, head: Head, *, stranger: bool) -> None:
        """Another UID owns the stream: return if it is silent, or has to go.

        `stranger`: this zone was never part of a mesh, so that it has nothing to take over here.

        Raises:
            ConfigError: It lives, or is not a stranger's to take.
            UnavailableError: The store does not answer, or the stream is gone.
        """
        if self._takeover or head == self._silent:
            return
        zone, owner = self._zone, head.owner
        if stranger:
            raise ConfigError([self._namesake(uid, owner)])
        log.warning("zone_claimed_by_another", zone=zone, uid=uid, owner=owner)
        still = await self._watch(uid, head, _WATCH_S)
        if still is not None and still.owner != uid:
            self._silent = still

    async def seize(self, uid: str, term: int) -> None:
        """Take the stream over, before anything is read that its former owner could add to.

        `term`: the lowest that may be used.

        Raises:
            RefusedError: The stream is written faster than it could be taken.
        """
        for _ in range(_SEIZE_TRIES):
            head = await self._log.head()
            newest = None if head is None else await newest_entry(self._log, head)
            if head is None or newest is None or head.owner == uid:
                self._takeover = False
                return
            place = head.place
            appender = Appender(
                self._log,
                writer=self._writer,
                clock=self._clock,
                place=place,
                log_time_ms=newest.log_time_ms,
                bytes_max=UP_ENTRY_BYTES_MAX,
            )
            note = {"uid": uid, "url": self._url, "taken_from": head.owner}
            try:
                await appender.open(max(term, head.position.term + 1), owner=uid, note=note)
            except RefusedError:
                continue
            log.warning(
                "zone_taken_over", zone=self._zone, uid=uid, owner=head.owner, asked=self._takeover
            )
            self._takeover = False
            return
        raise RefusedError(f"the stream of zone {self._zone} is written faster than it is taken")

    async def check_twin(self, uid: str, head: Head, newest: Entry, last: Position | None) -> None:
        """Make sure that no copy of this process's data directory runs.

        Args:
            uid: This zone's, and the head's owner.
            head: The stream's.
            newest: The entry there.
            last: What this process has last written to this very stream, if anything.

        Raises:
            ConfigError: One runs.
        """
        if not self._alone or newest.writer == self._writer:
            return
        if last is not None and head.position > last:
            raise ConfigError([self._twin(uid, newest.note)])  # it has opened what this one wrote
        if self._takeover:
            self._takeover = False
            return
        # Most likely this very control plane's last process. Not slower than it must be: nothing
        # goes up while this waits.
        wait_s = _TWIN_BEATS * self._heartbeat_s
        age_s = (self._clock.wall_ms() - newest.time_ms) / 1000
        await self._watch(uid, head, wait_s - age_s if age_s >= 0.0 else wait_s)

    def overtaken(self, uid: str, owner: str) -> ConfigError:
        """What ends the one whose stream another UID has taken over while it ran."""
        return ConfigError(
            [
                (
                    f"zone {self._zone}: the control plane with UID {owner} has taken this zone"
                    f" over from this one ({uid}); if that was not meant, stop it and start this"
                    " one with --takeover"
                )
            ]
        )

    async def _watch(self, uid: str, head: Head, wait_s: float) -> Head | None:
        """Look whether anybody writes the stream; the head that nobody has moved for `wait_s`."""
        deadline_s = self._clock.mono_s() + wait_s
        while self._clock.mono_s() < deadline_s:
            await self._tell(uid, head.owner)
            await asyncio.sleep(min(_LOOK_S, max(0.0, deadline_s - self._clock.mono_s())))
            now = await self._log.head()
            if now is None:
                raise UnavailableError("the zone's stream has just disappeared")
            if now.owner == uid and head.owner != uid:
                return now
            if now.position < head.position:
                # Nobody's doing: the store has gone back in time. Watch what is there now.
                head, deadline_s = now, self._clock.mono_s() + wait_s
            if now.position > head.position:
                newest = await newest_entry(self._log, now)
                note = {} if newest is None else newest.note
                twin = now.owner == uid
                raise ConfigError([self._twin(uid, note) if twin else self._rival(uid, now.owner)])
        return head

    async def _tell(self, uid: str, owner: str) -> None:
        """Let global show it: a few seconds after the last word it is forgotten."""
        about = {"uid": uid, "url": self._url, "owner": owner}
        await self._store.present(up_log(self._zone), CONTENDER, msgpack.packb(about))

    def _rival(self, uid: str, owner: str) -> str:
        return (
            f"zone {self._zone}: another control plane with UID {owner} is running under this name"
            f" (this one is {uid}); stop one of them, or give one another multizone.zone.name; to"
            " have this one take the zone over, start it once with --takeover"
        )

    def _namesake(self, uid: str, owner: str) -> str:
        return (
            f"zone {self._zone}: this mesh has a zone of that name, with UID {owner} (this one is"
            f" {uid}, which stood alone so far); give this one another multizone.zone.name, or"
            " delete that zone on global and start this one once with --takeover"
        )

    def _twin(self, uid: str, note: Mapping[str, Any]) -> str:
        where = f" at {note['url']}" if isinstance(note.get("url"), str) else ""
        return (
            f"zone {self._zone}: another process with the same UID {uid} is running{where}: one of"
            " the two runs on a copy of the other's dataDir. Stop the one that is not meant; a copy"
            " that is to go on is started once with --takeover"
        )


async def newest_entry(target: Log, head: Head) -> Entry | None:
    """The entry that a head names; None if the log has lost it."""
    for raw in await target.read(head.position.before(), count=1):
        sealed, _ = decode(raw.data, NO_HASH)
        return sealed.entry
    return None
