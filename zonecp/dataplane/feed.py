"""Follows the zone's map: subscribes, applies snapshots and deltas, and never goes backwards.

Whatever is wrong with a stream ends it as `StreamEndError`; `supervise` opens the next one, at the
next zone address. The table keeps answering in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, TypeVar

import aiohttp
import msgspec
import structlog

from zonecp.dataplane import events
from zonecp.dataplane.comparison import Comparison
from zonecp.dataplane.entry import Origin, wire_entry
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.names import Names
from zonecp.dataplane.outbounds import Outbound, Outbounds
from zonecp.dataplane.revision import is_older, own_incarnation
from zonemesh import __version__
from zonemesh.errors import InputError, UnavailableError, WireError
from zonemesh.runtime.slicing import slices

T = TypeVar("T")

log = structlog.get_logger(__name__)

INSTANCE: Final = "X-Zonemesh-Instance"
"""The header that names a process of the agent to the zone."""

SLICE: Final = 128
"""Records between two turns of the loop: about 0.7 ms."""

SWEEP_SLICE: Final = 2_000
"""Keys compared between two turns: about 0.3 ms."""

CONNECT_S: Final = 2.0
RESPONSE_S: Final = 10.0
"""A zone that is behind this agent waits for up to 5 s before it says so."""

RETRY_AFTER_S_MAX: Final = 60.0
RETRY_SPREAD: Final = 1.5
"""Those who were told the same come again spread over half of that time."""

_REFUSED: Final = frozenset({"status", "malformed", "older", "drop", "other_mesh"})
"""Reasons after which a zone that is up would at once do the same again."""

DROP_NAMES_MIN: Final = 20
"""Fewer names may go at once whatever their share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    zones: tuple[str, ...]
    """Base URLs of the zone's REST, used in turn."""

    mesh: str
    dataplane: str
    instance: str = ""
    """Names this process to the zone."""

    headers: Callable[[], dict[str, str]] = dict
    """More of them, for each stream: a token."""

    domains: tuple[str, ...] = ()
    """The mesh's, whatever the zone says."""

    ttl_s: int | None = None
    """Of every name, whatever the zone says."""

    silence_s: float = 5.0
    """Heartbeats come each second; without any for so long the stream is dead."""

    drop_share_max: float = 0.5
    """A snapshot that lacks more than this share of the names is suspected (a zone that lost its
    state, half restored), since deletions come as tombstones in deltas."""

    drop_patience_s: float = 60.0
    """A zone that says the same for so long is believed."""

    refused_pause_s: float = 1.0
    """Before the next stream after one whose content was refused."""


class StreamEndError(UnavailableError):
    """Why a stream ended."""

    def __init__(self, reason: str, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        """A metric label: unreachable, silent, closed, not_ready, status, malformed, older, gap,
        drop, other_mesh, mismatch."""

        self.retry_after_s = retry_after_s


class Feed:
    """One call of `run` is one stream; a component for `supervise`."""

    def __init__(
        self,
        options: FeedOptions,
        table: Names,
        state: FeedState,
        outbounds: Outbounds | None = None,
    ) -> None:
        """`outbounds` are followed too if there is someone who wants them kept."""
        self._options = options
        self._state = state
        self._follower = Follower(options, table, state, outbounds)
        self._outbounds = "false" if outbounds is None else "true"
        self._zone = 0

    async def run(self) -> None:
        """Follow one stream to its end.

        Raises:
            StreamEndError: Always.
        """
        zone = self._options.zones[self._zone]
        try:
            with _translated(zone):
                await self._follow(zone)
        except StreamEndError as error:
            self._state.ended[error.reason] += 1
            self._zone = (self._zone + 1) % len(self._options.zones)
            refused = error.reason in _REFUSED
            pause_s = self._options.refused_pause_s if refused else error.retry_after_s
            await asyncio.sleep(pause_s * random.uniform(1.0, RETRY_SPREAD))
            raise
        finally:
            self._state.connected = False
            self._follower.stop()

    async def _follow(self, zone: str) -> None:
        url = f"{zone}/meshes/{self._options.mesh}/_vips"
        params = {
            "watch": "true",
            "dataplane": self._options.dataplane,
            "outbounds": self._outbounds,
        }
        headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"zonedp/{__version__}",
            INSTANCE: self._options.instance,
            **self._options.headers(),
        }
        if (revision := self._follower.resume()) is not None:
            headers["Last-Event-ID"] = revision
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with asyncio.timeout(RESPONSE_S):
                response = await session.get(url, params=params, headers=headers)
            async with response:
                await _check(response)
                self._state.connected = True
                log.info("feed_connected", zone_url=zone, after=revision)
                await self._read(response)
        raise StreamEndError("closed", f"{zone} closed the feed")

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        reader = events.Reader()
        async with aclosing(_lines(response.content, self._options.silence_s)) as lines:
            async for line in lines:
                for part in reader.line(line):
                    await self._follower.take(part)


class Follower:
    """Applies parts of maps to the table, a slice at a time, so that queries are answered between.

    A snapshot replaces by difference: its names are put, then those it lacks are removed.
    """

    def __init__(
        self,
        options: FeedOptions,
        table: Names,
        state: FeedState,
        outbounds: Outbounds | None = None,
    ) -> None:
        self._options = options
        self._table = table
        self._state = state
        self._outbounds = outbounds
        self._clock = asyncio.get_running_loop().time
        head = state.head
        # A map with other TTLs is served until there is a new one.
        self._resumable = head is not None and (head.mesh, head.ttl_s) == (
            options.mesh,
            options.ttl_s,
        )
        self._offered: events.Head | None = None
        self._offered_s = 0.0
        self._comparison = Comparison(table, self._clock)
        self._seen: set[bytes] = set()
        self._dropping_since_s: float | None = None

    def resume(self) -> str | None:
        """Begin a stream; the revision to resume after, None for a snapshot."""
        self._offered = None
        head = self._state.head
        if self._outbounds is not None and not self._outbounds.whole:
            return None  # a delta would not bring those that are there already
        return head.revision if head is not None and self._resumable else None

    def stop(self) -> None:
        """The stream has ended."""
        self._comparison.soon()

    async def take(self, part: events.Part) -> None:
        """Apply one part.

        Raises:
            StreamEndError: It does not follow what is held, or that is not what the zone has.
        """
        self._judge()
        match part:
            case events.Heartbeat():
                await self._beat(part)
            case events.Delta():
                await self._change(part)
            case events.SnapshotBegins():
                self._begin(part.head)
            case events.Records():
                await self._put(part.records)
            case events.OutboundPiece():
                await self._replace_outbounds((), part.outbounds)
            case events.SnapshotEnds():
                await self._end()

    async def _beat(self, heartbeat: events.Heartbeat) -> None:
        if self._state.head is None:
            return
        self._refuse_older(heartbeat.revision)
        self._state.lag_s, self._state.told_s = heartbeat.lag_s, self._clock()
        self._advance(heartbeat.revision)
        if heartbeat.hash and self._state.whole and not self._state.records_rejected:
            self._comparison.begin(heartbeat.revision, heartbeat.hash)
        if not self._state.confirmed:  # all deltas since the revision on disk came before
            self._state.confirmed = self._table.complete = True
            self._state.settled()

    def _judge(self) -> None:
        if (finding := self._comparison.finding()) is None:
            return
        agreement = self._state.agreement
        if agreement.found(equal=finding.equal, what=finding.why):
            self._resumable = False
            log.error("map_mismatch", error=finding.why, mended=True)
            raise StreamEndError("mismatch", f"{finding.why}: it is fetched anew")
        if agreement.unmended is not None:
            log.error("map_mismatch", error=finding.why, mended=False)

    async def _change(self, delta: events.Delta) -> None:
        head = self._state.head
        # A heartbeat or a snapshot may have told of a later revision than the delta before did.
        if head is None or is_older(head.revision, delta.since):
            self._resumable = False
            held = "no map" if head is None else head.revision
            raise StreamEndError("gap", f"a delta from {delta.since} came after {held}")
        self._refuse_older(delta.revision)
        # A stream that is cut in here is resumed at the revision before: a delta can be repeated.
        self._state.whole = False
        await self._put(delta.put)
        async for names in slices(delta.remove, SLICE):
            for name in names:
                self._remove(name)
        await self._replace_outbounds(delta.remove_outbounds, delta.put_outbounds)
        self._state.whole = True
        self._advance(delta.revision)
        self._state.changed.set()
        self._state.settled()
        log.debug("delta_applied", to=delta.revision, put=len(delta.put), removed=len(delta.remove))

    def _begin(self, offered: events.Head) -> None:
        if offered.mesh != self._options.mesh:
            raise StreamEndError("other_mesh", f"a map of mesh {offered.mesh}")
        self._refuse_older(offered.revision)
        self._offered, self._offered_s = offered, self._clock()
        self._comparison.soon()
        self._seen = set()
        self._resumable = False
        self._state.whole = False
        if self._outbounds is not None:
            self._outbounds.begin()

    async def _end(self) -> None:
        if (offered := self._offered) is None:
            return
        absent = await self._absent()
        self._suspect(offered, len(absent))
        async for keys in slices(absent, SLICE):
            for key in keys:
                self._table.remove(key)
        if self._outbounds is not None:
            async for ids in slices(self._outbounds.absent(), SLICE):
                self._outbounds.remove(ids)
            self._outbounds.end()
        self._adopt(offered)
        log.info("snapshot_applied", revision=offered.revision, names=len(self._table),
                 removed=len(absent), zone=offered.zone)  # fmt: skip

    async def _absent(self) -> list[bytes]:
        absent: list[bytes] = []
        async for keys in slices(self._table.keys(), SWEEP_SLICE):
            absent += [key for key in keys if key not in self._seen]
        return absent

    def _suspect(self, offered: events.Head, absent: int) -> None:
        """Refuse to drop most of the names at once, unless the zone insists or is another one."""
        head = self._state.head
        share = absent / max(len(self._table), 1)
        if (
            head is None
            or (head.mesh, head.zone_uid) != (offered.mesh, offered.zone_uid)
            or absent < DROP_NAMES_MIN
            or share <= self._options.drop_share_max
        ):
            self._dropping_since_s = None
            return
        now_s = self._clock()
        if self._dropping_since_s is None:
            self._dropping_since_s = now_s
        if now_s - self._dropping_since_s < self._options.drop_patience_s:
            message = f"a snapshot lacks {absent} of {len(self._table)} names; they are kept"
            raise StreamEndError("drop", message)
        self._dropping_since_s = None

    def _adopt(self, offered: events.Head) -> None:
        before = self._state.head
        self._offered = None
        self._seen = set()
        self._resumable = True
        self._comparison.soon()
        self._table.set_domains((*self._options.domains, *offered.domains))
        self._table.loaded = self._table.complete = True
        self._state.whole = self._state.confirmed = True
        self._state.head = msgspec.structs.replace(offered, ttl_s=self._options.ttl_s)
        # As of when it began to come: until now the old map was served.
        self._state.lag_s, self._state.told_s = offered.lag_s, self._offered_s
        self._state.changed.set()
        self._state.settled()
        if before is not None and own_incarnation(before.revision) != own_incarnation(
            offered.revision
        ):
            self._state.reincarnated.set()

    def _advance(self, revision: str) -> None:
        assert self._state.head is not None
        self._state.head = msgspec.structs.replace(self._state.head, revision=revision)

    def _refuse_older(self, revision: str) -> None:
        head = self._state.head
        if head is None or head.mesh != self._options.mesh:
            return
        if is_older(revision, head.revision):
            message = f"revision {revision} is older than {head.revision}"
            raise StreamEndError("older", message)

    async def _put(self, records: Sequence[events.Record]) -> None:
        async for piece in slices(records, SLICE):
            for record in piece:
                self._put_one(record)

    async def _replace_outbounds(
        self, beginnings: Sequence[str], outbounds: Sequence[Outbound]
    ) -> None:
        if self._outbounds is None:
            return
        # Put first, and not removed if put again: no outbound is ever away in between.
        async for pieces in slices(outbounds, SLICE):
            self._outbounds.put(pieces)
        put = {outbound.id for outbound in outbounds}
        async for beginning in slices(beginnings, SLICE):
            found = self._outbounds.beginning_with(beginning)
            self._outbounds.remove([each for each in found if each not in put])

    def _put_one(self, record: events.Record) -> None:
        try:
            key = wire_name(record.name)
            if self._offered is not None:
                # Also where its addresses cannot be read: what was served for the name stays.
                self._seen.add(key)
            origin = Origin(record.zone, record.service)
            ttl_s = record.ttl if self._options.ttl_s is None else self._options.ttl_s
            entry = wire_entry([_packed(ip) for ip in record.ips], ttl_s, origin)
        except InputError as error:
            self._reject(record.name, error)
        else:
            self._table.put(key, entry)

    def _remove(self, name: str) -> None:
        try:
            self._table.remove(wire_name(name))
        except InputError as error:
            self._reject(name, error)

    def _reject(self, name: str, error: InputError) -> None:
        self._state.records_rejected += 1
        log.warning("record_rejected", name=name, error=str(error))


def _packed(ip: str) -> bytes:
    try:
        return inet_pton(AF_INET6 if ":" in ip else AF_INET, ip)
    except OSError:
        raise InputError(f"{ip!r} is not an IP address") from None


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    body = (await response.content.read(500)).decode(errors="replace")
    message = f"{response.url.host}:{response.url.port} answered {response.status}: {body}"
    if response.status != 503:
        raise StreamEndError("status", message)
    try:
        retry_after_s = float(response.headers.get("Retry-After", "0"))
    except ValueError:  # a date: allowed, and not what a zone sends
        retry_after_s = 0.0
    raise StreamEndError("not_ready", message, retry_after_s=min(retry_after_s, RETRY_AFTER_S_MAX))


async def _lines(content: aiohttp.StreamReader, silence_s: float) -> AsyncGenerator[bytes]:
    """Split a stream into lines without their ends.

    Not `content.readline`, whose limit is far below a delta of 10,000 records in one line.

    Raises:
        TimeoutError: Nothing came for `silence_s`.
        WireError: A line is longer than an event may be.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        async with asyncio.timeout(silence_s):
            chunk = await content.readany()
        if not chunk:
            return
        first, *rest = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        if size > events.EVENT_BYTES_MAX:
            raise WireError(f"a line of more than {events.EVENT_BYTES_MAX} bytes")
        if rest:
            yield b"".join(pieces).removesuffix(b"\r")
            for line in rest[:-1]:
                yield line.removesuffix(b"\r")
            pieces, size = [rest[-1]], len(rest[-1])


@contextmanager
def _translated(zone: str) -> Generator[None]:
    """Turn what a stream can end with into `StreamEndError`."""
    try:
        yield
    except TimeoutError as error:
        raise StreamEndError("silent", f"{zone}: nothing was heard in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise StreamEndError("unreachable", f"{zone}: {error}") from error
    except WireError as error:
        # Not for `supervise` to end the process by: the map that is held goes on being served.
        message = f"{zone}: {error}"
        raise StreamEndError("malformed", message) from error
