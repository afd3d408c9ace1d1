"""A state as bytes: bounded chunks that are packed, compressed and read one at a time.

Every chunk is one zstd frame. Chunk 0 is msgpack `[format, meta, chunks, rows, digest]`: the
caller's map, how many chunks and rows follow, and BLAKE2b-16 over the chunks that follow, so that
none is missing, foreign or out of place. The others are runs of rows `[kind, key, payload]`. The
format is the log's (`meta["format"]`): no reader finds a later one here than in the entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgpack
import zstandard

from zonemesh.errors import WireError
from zonemesh.wire import ENTRY_BYTES_MAX, FORMAT, check_format

CHUNK_BYTES = 512 << 10
"""At most, before compression. Packed in a few milliseconds; Redis copies one at once."""

_ROW_BYTES_MAX = ENTRY_BYTES_MAX
"""A row came in an entry. One larger than a chunk gets a chunk of its own."""

_PLAIN_BYTES_MAX = CHUNK_BYTES + _ROW_BYTES_MAX
_CHUNKS_MAX = 1 << 16
_ROWS_PER_SLICE = 2_000
"""About 1 ms of packing, after which the event loop gets a turn."""

_LEVEL = 1
"""100,000 records of 590 bytes: 0.21 s in all; at level 3 0.36 s, and no smaller."""

_DIGEST_BYTES = 16

Row = tuple[str, str, bytes]
"""Kind, packed key, payload."""


def encode(meta: Mapping[str, Any], rows: Iterable[Row]) -> list[bytes]:
    """Encode a state, all in this thread.

    Raises:
        WireError: A row is larger than any entry may be, or there are too many.
    """
    chunks = _Chunks()
    for plain in _plain(rows, chunks):
        if plain:
            chunks.add(plain)
    return chunks.all(meta)


async def encode_in_thread(meta: Mapping[str, Any], rows: Iterable[Row]) -> list[bytes]:
    """As `encode`, without holding the event loop.

    Packing holds the GIL wherever it runs, so it stays here, in slices of a millisecond; zstd and
    BLAKE2b release it and run in a thread, a chunk at a time.
    """
    chunks = _Chunks()
    for plain in _plain(rows, chunks):
        if plain:
            await asyncio.to_thread(chunks.add, plain)
        else:
            await asyncio.sleep(0)
    return chunks.all(meta)


def decode(
    chunks: Sequence[bytes], formats: Collection[int] | None = None
) -> tuple[Mapping[str, Any], Iterator[Row]]:
    """Read a snapshot: its meta, and its rows, which are unpacked a chunk at a time.

    All chunks are checked against the digest at once. Should a row be malformed nevertheless, the
    iterator raises in the middle: what was made of the rows before it must be thrown away.

    Raises:
        NewerFormatError: Written in a later format.
        WireError: Malformed, incomplete, or larger than a snapshot may be.
    """
    if not chunks:
        raise WireError("a snapshot of no chunks")
    meta, rows, digest = _first(chunks, formats)
    found = blake2b(digest_size=_DIGEST_BYTES)
    for chunk in chunks[1:]:
        found.update(chunk)
    if found.digest() != digest:
        raise WireError("a snapshot's chunks are not those of its digest")
    return meta, _rows(chunks[1:], rows)


async def decode_in_thread(
    chunks: Sequence[bytes], formats: Collection[int] | None = None
) -> tuple[Mapping[str, Any], Iterator[Row]]:
    """As `decode`, checking the digest in a thread; each next chunk of rows costs about 2 ms."""
    return await asyncio.to_thread(decode, chunks, formats)


class _Chunks:
    """Collects compressed chunks; `add` by one thread at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self._digest = blake2b(digest_size=_DIGEST_BYTES)
        self._done: list[bytes] = []

    def add(self, plain: bytes) -> None:
        if len(self._done) == _CHUNKS_MAX:
            raise WireError(f"a snapshot of more than {_CHUNKS_MAX} chunks")
        chunk = self._zstd.compress(plain)
        self._digest.update(chunk)
        self._done.append(chunk)

    def all(self, meta: Mapping[str, Any]) -> list[bytes]:
        plain: bytes = msgpack.packb(
            (meta.get("format", FORMAT), meta, len(self._done), self.rows, self._digest.digest())
        )
        if len(plain) > _PLAIN_BYTES_MAX:
            raise WireError(f"a snapshot's meta of {len(plain)} bytes; at most {_PLAIN_BYTES_MAX}")
        return [self._zstd.compress(plain), *self._done]


def _plain(rows: Iterable[Row], count: _Chunks) -> Iterator[bytes]:
    """Chunks before compression; in between, b"" where a pause does good."""
    packer = msgpack.Packer(autoreset=False)
    size = 0
    for number, row in enumerate(rows, 1):
        packer.pack(row)
        grown = len(packer.getbuffer())
        if grown - size > _ROW_BYTES_MAX:
            raise WireError(f"row {row[:2]} of {grown - size} bytes; at most {_ROW_BYTES_MAX}")
        if size and grown > CHUNK_BYTES:
            yield packer.bytes()[:size]
            packer.reset()
            packer.pack(row)
            grown -= size
        size = grown
        count.rows = number
        if number % _ROWS_PER_SLICE == 0:
            yield b""
    if size:
        yield packer.bytes()


def _first(
    chunks: Sequence[bytes], formats: Collection[int] | None
) -> tuple[Mapping[str, Any], int, bytes]:
    try:
        version, meta, count, rows, digest, *_ = msgpack.unpackb(
            _decompress(zstandard.ZstdDecompressor(), chunks[0])
        )
    except WireError:
        raise
    except Exception as error:  # unpackb raises a dozen types; all mean the same to a reader
        raise WireError(f"malformed snapshot: {error!r}") from error
    check_format("a snapshot", version, formats)
    if type(meta) is not dict:
        raise WireError(f"a snapshot's meta is {meta!r}")
    if count != len(chunks) - 1:
        raise WireError(f"a snapshot of {count!r} chunks has {len(chunks) - 1}")
    return meta, rows, digest


def _rows(chunks: Sequence[bytes], expected: int) -> Iterator[Row]:
    zstd = zstandard.ZstdDecompressor()
    kinds: dict[str, str] = {}
    found = 0
    for chunk in chunks:
        unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_PLAIN_BYTES_MAX)
        unpacker.feed(_decompress(zstd, chunk))
        while True:
            try:
                row = unpacker.unpack()
            except msgpack.OutOfData:
                break
            except Exception as error:  # as in `_first`
                raise WireError(f"malformed snapshot row: {error!r}") from error
            found += 1
            yield _row(row, kinds)
    if found != expected:
        raise WireError(f"a snapshot of {expected} rows has {found}")


def _row(row: Any, kinds: dict[str, str]) -> Row:
    if type(row) is not tuple or len(row) < 3:
        raise WireError("a snapshot's row is (kind, key, payload)")
    kind, key, payload = row[:3]
    if not (type(kind) is str and type(key) is str and type(payload) is bytes):
        raise WireError("a snapshot's row is (str, str, bytes)")
    return kinds.setdefault(kind, kind), key, payload  # one string per kind, not one per row


def _decompress(zstd: zstandard.ZstdDecompressor, chunk: bytes) -> bytes:
    try:
        # The size is looked at first: with one in the frame, `max_output_size` bounds nothing.
        size = zstandard.get_frame_parameters(chunk).content_size
        if size > _PLAIN_BYTES_MAX:  # so is the "unknown" that is 2^64-1
            raise WireError(f"a snapshot's chunk of {size} bytes; at most {_PLAIN_BYTES_MAX}")
        return zstd.decompress(chunk, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError(f"malformed snapshot chunk: {error}") from error
