"""A log at one position as one file: what `zonemesh snapshot` writes and reads.

magic, which a transfer as text breaks
frames, each its length in 4 octets and as many octets:
    msgpack [format, {log, saved_ms, version, chunks}]
    the newest entry's bytes (`zonemesh.wire`)
    the chunks of the snapshot at that entry (`zonemesh.log.snapshot`)
BLAKE2b-32 of all before it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack

from zonemesh.errors import NewerFormatError, WireError
from zonemesh.log.snapshot import CHUNK_BYTES
from zonemesh.wire import ENTRY_BYTES_MAX

FORMAT = 1
MAGIC = b"\x89ZMSNAP\r\n\x1a\n"

_LENGTH_BYTES = 4
_DIGEST_BYTES = 32
_FRAME_BYTES_MAX = CHUNK_BYTES + 2 * ENTRY_BYTES_MAX
"""No chunk is larger, even of octets that do not compress."""
_ELSE = "use another copy of the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What a file holds."""

    log: str
    """`global`, or a zone's own log."""
    saved_ms: int
    """Wall time."""
    version: str
    """Of the build that saved it."""
    newest: bytes
    """The entry that the snapshot ends with."""
    chunks: Sequence[bytes]


def pieces(backup: Backup) -> Iterator[bytes]:
    """The octets of a file, in pieces."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for piece in (MAGIC, *map(_frame, _frames(backup))):
        digest.update(piece)
        yield piece
    yield digest.digest()


def parse(data: bytes) -> Backup:
    """Read a file.

    Raises:
        NewerFormatError: Written in a later format.
        WireError: No such file, or a damaged one; says where and what to do.
    """
    if not data.startswith(MAGIC):
        raise WireError("not a file of `zonemesh snapshot save`")
    if len(data) < len(MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES:
        raise WireError(f"cut off after {len(data)} octets; {_ELSE}")
    frames = _Frames(data)
    header = _header(frames.take())
    try:
        log, saved_ms, version = header["log"], int(header["saved_ms"]), header["version"]
        count = int(header["chunks"])
        newest = frames.take()
        chunks = [frames.take() for _ in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"damaged within its first frame ({error!r}); {_ELSE}") from error
    frames.end()
    return Backup(log=log, saved_ms=saved_ms, version=version, newest=newest, chunks=chunks)


def _frames(backup: Backup) -> Iterator[bytes]:
    facts = {
        "log": backup.log,
        "saved_ms": backup.saved_ms,
        "version": backup.version,
        "chunks": len(backup.chunks),
    }
    yield msgpack.packb((FORMAT, facts))
    yield backup.newest
    yield from backup.chunks


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def _header(content: bytes) -> dict[str, Any]:
    try:
        version, *rest = msgpack.unpackb(content)
    except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
        raise WireError(f"damaged within its first frame ({error!r}); {_ELSE}") from error
    if type(version) is int and version > FORMAT:
        raise NewerFormatError(
            f"a file of format {version}, and this build reads up to {FORMAT}; use a newer zonemesh"
        )
    if version != FORMAT or not rest or type(rest[0]) is not dict:
        raise WireError(f"damaged within its first frame (format {version!r}); {_ELSE}")
    facts: dict[str, Any] = rest[0]
    return facts


class _Frames:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data) - _DIGEST_BYTES
        self._at = len(MAGIC)

    def take(self) -> bytes:
        start = self._at + _LENGTH_BYTES
        length = int.from_bytes(self._data[self._at : start], "big")
        if length > _FRAME_BYTES_MAX:
            raise WireError(f"damaged at octet {self._at} (a frame of {length} octets); {_ELSE}")
        if start + length > self._end:
            raise WireError(f"cut off after {len(self._data)} octets; {_ELSE}")
        self._at = start + length
        return self._data[start : self._at]

    def end(self) -> None:
        if self._at != self._end:
            raise WireError(f"damaged: {self._end - self._at} octets too many; {_ELSE}")
        view = memoryview(self._data)
        digest = blake2b(view[: self._end], digest_size=_DIGEST_BYTES).digest()
        if digest != self._data[self._end :]:
            raise WireError(f"damaged: its {len(view)} octets are not those of its digest; {_ELSE}")
