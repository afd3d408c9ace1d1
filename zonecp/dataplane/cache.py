"""The last map on disk: what is answered before, and without, any zone.

    file  = magic, base, deltas
    base  = the head with the numbers of its chunks, then maps of at most 1,024 names and maps of at
            most 256 outbounds by id, a frame each; of a key that is there twice the last one
            counts, and nil is what is gone
    delta = one frame: [head, names that changed, outbounds that changed]
    frame = length (4 octets), digest (16 octets, over the digest before and the payload), msgpack

The base is written to a temporary file, synced and renamed: a crash leaves the former one or the
new one. Changes are appended unsynced, so that a change costs what it is and not what the map is;
a delta torn by a crash ends the file, and what is before it is a map that the zone had. Outbounds
are there if the agent follows them; names and outbounds are always of one revision.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgpack
import msgspec
import structlog

from zonecp.dataplane.entry import is_entry
from zonecp.dataplane.events import Head
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.names import Names
from zonecp.dataplane.outbounds import Change, Outbound, Outbounds
from zonemesh.errors import WireError

log = structlog.get_logger(__name__)

FILE_NAME: Final = "map.zonedp"
MAGIC: Final = b"zonedp map 4\n"
DIGEST_BYTES: Final = 16
CHUNK_NAMES: Final = 1_024
"""Encoded between two turns of the loop: about 0.15 ms."""

CHUNK_OUTBOUNDS: Final = 256
"""About 0.4 ms."""

DELTA_NAMES_MAX: Final = 4 * CHUNK_NAMES
"""A delta is encoded in one turn; for more, the base is written anew."""

DELTAS_BYTES_MIN: Final = 64 << 10
"""So much, and as much as the base has, is appended before the base is written anew."""

FILE_BYTES_MAX: Final = 512 << 20
"""Three million names; more is not read."""

SPACING_S_MIN: Final = 1.0
SPACING_S_MAX: Final = 60.0
SPACING_FACTOR: Final = 20.0
"""At most 5 % of the time is spent writing."""


class Cache:
    """Writes the map behind its changes; a component for `supervise`."""

    def __init__(
        self,
        directory: Path,
        table: Names,
        state: FeedState,
        outbounds: Outbounds | None = None,
    ) -> None:
        self.writes = 0
        self.failures = 0
        self.corrupt = 0
        self.bytes = 0
        self.write_s = 0.0
        """How long the last write took."""

        self._path = directory / FILE_NAME
        self._table = table
        self._state = state
        self._copied = None if outbounds is None else _Copied(outbounds)
        self._written: str | None = None
        self._base_bytes = 0
        """0: there is no file that may be appended to."""
        self._digest = b""

    def load(self) -> None:
        """Put the map of an earlier process into the table; none, or a damaged one, is no fault."""
        try:
            found = _decode(_read(self._path))
        except FileNotFoundError:
            log.info("cache_absent", path=str(self._path))
            return
        except OSError as error:
            self.failures += 1
            log.warning("cache_unreadable", path=str(self._path), error=str(error))
            return
        except WireError as error:
            self._set_aside(error)
            return
        for key, entry in found.entries.items():
            self._table.put(key, entry)
        self._table.loaded = True
        self._table.confirmed = False
        self._state.head = head = found.head
        self._written = head.revision
        if self._copied is not None and found.outbounds is not None:
            self._copied.load(found.outbounds)
        if found.torn_bytes:
            log.warning("cache_tail_dropped", bytes=found.torn_bytes, revision=head.revision)
        elif (self._copied is None) == (found.outbounds is None):
            self._base_bytes, self._digest = found.base_bytes, found.digest
            self.bytes = found.bytes
            self._watch()
        log.info("cache_loaded", names=len(found.entries), revision=head.revision, zone=head.zone)

    async def run(self) -> None:
        """Write after changes, at most once a second, less often where that takes long."""
        try:
            while True:
                await self._state.changed.wait()
                self._state.changed.clear()
                await self.write()
                await asyncio.sleep(
                    min(max(SPACING_S_MIN, SPACING_FACTOR * self.write_s), SPACING_S_MAX)
                )
        finally:
            await self.write()

    async def write(self) -> None:
        """Write the map, unless it is on disk already, or half a map."""
        head = self._state.head
        if head is None or not self._state.whole or head.revision == self._written:
            return
        started_s = time.monotonic()
        touched = self._table.touched
        changes = None if touched is None else len(touched) + self._touched_outbounds
        try:
            if changes is None or not self._appendable(changes):
                await self._rewrite()
            else:
                await self._append(head)
        except OSError as error:
            self.failures += 1
            self._begin_anew()
            log.warning("cache_write_failed", path=str(self._path), error=str(error))
        except BaseException:
            self._begin_anew()  # broken off: what is on disk is not known
            raise
        self.write_s = time.monotonic() - started_s

    def _appendable(self, names: int) -> bool:
        deltas_bytes = self.bytes - self._base_bytes
        return (
            self._base_bytes > 0
            and names <= DELTA_NAMES_MAX
            and deltas_bytes <= max(DELTAS_BYTES_MIN, self._base_bytes)
        )

    def _begin_anew(self) -> None:
        self._base_bytes = 0
        self._table.touched = None

    def _watch(self) -> None:
        self._table.touched = set()
        if self._copied is not None:
            self._copied.touched = set()

    @property
    def _touched_outbounds(self) -> int:
        return 0 if self._copied is None else len(self._copied.touched)

    async def _append(self, head: Head) -> None:
        delta: list[Any] = [msgspec.to_builtins(head), self._table.pick(self._table.touched or ())]
        if self._copied is not None:
            delta.append(self._copied.pick(self._copied.touched))
        frame, digest = _frame(self._digest, _packed(delta))
        self._watch()
        await asyncio.to_thread(_append, self._path, frame, self.bytes)
        self._digest = digest
        self._note(self.bytes + len(frame), head.revision)

    async def _rewrite(self) -> None:
        encoded = await self._encode()
        if encoded is None:
            self._state.changed.set()  # try again
            return
        revision, chunks = encoded
        self._base_bytes = 0
        size, self._digest = await asyncio.to_thread(_replace, self._path, chunks)
        self._base_bytes = size
        self._note(size, revision)

    def _note(self, size: int, revision: str) -> None:
        self.bytes = size
        self.writes += 1
        self._written = revision

    async def _encode(self) -> tuple[str, list[bytes]] | None:
        """The map as it is at the end: what changes meanwhile is encoded once more.

        Here and not in the thread, since a thread that computes takes the interpreter from the
        loop, while one that hashes and writes hardly needs it.

        Returns:
            The revision and the chunks; None if too much changes.
        """
        self._watch()
        names, outbounds = [], []
        keys = self._table.keys()
        for at in range(0, len(keys), CHUNK_NAMES):
            names.append(_packed(self._table.pick(keys[at : at + CHUNK_NAMES])))
            await asyncio.sleep(0)
        ids = [] if self._copied is None else self._copied.ids()
        for at in range(0, len(ids), CHUNK_OUTBOUNDS):
            assert self._copied is not None
            outbounds.append(_packed(self._copied.pick(ids[at : at + CHUNK_OUTBOUNDS])))
            await asyncio.sleep(0)
        head, touched = self._state.head, self._table.touched
        changes = CHUNK_NAMES + 1 if touched is None else len(touched) + self._touched_outbounds
        if head is None or not self._state.whole or changes > CHUNK_NAMES:
            self._table.touched = None
            return None
        assert touched is not None
        names.append(_packed(self._table.pick(touched)))
        first = {**msgspec.to_builtins(head), "chunks": len(names)}
        if self._copied is not None:
            outbounds.append(_packed(self._copied.pick(self._copied.touched)))
            first["outboundChunks"] = len(outbounds)
        self._watch()
        return head.revision, [_packed(first), *names, *outbounds]

    def _set_aside(self, error: WireError) -> None:
        self.corrupt += 1
        aside = self._path.with_suffix(".corrupt")
        with suppress(OSError):
            self._path.replace(aside)
        log.error("cache_corrupt", path=str(self._path), moved_to=str(aside), error=str(error))


def read_outbounds(directory: Path, mesh: str) -> list[Outbound] | None:
    """What an agent has on disk; None if there is no such map, or one without outbounds."""
    try:
        found = _decode(_read(directory / FILE_NAME))
    except (OSError, WireError):
        return None
    if found.outbounds is None or found.head.mesh != mesh:
        return None
    return [_OUTBOUND.decode(encoded) for encoded in found.outbounds.values()]


class _Copied:
    """Outbounds as they are kept on disk, and which of them have changed since."""

    def __init__(self, outbounds: Outbounds) -> None:
        self.touched: set[str] = set()
        self._outbounds = outbounds
        outbounds.listen(self._changed)

    def load(self, found: dict[str, bytes]) -> None:
        self._outbounds.begin()
        self._outbounds.put([_OUTBOUND.decode(encoded) for encoded in found.values()])
        self._outbounds.end()

    def ids(self) -> list[str]:
        return [outbound.id for outbound in self._outbounds]

    def pick(self, ids: Iterable[str]) -> dict[str, bytes | None]:
        """Encoded; None for those that are gone."""
        found = {outbound_id: self._outbounds.get(outbound_id) for outbound_id in ids}
        return {key: None if each is None else _encode(each) for key, each in found.items()}

    def _changed(self, change: Change) -> None:
        self.touched.update(each.id for each in (*change.put, *change.removed))


_OUTBOUND: Final = msgspec.msgpack.Decoder(Outbound)
_encode: Final = msgspec.msgpack.encode


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file holds."""

    head: Head
    entries: dict[bytes, bytes]
    outbounds: dict[str, bytes] | None
    """None if the agent that wrote it did not follow them."""

    digest: bytes
    """Of the last frame that can be read."""

    base_bytes: int
    bytes: int
    """Up to the end of that frame."""

    torn_bytes: int
    """Behind it."""


def _packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _frame(before: bytes, payload: bytes) -> tuple[bytes, bytes]:
    """A frame, and its digest, which the next one's is made with: no frame can change places."""
    digest = blake2b(before + payload, digest_size=DIGEST_BYTES).digest()
    return len(payload).to_bytes(4, "big") + digest + payload, digest


def _append(path: Path, frame: bytes, at: int) -> None:
    """Raises OSError, also if the file is not the one that was written to `at`."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) != at:
            raise OSError(f"has {file.tell()} bytes where {at} were written")
        file.write(frame)


def _replace(path: Path, chunks: Iterable[bytes]) -> tuple[int, bytes]:
    """Write a base; its size and last digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = b""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(MAGIC)
        for chunk in chunks:
            frame, digest = _frame(digest, chunk)
            file.write(frame)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # else the rename may be lost with the power
    finally:
        os.close(directory)
    return size, digest


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise WireError(f"more than {FILE_BYTES_MAX} bytes")
    return data


def _decode(data: bytes) -> _Found:
    """Read a file's content.

    Raises:
        WireError: Its base was not written by `_replace`, or not completely.
    """
    if not data.startswith(MAGIC):
        raise WireError("not a map of this format")
    frames = _frames(data)
    try:
        first, digest, at = next(frames)
        head = msgspec.convert(first, Head)
        held = _Held({}, {} if "outboundChunks" in first else None)
        for _ in range(first["chunks"]):
            chunk, digest, at = next(frames)
            held.update(chunk)
        for _ in range(first.get("outboundChunks", 0)):
            chunk, digest, at = next(frames)
            held.update({}, chunk)
        base_bytes = at
        for (after, *changes), end_digest, end in frames:
            head = msgspec.convert(after, Head)
            held.update(*changes)
            digest, at = end_digest, end
    except StopIteration:
        raise WireError("the base is damaged or cut") from None
    except WireError:
        raise
    except Exception as error:  # unpackb and convert raise a dozen types; all mean the same here
        raise WireError(f"malformed: {error!r}") from error
    return _Found(head, *held, digest, base_bytes, at, len(data) - at)


class _Held(NamedTuple):
    """Names and outbounds while a file is read."""

    entries: dict[bytes, bytes]
    outbounds: dict[str, bytes] | None

    def update(
        self, names: dict[bytes, bytes | None], outbounds: dict[str, bytes | None] | None = None
    ) -> None:
        for key, entry in names.items():
            if entry is not None and not is_entry(key, entry):
                raise WireError("an entry that is none")
        for encoded in (outbounds or {}).values():
            if encoded is not None:
                _OUTBOUND.decode(encoded)
        _merge(self.entries, names)
        if self.outbounds is not None and outbounds is not None:
            _merge(self.outbounds, outbounds)


K = TypeVar("K", bytes, str)


def _merge(held: dict[K, bytes], changes: dict[K, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


def _frames(data: bytes) -> Iterator[tuple[Any, bytes, int]]:
    """What the frames hold, each with its digest and its end, up to the first damaged one."""
    view, at, digest = memoryview(data), len(MAGIC), b""
    while at < len(data):
        start = at + 4 + DIGEST_BYTES
        end = start + int.from_bytes(view[at : at + 4], "big")
        payload = bytes(view[start:end])
        frame, digest = _frame(digest, payload)
        if frame != view[at:end]:
            return
        yield msgpack.unpackb(payload), digest, end
        at = end
