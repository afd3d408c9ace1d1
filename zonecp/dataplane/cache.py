"""The last map on disk: what is answered before, and without, any zone.

    file   = magic, BLAKE2b-256 of the rest, chunks
    chunk  = length (4 octets), msgpack
    chunks = the head as a map, then keys and entries, at most 1,024 in a map; of a key that is
             there twice the last one counts, and nil is a name that is gone

Written to a temporary file, synced, renamed: a crash leaves the former map or the new one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgpack
import msgspec
import structlog

from zonecp.dataplane.events import Head
from zonecp.dataplane.feed import FeedState
from zonecp.dataplane.resolver import Table, is_entry
from zonemesh.errors import WireError

log = structlog.get_logger(__name__)

FILE_NAME: Final = "map.zonedp"
MAGIC: Final = b"zonedp map 1\n"
DIGEST_BYTES: Final = 32
CHUNK_NAMES: Final = 1_024
"""Encoded between two turns of the loop: about 0.15 ms."""

FILE_BYTES_MAX: Final = 512 << 20
"""Three million names; more is not read."""

SPACING_S_MIN: Final = 1.0
SPACING_S_MAX: Final = 60.0
SPACING_FACTOR: Final = 20.0
"""At most 5 % of the time is spent writing."""


class Cache:
    """Writes the map behind its changes; a component for `supervise`."""

    def __init__(self, directory: Path, table: Table, state: FeedState) -> None:
        self.writes = 0
        self.failures = 0
        self.corrupt = 0
        self.bytes = 0
        self.write_s = 0.0
        """How long the last write took."""

        self._path = directory / FILE_NAME
        self._table = table
        self._state = state
        self._written: str | None = None

    def load(self) -> None:
        """Put the map of an earlier process into the table; none, or a damaged one, is no fault."""
        try:
            head, entries = _decode(_read(self._path))
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
        for key, entry in entries.items():
            self._table.put(key, entry)
        self._table.loaded = True
        self._state.head = head
        self._written = head.revision
        log.info("cache_loaded", names=len(entries), revision=head.revision, zone=head.zone)

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
        encoded = await self._encode()
        if encoded is None:
            self._state.changed.set()  # try again
            return
        revision, chunks = encoded
        try:
            self.bytes = await asyncio.to_thread(_replace, self._path, chunks)
        except OSError as error:
            self.failures += 1
            log.warning("cache_write_failed", path=str(self._path), error=str(error))
        else:
            self.writes += 1
            self._written = revision
        self.write_s = time.monotonic() - started_s

    async def _encode(self) -> tuple[str, list[bytes]] | None:
        """The map as it is at the end: what changes meanwhile is encoded once more.

        Here and not in the thread, since a thread that computes takes the interpreter from the
        loop for 5 ms at a time, while one that hashes and writes hardly needs it.

        Returns:
            The revision and the chunks; None if too much changes.
        """
        touched = self._table.touched = set()
        try:
            chunks = []
            keys = self._table.keys()
            for at in range(0, len(keys), CHUNK_NAMES):
                chunks.append(_chunk(self._table.pick(keys[at : at + CHUNK_NAMES])))
                await asyncio.sleep(0)
        finally:
            self._table.touched = None
        head = self._state.head
        if head is None or not self._state.whole or len(touched) > CHUNK_NAMES:
            return None
        first, last = msgspec.to_builtins(head), self._table.pick(touched)
        return head.revision, [_chunk(first), *chunks, _chunk(last)]

    def _set_aside(self, error: WireError) -> None:
        self.corrupt += 1
        aside = self._path.with_suffix(".corrupt")
        with suppress(OSError):
            self._path.replace(aside)
        log.error("cache_corrupt", path=str(self._path), moved_to=str(aside), error=str(error))


def _chunk(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return len(packed).to_bytes(4, "big") + packed


def _replace(path: Path, chunks: list[bytes]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = blake2b(digest_size=DIGEST_BYTES)
    for chunk in chunks:
        digest.update(chunk)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(MAGIC + digest.digest())
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # else the rename may be lost with the power
    finally:
        os.close(directory)
    return len(MAGIC) + DIGEST_BYTES + sum(map(len, chunks))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise WireError(f"more than {FILE_BYTES_MAX} bytes")
    return data


def _decode(data: bytes) -> tuple[Head, dict[bytes, bytes]]:
    """Read a file's content.

    Raises:
        WireError: Not written by `_replace`, or not completely.
    """
    body_at = len(MAGIC) + DIGEST_BYTES
    body = memoryview(data)[body_at:]
    if not data.startswith(MAGIC):
        raise WireError("not a map of this format")
    if blake2b(body, digest_size=DIGEST_BYTES).digest() != data[len(MAGIC) : body_at]:
        raise WireError("the checksum does not match")
    try:
        first, *rest = (msgpack.unpackb(chunk) for chunk in _chunks(body))
        head = msgspec.convert(first, Head)
        found = {key: entry for chunk in rest for key, entry in chunk.items()}
        entries = {key: entry for key, entry in found.items() if entry is not None}
    except Exception as error:  # unpackb and convert raise a dozen types; all mean the same here
        raise WireError(f"malformed: {error!r}") from error
    if not all(is_entry(key, entry) for key, entry in entries.items()):
        raise WireError("an entry that is none")
    return head, entries


def _chunks(body: memoryview) -> Iterator[memoryview]:
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        yield body[at + 4 : at + 4 + size]
        at += 4 + size
