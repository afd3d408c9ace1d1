"""Copying a zone's own log up to global: the zone's stream, written by the zone's leader.

Where the copy stands is stored in one place only, the `src` of the stream's newest entry, and is
read from there at each start: nothing can be copied twice or left out by a crash in between.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from zonecp.merged import Merged
from zonecp.ownership import Ownership, newest_entry
from zonecp.past import Past
from zonecp.state import ZoneState
from zonemesh.errors import (
    ForeignLogError,
    RefusedError,
    UnavailableError,
)
from zonemesh.formats import Formats
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log import snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.follower import Follower
from zonemesh.log.history import History, replay
from zonemesh.log.port import Head, Log, Store
from zonemesh.log.tail import Tail
from zonemesh.log.writer import cursors_note
from zonemesh.model import START, Change, Cursor, Position
from zonemesh.registry import Frozen
from zonemesh.runtime.supervise import Backoff
from zonemesh.settings import GLOBAL_KEY, SETTINGS
from zonemesh.travel import GLOBAL_LOG, goes_up, held_back, up_log
from zonemesh.wire import NO_HASH, UP_ENTRY_BYTES_MAX, Entry, Place, Sealed, decode

_CHANGES_BYTES = 180 << 10
"""Own entries are put together into one up entry to this size; a single one always fits."""
_REOPEN_S = 0.2
STREAM_BYTES_MAX = 64 << 20
"""What the stream may take in Redis while global reads none of it: half a quota of global's. Beyond
it the zone's snapshot says the same in less."""
_SIZE_EVERY_BEATS = 30
_ANEW_CALM_S = 60.0
"""After so long without having begun anew, the next time is not put off."""
_ANNOUNCE_BEATS = 5
"""Whoever loses global's Redis loses the set of its zones as well, and global reads no other."""
_WAITED_BEATS = 3
"""Heartbeats for which global stands still before it is asked whether it can read on at all."""
COPIED_H = "own_h"
"""Note of an up entry: the hash, in hex, of the own entry that its `src` names."""

log = structlog.get_logger()


class Uplink:
    """Writes one zone's up stream. One instance per leadership of the zone."""

    def __init__(
        self,
        store: Store,
        state: ZoneState,
        own: Log,
        tail: Tail,
        follower: Follower,
        *,
        uid: str,
        ownership: Ownership,
        writer: str,
        clock: Clock,
        heartbeat_s: float,
        describe: Callable[[], dict[str, Any]],
        answers: Callable[[], Awaitable[dict[str, Any]]],
        formats: Formats,
        adopted_anew: bool = False,
        stream_bytes_max: int = STREAM_BYTES_MAX,
    ) -> None:
        """`follower` has read global's log, `describe` gives what heartbeats say about
        this control plane (url, version, lag), `answers` what global is to be told but once.

        `adopted_anew`: the own log was older than the stream, and has taken over what it lacked.
        """
        self._store = store
        self._state = state
        self._own = own
        self._tail = tail
        self._global = follower
        self._answers = answers
        self._formats = formats
        self._sent = Tail()
        """What this stream holds, to put back where its store has lost the newest of it."""
        self._uid = uid
        self._ownership = ownership
        self._writer = writer
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._describe = describe
        self._log = store.log(up_log(state.zone))
        self._merged = Merged(state.zone, self._log, follower)
        self._past = Past(state, own, follower, clock=clock, adopted_anew=adopted_anew)
        self._base = START
        self._term = 0
        """The highest that was tried: one that a store has lost is not used again."""
        self._followed: Cursor | None = None
        """Where global stood at the last heartbeat."""
        self._waited = 0
        """Heartbeats in a row for which it has stood there, with more to read."""
        self._begin_anew = False
        self._backoff = Backoff(base_s=0.2, max_s=5.0)
        """Between beginning anew and again: a zone of which too much is cut is not to add to it.
        Heartbeats wait with it, so that it is well below what makes a zone offline."""
        self._rng = random.Random(state.zone)  # zones that begin anew together part again
        self._begun = 0
        self._begun_s = float("-inf")
        self._stream_bytes_max = stream_bytes_max
        self._beats = 0
        self._copied: Place | None = None
        """How far the own log has been copied; its hash is empty if that is not known."""
        self.opened = asyncio.Event()
        """Set once the own log has proven to hold all that was published."""
        self.refused: str | None = None
        """Why the stream takes nothing since the last entry; None while it does."""
        self.entries = 0
        self.bytes = 0
        self.full_syncs = 0

    async def run(self) -> None:
        """Copy for ever.

        Raises:
            UnavailableError: The store does not answer; run again, nothing is lost.
            ConfigError: Another control plane claims this zone and is alive.
            StaleLogError: The own log lacks what this zone has published: an old backup, or it
                is not the log that the stream was copied from.
        """
        while True:
            try:
                await self._copy_on(await self._open())
            except RefusedError as error:
                # The stream has gone another way than it was opened. That is global's Redis's
                # affair: the zone's own log, and who leads it, have nothing to do with it.
                if self.refused is None:
                    log.warning("uplink_refused", zone=self._state.zone, error=str(error))
                self.refused = str(error)
                await asyncio.sleep(_REOPEN_S * self._rng.uniform(0.5, 1.5))

    async def claim(self) -> None:
        """Make sure that nobody else runs this zone, before anything of it is taken over.

        Raises:
            UnavailableError: The store does not answer.
            ConfigError: As `run`.
        """
        head = await self._log.head()
        if head is not None and head.owner != self._uid:
            await self._ownership.contend(self._uid, head, stranger=self._is_stranger())
            await self._ownership.seize(self._uid, self._next_term(head))

    async def _copy_on(self, appender: Appender) -> None:
        self.opened.set()
        beat_s = self._clock.mono_s()  # the first entry says what is held
        while True:
            begun_s = self._clock.mono_s()
            due = begun_s >= beat_s
            # Before the news: they may take their time, and an entry says what was held when it was
            # made.
            answers = await self._answers() if due else {}
            entries = await self._news()
            changes, last = self._exported(entries)
            if last is not None:
                self._copied = last
            if changes or due:
                note = {**self._note(), **answers} if due else {}
                appender.format = self._formats.followed(appender.format)
                sealed = await appender.commit(
                    src=self._src(), note={**note, **self._marks()}, changes=changes
                )
                self._count(sealed)
                if due:
                    beat_s = begun_s + self._heartbeat_s
                    await self._check_followed(appender.place)
            if not entries:
                await self._tail.wait(max(0.0, beat_s - self._clock.mono_s()))

    def _exported(self, entries: Sequence[Sealed]) -> tuple[list[Change], Place | None]:
        """The net changes of as many own entries as fit into one up entry."""
        net: dict[tuple[str, str], bytes | None] = {}
        last: Place | None = None
        size = 0
        for sealed in entries:
            wanted = [
                change
                for change in sealed.entry.changes
                if goes_up(change.kind, change.key, self._state.zone)
            ]
            adding = sum(change.size for change in wanted)
            if net and size + adding > _CHANGES_BYTES:
                break
            size += adding
            for kind, key, payload in wanted:
                net[kind, key] = None if held_back(kind, payload) else payload
            last = sealed.place
        return [Change(kind, key, payload) for (kind, key), payload in net.items()], last

    def _is_stranger(self) -> bool:
        note = self._state.note
        return note is not None and note.alone

    async def _news(self) -> Sequence[Sealed]:
        assert self._copied is not None
        entries = self._tail.after(self._copied.cursor)
        if entries is not None:
            return entries
        found: list[Sealed] = []
        previous_h = NO_HASH
        for raw in await self._own.read(self._copied.position):
            sealed, _ = decode(raw.data, previous_h)
            if not found and sealed.entry.previous != self._copied.position:
                raise RefusedError("own log is trimmed beyond what was copied")
            found.append(sealed)
            previous_h = sealed.h
        return found

    def _src(self) -> dict[str, Cursor]:
        assert self._copied is not None
        return {self._own.name: self._copied.cursor}

    def _marks(self) -> dict[str, Any]:
        """In every entry, for whoever reads only the newest: where the stream's content begins,
        how far this zone has followed global, whose log may be lost, and which ranges it knows of.
        """
        marks = {"base": list(self._base), "applied": self._applied(), **self._hash()}
        ranges = self._state.settings.unusual_ranges()
        return {**marks, "ranges": ranges} if ranges else marks

    def _hash(self) -> dict[str, str]:
        """Of the own entry that `src` names: positions alone do not tell two of a term apart."""
        assert self._copied is not None
        return {COPIED_H: self._copied.h.hex()} if self._copied.h else {}

    def _applied(self) -> dict[str, Any]:
        copy = self._global.newest
        return cursors_note({GLOBAL_LOG: copy.cursor}) if copy.incarnation else {}

    def _note(self) -> dict[str, Any]:
        return {
            **self._describe(),
            "uid": self._uid,
            "hash": self._state.registry.digest,
            "applied": self._applied(),
            "formats": list(self._formats.readable),
            **({"unbridged": True} if self._global.unbridged else {}),
        }

    def _count(self, sealed: Sealed) -> None:
        if self.refused is not None:
            log.info("uplink_goes_on", zone=self._state.zone, position=str(sealed.entry.position))
            self.refused = None
        self._sent.push(sealed)
        self.entries += 1
        self.bytes += len(sealed.data)

    async def _check_followed(self, place: Place) -> None:
        """Look, with each heartbeat, whether global can read what it has not read yet.

        Raises:
            RefusedError: It cannot; the stream must be opened again.
        """
        if self._merged.overtaken(place.incarnation, place.position):
            raise RefusedError("this stream has lost entries that global has read")
        self._beats += 1
        if self._beats % _ANNOUNCE_BEATS == 0:
            await self._store.announce(self._state.zone)
        cursor = self._merged.to
        waits = cursor is not None and cursor == self._followed and cursor.position < place.position
        self._followed = cursor
        self._waited = self._waited + 1 if waits else 0
        await self._check_size(place, cursor)
        # Not at once: the copy of global's log may be what is behind.
        if cursor is not None and self._waited >= _WAITED_BEATS:
            self._waited = 0
            if not await self._merged.readable_from(cursor, place):
                self._begin_anew = True
                raise RefusedError(f"global cannot read on from {cursor}")

    async def _check_size(self, place: Place, cursor: Cursor | None) -> None:
        """Shorten a stream that global does not read, and therefore does not trim either.

        Raises:
            RefusedError: The stream must be opened again, with a snapshot instead of its entries.
        """
        stands = cursor is None or self._waited > 0 or cursor.incarnation != place.incarnation
        if self._beats % _SIZE_EVERY_BEATS or not stands:
            return
        try:
            sizes = await self._store.sizes([self._log.name])
        except UnavailableError as error:
            log.info("stream_not_measured", zone=self._state.zone, error=str(error))
            return
        if sizes[self._log.name] > self._stream_bytes_max:
            self._begin_anew = True
            raise RefusedError(
                f"the stream takes over {self._stream_bytes_max} bytes, and global does not read it"
            )

    # Opening

    async def compare(self) -> None:
        """Look whether the own log holds what was published of it, before anybody is answered.

        Raises:
            UnavailableError: The store does not answer.
            StaleLogError: It does not: an old backup.
        """
        head = await self._log.head()
        newest = None if head is None else await newest_entry(self._log, head)
        if head is not None and newest is not None and head.owner == self._uid:
            copied = copied_to(newest, self._own.name)
            if copied is not None:
                await self._past.lacks(copied, "has been published")
        await self._past.check_merged()

    async def _open(self) -> Appender:
        await self._store.announce(self._state.zone)
        await self._put_back()
        head = await self._log.head()
        if head is None:
            return await self._create(None)
        if head.owner != self._uid:
            await self._meet_owner(head)
            head = await self._log.head() or head
        await self._check_leads()
        newest = await newest_entry(self._log, head)
        if newest is None:
            return await self._create(head)  # its entries are gone: nothing follows that head
        if head.owner == self._uid:
            await self._ownership.check_twin(self._uid, head, newest, self._written_in(head))
        self._term = term = self._next_term(head)
        appender = Appender(
            self._log,
            writer=self._writer,
            clock=self._clock,
            place=head.place,
            log_time_ms=newest.log_time_ms,
            bytes_max=UP_ENTRY_BYTES_MAX,
            version=head.format,
        )
        brings = bool(self._state.legacy_claims())  # they travel in a snapshot
        anew = self._begin_anew or brings
        intact = not (anew or self._merged.overtaken(head.incarnation, head.position))
        resume = await self._resumable(newest) if intact else None
        if resume is None:
            await self._publish(lambda src, note: self._opened(appender, term, src, note))
            return appender
        self._copied = resume
        await self._opened(appender, term, self._src(), {**self._note(), **self._marks()})
        log.info("uplink_resumed", zone=self._state.zone, copied=str(resume.cursor), term=term)
        return appender

    def _next_term(self, head: Head | None) -> int:
        """Above every one that is known."""
        known = [self._term]
        known += [place.position.term for place in (head, self._merged.to) if place is not None]
        return max(known) + 1

    def _written_in(self, head: Head) -> Position | None:
        """The last entry that this process has written into the log of a head."""
        last = None if self._sent.newest is None else self._sent.newest.entry
        return None if last is None or last.incarnation != head.incarnation else last.position

    async def _meet_owner(self, head: Head) -> None:
        """The stream is of another UID: that was here first, has come since, or is back in time.

        Raises:
            ConfigError: It lives.
            ForeignLogError: It does not, and what it has published must be adopted first.
        """
        if self._sent.newest is None:
            await self._ownership.contend(self._uid, head, stranger=self._is_stranger())
            raise ForeignLogError(
                f"the stream of zone {self._state.zone} is of UID {head.owner}, not of this log",
                term=0,
            )
        written = self._written_in(head)
        if written is not None and head.position > written:
            raise self._ownership.overtaken(self._uid, head.owner)
        await self._ownership.contend(self._uid, head, stranger=self._is_stranger())

    async def _check_leads(self) -> None:
        """Make sure, after the stream's head was read, that this is still the zone's leader.

        One that was paused could publish a state that is older than what its successor has: what
        the successor publishes from here on moves the head, and this one's next append is refused.

        Raises:
            RefusedError: The own log has gone on without this process, or is gone.
        """
        registry = self._state.registry
        head = await self._own.head()
        if (
            head is None
            or head.incarnation != registry.incarnation
            or head.position.term > registry.position.term
        ):
            raise RefusedError("the zone's own log is led by another control plane")

    async def _put_back(self) -> None:
        """Give the stream back what its store has lost of what this process has written."""
        head, newest = await self._log.head(), self._sent.newest
        if head is None:
            await self._log.repair(newest, owner=self._uid)
        elif head.owner == self._uid:
            with suppress(RefusedError):  # it has gone another way
                await replay(self._log, History(self._sent), head)

    async def _opened(
        self, appender: Appender, term: int, src: dict[str, Cursor], note: dict[str, Any]
    ) -> Sealed:
        sealed = await appender.open(term, owner=self._uid, src=src, note=note)
        self._count(sealed)
        return sealed

    async def _create(self, replacing: Head | None) -> Appender:
        appender = Appender(
            self._log, writer=self._writer, clock=self._clock, bytes_max=UP_ENTRY_BYTES_MAX
        )
        self._term = term = self._next_term(replacing)

        async def create(src: dict[str, Cursor], note: dict[str, Any]) -> Sealed:
            sealed = await appender.create(
                secrets.token_hex(8),
                term=term,
                owner=self._uid,
                replacing=replacing,
                src=src,
                note=note,
            )
            self._count(sealed)
            return sealed

        await self._publish(create)
        return appender

    async def _publish(self, append: Callable[..., Any]) -> None:
        """Begin the stream's content anew: an entry that says so, then its snapshot.

        Raises:
            StaleLogError: The own log lacks what global has merged of it: an old backup.
        """
        await self._past.check_merged()
        await self._calm_down()
        frozen, self._copied = self._state.registry.freeze(), self._state.registry.place
        sealed: Sealed = await append(self._src(), {**self._note(), **self._hash(), "full": True})
        self._base = sealed.entry.position
        zone = self._state.zone
        tables = {
            kind: {
                key: payload
                for key, payload in table.items()
                if goes_up(kind, key, zone) and not held_back(kind, payload)
            }
            for kind, table in frozen.tables.items()
        }
        if claims := self._state.legacy_claims():
            tables[LEGACY_VIP] = claims
        settings = self._state.registry.get(SETTINGS, GLOBAL_KEY)
        if settings is not None:
            tables[SETTINGS] = {GLOBAL_KEY: settings}
        await snapshotter.write(self._log, Frozen(meta=_meta(sealed, zone), tables=tables))
        self._begin_anew = False
        # Nobody needs them any more, and global may not be there to say so.
        await self._log.trim(self._base)
        self.full_syncs += 1
        log.info("uplink_snapshot_published", zone=zone, position=str(sealed.entry.position))

    async def _calm_down(self) -> None:
        """Wait the longer the more often the stream has begun anew lately."""
        now_s = self._clock.mono_s()
        if now_s - self._begun_s > _ANEW_CALM_S:
            self._begun = 0
        elif self._begun > 0:
            await asyncio.sleep(self._backoff.delay_s(self._begun - 1, self._rng))
        self._begun += 1
        self._begun_s = now_s

    async def _resumable(self, newest: Entry) -> Place | None:
        """Where copying goes on; None if the stream must begin anew from a snapshot."""
        copied = copied_to(newest, self._own.name)
        registry = self._state.registry
        if copied is None:
            return None
        if copied.incarnation != registry.incarnation:
            self._past.check_continued(copied.cursor)
            return None
        if await self._past.lacks(copied, "has been published"):
            return None
        base = newest.position if newest.note.get("full") else newest.note.get("base")
        if base is None or not await self._merged.has_snapshot(newest, Position(*base)):
            return None
        self._base = Position(*base)
        position = copied.position
        if position == registry.position or self._tail.after(copied.cursor) is not None:
            return copied
        first = await self._own.read(position, count=1)
        if not first:
            return None
        sealed, _ = decode(first[0].data, NO_HASH)
        return copied if sealed.entry.previous == position else None


def copied_to(newest: Entry, own: str) -> Place | None:
    """Up to which place of a zone's own log its stream leads, by the newest entry.

    The hash is empty if the entry does not say it.
    """
    src = newest.src.get(own)
    if src is None:
        return None
    told = newest.note.get(COPIED_H)
    try:
        return Place(*src, bytes.fromhex(told) if isinstance(told, str) else b"")
    except ValueError:
        return Place(*src, b"")


def _meta(sealed: Sealed, zone: str) -> dict[str, Any]:
    entry = sealed.entry
    return {
        "zone": zone,
        "incarnation": entry.incarnation,
        "position": list(entry.position),
        "h": sealed.h,
        "log_time_ms": entry.log_time_ms,
        "time_ms": entry.time_ms,
        "format": sealed.format,
        "cursors": {},
    }
