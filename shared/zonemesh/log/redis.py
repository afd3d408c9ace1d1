"""Logs in Redis: a stream and its head record each, changed together by `scripts`.

Works from Redis 6.2 on (XADD NOMKSTREAM, XTRIM MINID), and on Redis Cluster, since every key has
one hash tag. Nothing here retries: `runtime.supervise` and the writer do.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from redis.asyncio.connection import ConnectionPool

from zonemesh.errors import (
    FateUnknownError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    WireError,
    WrongKeyError,
)
from zonemesh.log import keys as names
from zonemesh.log import scripts
from zonemesh.log.connections import Connections, Reply
from zonemesh.log.pools import IN_CONFIG, Named, pool_of
from zonemesh.log.port import Head, Lease, Raw, SnapshotInfo
from zonemesh.log.scripts import Script
from zonemesh.model import SEQ_MAX, Position
from zonemesh.names import is_dns_label
from zonemesh.travel import up_log
from zonemesh.wire import HASH_BYTES, Sealed

TIMEOUT_S = 2.0
LEASE_MS = 2_000
PRESENT_MS = 5_000

BLOCK_S_MAX = 1.0
"""One blocking read's share of a longer wait: bounds how late a silently cut link is noticed."""

_COMMANDS_MAX = 8
_READERS_MAX = 64
"""Each blocked read holds a connection; a process has a handful of readers."""

_CHUNKS_PER_CALL = 8
"""Up to 4 MiB before compression: what one exchange's deadline allows on a slow link."""

_CHUNK_BYTES_MAX = 2 << 20
"""No chunk that we write is larger, even one of a single row."""

_SNAPSHOT_BYTES_MAX = 1 << 30
"""Compressed; held in memory while it is read. Ten million records have half of it."""

_CHUNKS_MAX = 1 << 16
_TEXT_MAX = 100
"""Of what we write into a head or an announcement: an incarnation, a token."""

_CHUNK_S = 3_600
"""A chunk that is never announced (its writer died) goes by itself; an announced one stays."""

_SCAN_COUNT = 1_000
_SCANS_MAX = 1_000
_DELETES_PER_CALL = 500
_ANNOUNCE_TRIES = 3

_NAMES_LOGGED_MAX = 100
WAIT_MS = 100
"""How long an append waits for replicas (`redis.waitReplicas`): they need a millisecond or two."""
_REMIND_S = 10.0

_HEAD = ("incarnation", "position", "h", "time", "owner", "format")


log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Announced:
    info: SnapshotInfo
    token: str

    def chunk_keys(self, keys: names.LogKeys) -> list[str]:
        return [keys.chunk(self.info.position, self.token, i) for i in range(self.info.chunks)]


class RedisStore:
    """Every log of a mesh in one Redis.

    Args:
        url: redis://, rediss://, unix:// or redis+sentinel:// (`connections.pool_of`).
        prefix: First part of every key, in braces.
        timeout_s: For one command; a blocking read has this much on top of what it blocks.
        lease_ms: How long a leader's lease lasts without renewal.
        password_path: File with the password, instead of one in `url`.
        wait_replicas: How many replicas are waited for after each append. It makes the loss of what
            was acknowledged rarer, and nothing relies on it.
        wait_ms: For how long, at most.
        named: What errors call `url` and `password_path`.
        pool: Makes the connections instead of `url` (tests: fakeredis's).
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = names.PREFIX,
        timeout_s: float = TIMEOUT_S,
        lease_ms: int = LEASE_MS,
        password_path: Path | None = None,
        wait_replicas: int = 0,
        wait_ms: int = WAIT_MS,
        named: Named = IN_CONFIG,
        pool: ConnectionPool | None = None,
    ) -> None:
        pool = pool_of(url, password_path, named) if pool is None else pool
        self.keys = names.Keys(prefix)
        self.lease_ms = lease_ms
        self.commands = Connections(pool, timeout_s=timeout_s, limit=_COMMANDS_MAX, named=named)
        self.wait_replicas = wait_replicas
        self.wait_ms = wait_ms
        self.unreplicated = 0
        """Appends that fewer replicas than that had in time."""
        self._unreplicated_told_s = float("-inf")
        self.odd_zones: frozenset[bytes] = frozenset()
        """Announced names, as of the last look, that are no zone's."""
        self._logged: set[bytes] = set()
        # Apart: a reader that waits must not keep an append from its turn.
        self._readers = Connections(pool, timeout_s=timeout_s, limit=_READERS_MAX, named=named)

    def log(self, name: str) -> RedisLog:
        return RedisLog(self, name)

    @property
    def fault(self) -> str | None:
        """Why the newest command failed, for whoever asks what a plane waits for."""
        return self.commands.fault

    def replicated(self, reply: Reply) -> None:
        """Take the answer to WAIT: how many replicas have what was written before it."""
        if isinstance(reply, int) and reply >= self.wait_replicas:
            return
        self.unreplicated += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._unreplicated_told_s >= _REMIND_S:
            self._unreplicated_told_s = now_s
            log.warning(
                "append_not_replicated",
                replicas=reply if isinstance(reply, int) else str(reply),
                wanted=self.wait_replicas,
                within_ms=self.wait_ms,
                appends=self.unreplicated,
            )

    async def announce(self, zone: str) -> None:
        await self.commands.call("SADD", self.keys.zones, zone)

    async def zones(self) -> frozenset[str]:
        found = await self.commands.call("SMEMBERS", self.keys.zones)
        zones = {name: name.decode(errors="replace") for name in found}
        self.odd_zones = frozenset(name for name, zone in zones.items() if not is_dns_label(zone))
        for name in self.odd_zones - self._logged:
            if len(self._logged) < _NAMES_LOGGED_MAX:
                self._logged.add(name)
                log.warning("zone_name_ignored", name=repr(name[:_TEXT_MAX]))
        return frozenset(zone for name, zone in zones.items() if name not in self.odd_zones)

    async def forget(self, zone: str) -> None:
        keys = self.keys.of(up_log(zone))
        # The announcement last: until then a forget that failed can be found and repeated.
        found = await self._scan(f"{keys.base}:")
        for start in range(0, len(found), _DELETES_PER_CALL):
            await self.commands.call("UNLINK", *found[start : start + _DELETES_PER_CALL])
        await self.commands.call("SREM", self.keys.zones, zone)

    async def read_many(
        self, after: Mapping[str, Position], *, block_s: float, count: int = 64
    ) -> Mapping[str, Sequence[Raw]]:
        if not after:
            await asyncio.sleep(block_s)
            return {}
        logs = {self.keys.of(name).log.encode(): name for name in after}
        reply = await self._xread(tuple(logs), tuple(after.values()), block_s, count)
        return {logs[key]: _raws(entries) for key, entries in reply}

    async def sizes(self, log_names: Sequence[str]) -> Mapping[str, int]:
        # Sampled: exact figures would cost a walk over the whole stream.
        usage = [("MEMORY", "USAGE", self.keys.of(name).log) for name in log_names]
        found = await self.commands.calls(usage) if usage else ()
        return {name: size or 0 for name, size in zip(log_names, found, strict=True)}

    async def present(self, log_name: str, writer: str, payload: bytes) -> None:
        key = self.keys.of(log_name).replica(writer)
        await self.commands.call("SET", key, payload, "PX", PRESENT_MS)

    async def replicas(self, log_name: str) -> Mapping[str, bytes]:
        base = self.keys.of(log_name).replica("")
        found = sorted(set(await self._scan(base)))
        if not found:
            return {}
        payloads = await self.commands.call("MGET", *found)
        return {
            key[len(base.encode()) :].decode(): payload
            for key, payload in zip(found, payloads, strict=True)
            if payload is not None  # expired since
        }

    async def said(self, writer: str, log_names: Sequence[str]) -> Mapping[str, bytes]:
        if not log_names:
            return {}
        keys = [self.keys.of(name).replica(writer) for name in log_names]
        payloads = await self.commands.call("MGET", *keys)
        found = zip(log_names, payloads, strict=True)
        return {name: payload for name, payload in found if payload is not None}

    async def close(self) -> None:
        await self.commands.close()
        await self._readers.close()

    async def read(self, key: str, after: Position, *, block_s: float, count: int) -> Sequence[Raw]:
        """One log's entries: `Log.read`."""
        reply = await self._xread((key.encode(),), (after,), block_s, count)
        return _raws(reply[0][1]) if reply else ()

    async def _xread(
        self, keys: Sequence[bytes], after: Sequence[Position], block_s: float, count: int
    ) -> Sequence[tuple[bytes, Sequence[Reply]]]:
        clock = asyncio.get_running_loop().time
        until_s = clock() + block_s
        streams: tuple[str | bytes, ...] = ("STREAMS", *keys, *map(str, after))
        if block_s <= 0:
            return await self.commands.call("XREAD", "COUNT", count, *streams) or ()
        while True:
            slice_s = min(max(until_s - clock(), 0.001), BLOCK_S_MAX)  # BLOCK 0 would be for ever
            block = ("BLOCK", round(slice_s * 1000) or 1)
            reply = await self._readers.call(
                "XREAD", "COUNT", count, *block, *streams, extra_s=slice_s
            )
            if reply or clock() >= until_s:
                return reply or ()

    async def _scan(self, beginning: str) -> list[bytes]:
        """Keys that begin so; one may come twice.

        Raises:
            UnavailableError: More keys in this Redis than a bounded scan can pass.
        """
        pattern = names.beginning_with(beginning)
        found: list[bytes] = []
        cursor = b"0"
        for _ in range(_SCANS_MAX):
            # SCAN names no key: that a cluster sends it to our node is EXISTS's doing.
            _, (cursor, page) = await self.commands.calls(
                [
                    ("EXISTS", beginning),
                    ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT),
                ]
            )
            found += page
            if cursor == b"0":
                return found
        raise UnavailableError(
            f"redis: more than {_SCANS_MAX * _SCAN_COUNT} keys: give this mesh a Redis of its own"
        )


class RedisLog:
    """One log in Redis; a handle that owns nothing."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._redis = store.commands
        self._name = name
        self._keys = store.keys.of(name)

    @property
    def name(self) -> str:
        return self._name

    async def head(self) -> Head | None:
        fields = await self._redis.call("HMGET", self._keys.head, *_HEAD)
        return None if fields[0] is None else _head(self._name, fields)

    async def create(
        self, sealed: Sealed, *, owner: str = "", replacing: Head | None = None
    ) -> None:
        found: tuple[str | bytes, ...] = ("0",)
        if replacing is not None:
            found = ("1", replacing.incarnation, str(replacing.position), replacing.h)
        await self._write(
            scripts.CREATE,
            (self._keys.log, self._keys.head),
            (*_written(sealed, owner), *found),
            sealed,
        )

    async def append(self, sealed: Sealed, *, owner: str | None = None) -> None:
        await self._write(
            scripts.APPEND,
            (self._keys.log, self._keys.head),
            (*_written(sealed, owner), *_followed(sealed)),
            sealed,
        )

    async def resign(self, sealed: Sealed, lease: Lease) -> None:
        await self._write(
            scripts.RESIGN,
            (self._keys.log, self._keys.head, self._keys.leader),
            (*_written(sealed, None), *_followed(sealed), _lease_beginning(lease.writer)),
            sealed,
        )

    async def repair(self, newest: Sealed | None = None, *, owner: str = "") -> bool:
        arguments = ("",) * 8 if newest is None else _written(newest, owner)
        keys = (self._keys.log, self._keys.head)
        return bool(await self._redis.run(scripts.REPAIR, keys, arguments))

    async def read(
        self, after: Position, *, block_s: float = 0.0, count: int = 512
    ) -> Sequence[Raw]:
        return await self._store.read(self._keys.log, after, block_s=block_s, count=count)

    async def put_snapshot(self, info: SnapshotInfo, chunks: Sequence[bytes]) -> None:
        token = secrets.token_hex(4)
        new = _Announced(info, token)
        new_keys = new.chunk_keys(self._keys)
        for start in range(0, len(chunks), _CHUNKS_PER_CALL):
            batch = range(start, min(start + _CHUNKS_PER_CALL, len(chunks)))
            await self._redis.calls(
                [("SET", new_keys[i], chunks[i], "EX", _CHUNK_S) for i in batch]
            )
        for _ in range(_ANNOUNCE_TRIES):
            outcome = await self._announce(new, new_keys)
            if outcome == b"done":
                return
            if outcome == b"refused":
                raise RefusedError(
                    f"snapshot {info.position}: a later one is announced, or the log has no such "
                    "entry"
                )
            if outcome == b"expired":
                raise UnavailableError(f"snapshot {info.position}: took over {_CHUNK_S} s to write")
        raise UnavailableError(f"snapshot {info.position}: others announce at the same time")

    async def _announce(self, new: _Announced, new_keys: Sequence[str]) -> bytes:
        info = new.info
        announced = await self._announced()
        for other in announced:
            if _state(other.info) == _state(info):  # a retry; its new chunks expire
                return b"done"
        newest = str(announced[0].info.position) if announced else ""
        # The newest one stays beside ours, unless no reader of this incarnation can use it.
        kept = 1 if announced and announced[0].info.incarnation == info.incarnation else 0
        gone = [key for old in announced[kept:] for key in old.chunk_keys(self._keys)]
        outcome: bytes = await self._redis.run(
            scripts.ANNOUNCE,
            (self._keys.snapshots, self._keys.log, self._keys.head, *new_keys, *gone),
            (str(info.position), info.incarnation, info.h, info.chunks, new.token, newest, kept),
        )
        return outcome

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        return tuple(announced.info for announced in await self._announced())

    async def load_snapshot(self, info: SnapshotInfo) -> Sequence[bytes]:
        announced = [one for one in await self._announced() if one.info == info]
        if not announced:
            raise NotFoundError(f"snapshot {info.position} is not announced")
        wanted = announced[0].chunk_keys(self._keys)
        chunks: list[bytes] = []
        size = 0
        for start in range(0, len(wanted), _CHUNKS_PER_CALL):
            found = await self._redis.call("MGET", *wanted[start : start + _CHUNKS_PER_CALL])
            if None in found:
                raise NotFoundError(f"snapshot {info.position} lacks chunks from {start} on")
            chunks += found
            if max(map(len, found)) > _CHUNK_BYTES_MAX:
                raise WireError(f"snapshot {info.position}: a chunk of over {_CHUNK_BYTES_MAX} B")
            size += sum(map(len, found))
            if size > _SNAPSHOT_BYTES_MAX:
                raise WireError(f"snapshot {info.position}: over {_SNAPSHOT_BYTES_MAX} bytes")
        return chunks

    async def trim(self, before: Position) -> int:
        removed: int = await self._redis.run(scripts.TRIM, (self._keys.log,), (str(before),))
        return removed

    async def acquire(self, lease: Lease) -> bool:
        return await self._lease(scripts.ACQUIRE, lease)

    async def renew(self, lease: Lease) -> bool:
        return await self._lease(scripts.RENEW, lease)

    async def release(self, lease: Lease) -> None:
        await self._lease(scripts.RELEASE, lease)

    async def holder(self) -> Lease | None:
        value = await self._redis.call("GET", self._keys.leader)
        if value is None:
            return None
        try:
            document = json.loads(value)
            return Lease(writer=str(document["writer"]), url=str(document["url"]))
        except (ValueError, TypeError, KeyError) as error:
            raise WrongKeyError(f"{self._keys.leader} holds no lease: {error!r}") from error

    async def close(self) -> None:
        """Nothing: the connections are the store's."""

    async def _lease(self, script: Script, lease: Lease) -> bool:
        arguments = (_lease_beginning(lease.writer), _lease_text(lease), self._store.lease_ms)
        return bool(await self._redis.run(script, (self._keys.leader,), arguments))

    async def _write(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int],
        sealed: Sealed,
    ) -> None:
        wanted = self._store.wait_replicas
        then = (("WAIT", wanted, self._store.wait_ms),) if wanted else ()
        try:
            outcome, *waited = await self._redis.run_then(script, keys, arguments, *then)
        except UnavailableError as error:
            # Even where this reply says that nothing was done (OOM, READONLY, NOPERM, no
            # connection): an earlier sending of the same bytes may have been.
            raise FateUnknownError(str(error)) from error
        if outcome[0] != b"done":
            _, incarnation, position, h = outcome
            found = f"{incarnation.decode()}.{position.decode()} ({h.hex()})"
            raise RefusedError(
                f"entry {sealed.entry.incarnation}.{sealed.entry.position} of {self._name} follows "
                f"{sealed.entry.previous} ({sealed.previous_h.hex()}), but "
                + (f"the head is {found}" if incarnation else "there is no log with a head")
            )
        for reply in waited:
            self._store.replicated(reply)

    async def _announced(self) -> list[_Announced]:
        reply = await self._redis.call("XREVRANGE", self._keys.snapshots, "+", "-", "COUNT", 3)
        return [_announced(entry_id, fields) for entry_id, fields in reply]


def _written(sealed: Sealed, owner: str | None) -> tuple[str | bytes | int, ...]:
    """The scripts' first eight arguments."""
    entry = sealed.entry
    return (
        entry.incarnation,
        str(entry.position),
        sealed.h,
        entry.time_ms,
        sealed.format,
        sealed.data,
        0 if owner is None else 1,
        owner or "",
    )


def _followed(sealed: Sealed) -> tuple[str, bytes]:
    return str(sealed.entry.previous), sealed.previous_h


def _lease_text(lease: Lease) -> str:
    return json.dumps({"writer": lease.writer, "url": lease.url})


def _lease_beginning(writer: str) -> str:
    # Lua compares beginnings: whose lease it is shows without parsing, and the URL may change.
    return json.dumps({"writer": writer})[:-1] + ", "


def _state(info: SnapshotInfo) -> tuple[str, Position, bytes]:
    return info.incarnation, info.position, info.h


def _raws(entries: Sequence[Reply]) -> list[Raw]:
    # What is no entry of ours has no bytes, which `wire.decode` refuses: it must not be skipped.
    return [
        Raw(_position(entry_id), fields[1] if fields[0] == b"e" else b"")
        for entry_id, fields in entries
    ]


def _position(entry_id: bytes) -> Position:
    term, _, seq = entry_id.partition(b"-")
    return Position(int(term), int(seq))


def _our_position(text: bytes) -> Position:
    """A position that one of us wrote: Redis's own may be larger than any."""
    position = _position(text)
    if not (0 <= position.term <= SEQ_MAX and 0 <= position.seq <= SEQ_MAX):
        raise ValueError(f"{text!r} is beyond any position")
    return position


def _text(value: bytes) -> str:
    if not 0 < len(value) <= _TEXT_MAX:
        raise ValueError(f"{len(value)} bytes of text; 1 to {_TEXT_MAX} are allowed")
    return value.decode()


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise ValueError(f"a hash of {len(value)} bytes")
    return value


def _head(name: str, fields: Sequence[bytes]) -> Head:
    incarnation, position, h, time, owner, version = fields
    try:
        return Head(
            incarnation=_text(incarnation),
            position=_our_position(position),
            h=_hash(h),
            time_ms=int(time),
            owner=(owner or b"").decode(),
            format=int(version),
        )
    except (ValueError, AttributeError, TypeError) as error:
        raise WrongKeyError(f"the head of {name} is malformed: {error!r}") from error


def _announced(entry_id: bytes, fields: Sequence[bytes]) -> _Announced:
    by_name = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        info = SnapshotInfo(
            incarnation=_text(by_name[b"incarnation"]),
            position=_our_position(entry_id),
            h=_hash(by_name[b"h"]),
            chunks=int(by_name[b"chunks"]),
        )
        if not 0 < info.chunks <= _CHUNKS_MAX + 1:
            raise ValueError(f"{info.chunks} chunks")
        return _Announced(info, _text(by_name[b"token"]))
    except (ValueError, KeyError) as error:
        raise WrongKeyError(f"snapshot {entry_id!r} is announced wrongly: {error!r}") from error
