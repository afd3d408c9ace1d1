"""The feed of the VIP map: snapshots, deltas with resume, heartbeats, the blocking query.

One delta is encoded once and shared by every subscriber of its mesh. A subscriber is a place in the
mesh's ring of deltas; one that falls out of the ring gets a snapshot, which is encoded once per
revision and shared as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import (
    AsyncGenerator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import msgspec

from zonecp import sse
from zonecp.admission import Admission
from zonecp.revision import Revision
from zonecp.trimming import View, Viewer
from zonemesh.errors import InputError, UnavailableError
from zonemesh.legacymap import Named
from zonemesh.model import ServiceRef
from zonemesh.reach import Reach
from zonemesh.vipmap import TTL_S, Delta, VipMap

RING_BYTES_MAX = 3 << 20
"""Per mesh: some 10,000 changes. Whoever was away for longer gets a snapshot."""
PART_SERVICES = 1_000
"""Services brought up to date at once with the change that moved them, about 50 ms."""
TURN_SERVICES = 100
"""More than that are brought up to date by so many in one turn: a write needs several turns."""
DELTA_NAMES_MAX = 4_000
"""A change of more names or services than this is sent as a snapshot: that is made in parts."""
REPLAYED_SHARE_MAX = 8
"""A snapshot is sent on while what has changed since is no more than this part of it: a herd of
agents shares one, though the map goes on changing."""
WAITING = b": waiting for a turn\n"
"""A comment, which readers skip and which tells them that they are not forgotten."""
BEHIND_WAIT_S = 5.0
"""How long a subscriber whose revision is ahead of this control plane waits for it to catch up."""

EARLY_S = 0.5
"""A heartbeat comes early where the map is younger by this than its reader reckons: what it tells
of an age is otherwise too old by all that the map has got younger since the last one.
"""

_encode = msgspec.json.encode


class _Shared(NamedTuple):
    """A snapshot that is being made, or is made."""

    revision: Revision
    made: asyncio.Task[Sequence[bytes]]

    @property
    def failed(self) -> bool:
        return self.made.done() and (self.made.cancelled() or self.made.exception() is not None)

    @property
    def size(self) -> float:
        return sum(map(len, self.made.result())) if self.made.done() else inf


class Event(NamedTuple):
    """One delta in the ring: encoded with and without outbounds."""

    revision: Revision
    full: bytes | None
    """None: nobody followed outbounds when this happened; who does later starts from a snapshot."""
    names_only: bytes

    def data(self, *, outbounds: bool) -> bytes | None:
        return self.full if outbounds else self.names_only

    @property
    def size(self) -> int:
        return len(self.full or b"") + len(self.names_only)


@dataclass(slots=True)
class _Mesh:
    ring: deque[Event] = field(default_factory=deque)
    ring_bytes: int = 0
    dropped: int = 0
    """Events that have left the ring: an event's number is its index plus this."""
    floor: Revision | None = None
    """The revision before the first event that can be resumed from; None: before any event."""
    resumable: int = 0
    """The number of that event."""
    last: Revision | None = None
    """The revision of the last event."""
    names_at: Revision | None = None
    """The revision of the last event that changed a name."""
    snapshots: dict[bool, _Shared] = field(default_factory=dict)
    """With outbounds, and without."""
    digest: str = ""
    """The hash of the map as it was last published."""
    subscribers: int = 0
    outbound_subscribers: int = 0

    def restart(self, revision: Revision) -> None:
        """Let everyone begin again with a snapshot at a revision: a delta would be as large."""
        self.dropped += len(self.ring) + 1
        self.ring.clear()
        self.ring_bytes = 0
        self.floor = self.last = self.names_at = revision
        self.resumable = self.dropped


class Feed:
    """Publishes a zone's map. Everything here is per process and rebuilt after a restart."""

    def __init__(
        self,
        vipmap: VipMap,
        revision: Callable[[], Revision],
        *,
        uid: Callable[[], str],
        lag_s: Callable[[], float],
        ready: Callable[[], str | None],
        behind: Callable[[Revision], bool] = lambda _: False,
        ring_bytes_max: int = RING_BYTES_MAX,
        admission: Admission | None = None,
    ) -> None:
        """`ready` says why nothing may be answered yet, or None; `behind`, whether a revision is
        beyond what is shown though their places cannot be compared.
        """
        self.admission = admission or Admission()
        self._vipmap = vipmap
        self._revision = revision
        self._uid = uid
        self._lag_s = lag_s
        self.ready = ready
        self._behind = behind
        self._ring_bytes_max = ring_bytes_max
        self._meshes: dict[str, _Mesh] = {}
        self._news = asyncio.Event()
        self._dated: tuple[asyncio.Event | None, float] = None, 0.0
        self._much = asyncio.Event()
        self._deltas: defaultdict[str, Delta] = defaultdict(Delta)
        """What was brought up to date and is not published yet."""
        self._shown = revision()
        """What the map holds all of: less than its logs where they are not to be shown yet."""
        self.begun = False
        """Whether a map has been made at all: before that, nobody may be answered."""
        self.closing = False
        self._read = False
        self._started = revision()
        """The revision from which deltas are kept."""
        self.deltas = 0
        self.cut = 0
        """Subscribers that took nothing for too long."""
        self.snapshots_built = 0

    @property
    def subscribers(self) -> int:
        return sum(mesh.subscribers for mesh in self._meshes.values())

    @property
    def catching_up(self) -> bool:
        """Whether the map is being brought up to date with so much that it is done in parts."""
        return self._much.is_set()

    def publish(self) -> None:
        """Turn what the map noted into deltas and wake everyone; call after each commit.

        A log that is loaded or resynchronised changes too much for one turn of the event loop: that
        is left to `run`, and readers stay at the revision before it until it is done.
        """
        if self.catching_up:
            return
        if self._vipmap.pending > PART_SERVICES or self._flush_part(PART_SERVICES):
            self._much.set()
        else:
            self._publish(self._take())

    async def run(self) -> None:
        """Publish what is too much for `publish`, for ever."""
        while True:
            await self._much.wait()
            while self._flush_part(TURN_SERVICES):  # noqa: ASYNC110 -- a turn
                await asyncio.sleep(0)
            self._much.clear()
            self._publish(self._take())

    def _flush_part(self, limit: int) -> bool:
        return self._vipmap.flush_part(self._deltas, limit)

    def _take(self) -> Mapping[str, Delta]:
        taken, self._deltas = self._deltas, defaultdict(Delta)
        return taken

    def _publish(self, deltas: Mapping[str, Delta]) -> None:
        self.begun = True
        revision = self._shown = self._revision()
        if self._read:
            for mesh, delta in deltas.items():
                if delta:
                    self._push(mesh, delta, revision)
        if not (self._read and self._started.comparable(revision)):
            self._begin_again(revision)
        for mesh, state in self._meshes.items():
            state.digest = self._vipmap.digest(mesh)
            if self.admission.idle:
                # Of another revision by now, and as large as the map.
                state.snapshots.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _begin(self) -> None:
        """The first reader is here: deltas are kept from now on.

        What is applied before, a log being loaded above all, is no sequence of changes that anyone
        could resume: the names that it lacks are not in it as removals.
        """
        if not self._read:
            self._read = True
            self._vipmap.flush()
            self._started = self._shown = self._revision()

    def _begin_again(self, revision: Revision) -> None:
        """Nobody can resume from before this: it is of another incarnation, or nobody has read.

        Those who read right now go on, since what was pushed for them is in their sequence.
        """
        self._started = revision
        for state in self._meshes.values():
            if state.floor is not None:
                state.floor, state.resumable = revision, state.dropped + len(state.ring)

    def _push(self, mesh: str, delta: Delta, revision: Revision) -> None:
        state = self._mesh(mesh)
        if max(len(delta.put) + len(delta.removed), len(delta.services)) > DELTA_NAMES_MAX:
            state.restart(revision)
            return
        if state.floor is None:
            state.floor = state.names_at = self._started
        # `from` is where the event before left its reader, who may know more by a heartbeat since,
        # or began with a later snapshot. Nothing of this mesh has changed in between.
        before = state.last or state.floor
        state.last = revision
        body = {
            "from": str(before),
            "to": str(revision),
            "put": [self._vipmap.record_json(name, named) for name, named in delta.put.items()],
            "remove": sorted(delta.removed),
        }
        names_only = b""
        names_before = state.names_at
        if delta.put or delta.removed:
            names_only = sse.event(
                "delta", revision, [_encode({**body, "from": str(names_before)})]
            )
            state.names_at = revision
        full: bytes | None = None
        if not delta.services:
            same = names_before == before
            full = names_only if same else sse.event("delta", revision, [_encode(body)])
        elif state.outbound_subscribers:
            put, gone = self._outbounds(delta.services)
            full = sse.event(
                "delta",
                revision,
                [_encode({**body, "putOutbounds": put, "removeOutbounds": gone})],
            )
        event = Event(revision, full, names_only)
        self.deltas += 1
        state.ring.append(event)
        state.ring_bytes += event.size
        while state.ring_bytes > self._ring_bytes_max and len(state.ring) > 1:
            old = state.ring.popleft()
            state.ring_bytes -= old.size
            state.dropped += 1
            if state.dropped > state.resumable:
                state.floor, state.resumable = old.revision, state.dropped

    def _outbounds(self, services: Iterable[ServiceRef]) -> tuple[list[Any], list[str]]:
        """Outbounds to put, and what the ids of those to remove first begin with.

        A service's outbounds are replaced as a whole: its ports may have changed.
        """
        put: list[Any] = []
        gone: list[str] = []
        for ref in sorted(services):
            gone.append(self._vipmap.outbounds.ids(ref))
            put += self._vipmap.outbounds.of(ref)
        return put, gone

    def _mesh(self, mesh: str) -> _Mesh:
        return self._meshes.setdefault(mesh, _Mesh())

    def close(self) -> None:
        """End every stream: the process stops."""
        self.closing = True
        self.admission.close()
        self._news.set()

    def _check_open(self) -> None:
        # News never end then: waiting for them again would spin without letting anyone else run.
        if self.closing:
            raise UnavailableError("this control plane is stopping")

    # Reading

    async def wait_for(self, wanted: Revision) -> None:
        """Until this control plane is not behind a revision.

        Raises:
            UnavailableError: It still is after a while.
        """
        try:
            async with asyncio.timeout(BEHIND_WAIT_S):
                while wanted.ahead_of(self._shown) or self._behind(wanted):
                    self._check_open()
                    await self._news.wait()
        except TimeoutError as error:
            raise UnavailableError("this control plane is behind the revision asked for") from error

    async def wait_beyond(self, mesh: str, known: Revision, timeout_s: float) -> bool:
        """Until the map of a mesh has changed since a revision; False if it has not in time."""
        self._begin()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._changed_since(mesh, known):
                    self._check_open()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _changed_since(self, mesh: str, known: Revision) -> bool:
        start = self._resume(mesh, known)
        return start is None or start < self._end(mesh)

    def check_room(self, mesh: str, known: Revision | None, *, trimmed: bool) -> None:
        """Whether who comes with a revision can be served without too long a wait.

        Raises:
            OverloadedError: It needs a snapshot, and too many wait for one.
        """
        self._begin()
        if trimmed or known is None or self._resume(mesh, known) is None:
            self.admission.check()

    async def events(  # noqa: C901, PLR0915 -- one subscriber's states, in one place
        self,
        mesh: str,
        known: Revision | None,
        *,
        outbounds: bool,
        heartbeat_s: float,
        reach: Viewer = lambda: None,
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """What a subscriber is to be sent, piece by piece, until the process stops.

        `reach` says what it may reach. Whoever may not reach everything begins with a snapshot:
        what it was allowed when it was here before is not known. Whoever has to wait for a snapshot
        is sent comments meanwhile.
        """
        self._begin()
        clock = asyncio.get_running_loop().time
        beat_s = clock() + heartbeat_s
        as_of_s = float("-inf")  # what whoever resumes here knows of the map's age is old
        state = self._mesh(mesh)
        state.subscribers += 1
        state.outbound_subscribers += outbounds
        try:
            allowed = reach()
            view = None if allowed is None else View(self._vipmap, allowed)
            place = None if known is None or view else self._resume(mesh, known)
            told = known
            while not self.closing:
                if (now := reach()) is not allowed:
                    allowed, place = now, None
                    view = None if allowed is None else View(self._vipmap, allowed)
                if place is None or place < state.dropped:
                    with self.admission.turn() as turn:
                        while not await turn.within(heartbeat_s):
                            yield [WAITING]
                        if turn.dismissed:
                            return
                        told, chunks = await self._snapshot(
                            mesh, outbounds=outbounds, view=view, told=told
                        )
                        yield chunks
                    if told == self._shown:  # else a heartbeat says at once how old the map is
                        as_of_s = max(as_of_s, self._as_of_s(clock()))
                    place = self._resume(mesh, told)
                    continue
                end = self._end(mesh)
                if place < end:
                    pieces = [
                        event.data(outbounds=outbounds)
                        for event in _slice(state.ring, place - state.dropped)
                    ]
                    place = None if None in pieces else end
                    if place is not None:
                        told = state.last
                        yield list(_for(view, pieces))
                    continue
                # By the clock, not by silence: most of what is news to this process is none here.
                now_s = clock()
                known_s = self._as_of_s(now_s)
                younger = known_s > as_of_s + EARLY_S and not self.catching_up
                if now_s >= beat_s or younger:
                    beat_s, as_of_s = now_s + heartbeat_s, known_s
                    told = self._shown
                    yield [self._heartbeat(mesh, view)]
                    continue
                news = self._news
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(beat_s):
                        await news.wait()
        finally:
            state.subscribers -= 1
            state.outbound_subscribers -= outbounds

    def _as_of_s(self, now_s: float) -> float:
        """When the map was as it is told; reckoned once for all readers of the same news."""
        news, as_of_s = self._dated
        if news is not self._news:
            as_of_s = now_s - self._lag_s()
            self._dated = self._news, as_of_s
        return as_of_s

    def _heartbeat(self, mesh: str, view: View | None) -> bytes:
        revision = self._shown
        digest = self._meshes[mesh].digest if self.catching_up else self._vipmap.digest(mesh)
        body = {
            "revision": str(revision),
            "lag_s": round(self._lag_s(), 3),
            "hash": "" if view else digest,
        }
        return sse.event("heartbeat", revision, [_encode(body)])

    def _end(self, mesh: str) -> int:
        state = self._mesh(mesh)
        return state.dropped + len(state.ring)

    def _resume(self, mesh: str, known: Revision) -> int | None:
        """The number of the first event that a revision does not include; None: not covered."""
        state = self._mesh(mesh)
        # What was before the floor, nobody here knows.
        floor = state.floor or self._started
        if not known.comparable(self._shown) or not floor.within(known):
            return None
        number = self._end(mesh)
        while number > state.resumable and not (
            state.ring[number - 1 - state.dropped].revision.within(known)
        ):
            number -= 1
        return number

    async def map_json(self, mesh: str, reach: Reach | None = None) -> bytes:
        """The whole map, or what one data plane may reach of it, as one JSON document."""
        self._begin()
        view = None if reach is None else View(self._vipmap, reach)
        with self.admission.turn() as turn:
            await turn.granted.wait()
            self._check_open()
            _, chunks = await self._snapshot(mesh, outbounds=True, view=view, told=self._shown)
        return b"".join(sse.undressed(chunks))

    async def _snapshot(
        self, mesh: str, *, outbounds: bool, view: View | None, told: Revision | None
    ) -> tuple[Revision, Sequence[bytes]]:
        """The map, not older than what its reader was told of."""
        state = self._mesh(mesh)
        while self.catching_up and not self.closing:
            await self._news.wait()  # half of a map is none
        if view is not None:
            revision = self._shown
            found = view.names(self._vipmap.published[mesh], str(revision))
            refs = view.outbounds(self._vipmap.addressed(mesh)) if outbounds else ()
            head = self._head(mesh, revision, view)
            return revision, await self._build(head, found, revision, refs=refs, view=view)
        shared = state.snapshots.get(outbounds)
        if shared is None or not self._recent(mesh, shared, told, outbounds=outbounds):
            revision = self._shown
            # Read now, not when the task first runs: later it would be another revision's.
            published = dict(self._vipmap.published[mesh])
            head = self._head(mesh, revision)
            refs = self._vipmap.addressed(mesh) if outbounds else ()
            build = self._build(head, published, revision, refs=refs)
            task = asyncio.ensure_future(build)
            shared = state.snapshots[outbounds] = _Shared(revision, task)
        # Shielded: one subscriber that goes away must not take it from the others.
        return shared.revision, await asyncio.shield(shared.made)

    def _recent(
        self, mesh: str, shared: _Shared, told: Revision | None, *, outbounds: bool
    ) -> bool:
        """Whether a snapshot will do for one who was told of a revision: what has come since can
        be sent after it, and is little.
        """
        if shared.failed:
            return False
        if shared.revision == self._shown:
            return True
        state, start = self._mesh(mesh), self._resume(mesh, shared.revision)
        if start is None or (told is not None and told.ahead_of(shared.revision)):
            return False
        since = [
            each.data(outbounds=outbounds) for each in _slice(state.ring, start - state.dropped)
        ]
        return None not in since and (
            sum(len(each or b"") for each in since) * REPLAYED_SHARE_MAX <= shared.size
        )

    def _head(self, mesh: str, revision: Revision, view: View | None = None) -> dict[str, Any]:
        return {
            "revision": str(revision),
            "mesh": mesh,
            "zone": self._vipmap.zone,
            "zoneUid": self._uid(),
            "domains": self._vipmap.domains,
            "ttl": TTL_S,
            "lag_s": round(self._lag_s(), 3),
            # Of the whole map: of a part it would be no use.
            "hash": "" if view else self._vipmap.digest(mesh),
        }

    async def _build(
        self,
        head: Mapping[str, Any],
        published: Mapping[str, Named],
        revision: Revision,
        *,
        refs: Sequence[ServiceRef],
        view: View | None = None,
    ) -> Sequence[bytes]:
        """A snapshot: names, and the outbounds of some services."""
        self.snapshots_built += 1
        lines = [_encode(head)[:-1] + b',"records":[']
        lines += [line async for line in sse.chunks(published.items(), self._records)]
        lines.append(b'],"outbounds":[')
        lines += [
            line async for line in sse.chunks(refs, lambda part: self._outbound_lines(part, view))
        ]
        lines.append(b"]}")
        return sse.lines_of("snapshot", revision, lines)

    def _records(self, items: Sequence[tuple[str, Named]]) -> list[Any]:
        return [self._vipmap.record_json(name, named) for name, named in items]

    def _outbound_lines(self, refs: Sequence[ServiceRef], view: View | None) -> list[Any]:
        return [
            outbound
            for ref in refs
            for outbound in self._vipmap.outbounds.of(ref)
            if view is None or view.has_port(ref, outbound["port"])
        ]


def _for(view: View | None, pieces: Iterable[bytes | None]) -> Iterator[bytes]:
    """Events as one subscriber is to have them."""
    for piece in pieces:
        found = view.event(piece) if view is not None and piece else piece
        if found:
            yield found


def _slice(ring: deque[Event], start: int) -> Iterator[Event]:
    for number in range(start, len(ring)):
        yield ring[number]


def query_revision(text: str | None) -> Revision | None:
    """A client's revision; one that cannot be read is unknown: it gets a snapshot."""
    if not text:
        return None
    try:
        return Revision.parse(text)
    except InputError:
        return None
