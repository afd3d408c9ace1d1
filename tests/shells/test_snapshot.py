"""Snapshots as bytes: whatever was encoded comes back; whatever was not is refused, in bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.errors import NewerFormatError, WireError
from zonemesh.log.snapshot import (
    CHUNK_BYTES,
    Row,
    decode,
    decode_in_thread,
    encode,
    encode_in_thread,
)
from zonemesh.wire import ENTRY_BYTES_MAX

META = {"incarnation": "inc-1", "position": [7, 4], "h": b"\x00" * 8, "unknown": {"x": None}}

rows_strategy = st.lists(
    st.tuples(st.sampled_from(["MeshService", "Zone"]), st.text(max_size=20), st.binary()),
    max_size=50,
)


def some_rows(count: int, payload_bytes: int = 300) -> list[Row]:
    return [
        ("MeshService", f"default/west/ns/service-{i}", i.to_bytes(4, "big") * (payload_bytes // 4))
        for i in range(count)
    ]


def frame(value: object) -> bytes:
    return zstandard.compress(msgpack.packb(value))


@given(rows=rows_strategy)
def test_whatever_was_encoded_comes_back(rows: list[Row]) -> None:
    meta, decoded = decode(encode(META, rows))

    assert meta == META
    assert list(decoded) == rows


async def test_encoding_in_a_thread_gives_the_same_bytes() -> None:
    rows = some_rows(5_000)

    chunks = await encode_in_thread(META, rows)

    assert chunks == encode(META, rows)
    meta, decoded = await decode_in_thread(chunks)
    assert (meta, list(decoded)) == (META, rows)


def test_no_chunk_is_larger_than_its_bound_before_compression() -> None:
    chunks = encode(META, some_rows(20_000))

    sizes = [zstandard.get_frame_parameters(chunk).content_size for chunk in chunks]
    assert len(chunks) > 10
    assert max(sizes) <= CHUNK_BYTES
    assert min(sizes[1:-1]) > CHUNK_BYTES * 0.99


def test_a_row_larger_than_a_chunk_has_one_of_its_own() -> None:
    rows: list[Row] = [
        ("Zone", "a", b"small"),
        ("Zone", "b", b"x" * (CHUNK_BYTES + 1)),
        ("Zone", "c", b"small"),
    ]

    chunks = encode(META, rows)

    assert len(chunks) == 4
    assert list(decode(chunks)[1]) == rows


def test_a_row_larger_than_any_entry_is_refused() -> None:
    with pytest.raises(WireError, match="at most"):
        encode(META, [("Zone", "a", b"x" * ENTRY_BYTES_MAX)])


def test_kinds_are_one_string_each() -> None:
    kinds = [row[0] for row in decode(encode(META, some_rows(3_000)))[1]]

    assert len({id(kind) for kind in kinds}) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda chunks: chunks[:-1], id="the last is missing"),
        pytest.param(lambda chunks: chunks[1:], id="the first is missing"),
        pytest.param(lambda chunks: [chunks[0], *chunks[2:]], id="one is missing"),
        pytest.param(lambda chunks: [chunks[0], *reversed(chunks[1:])], id="out of place"),
        pytest.param(lambda chunks: [*chunks, chunks[-1]], id="one twice"),
        pytest.param(lambda chunks: [chunks[0], chunks[1], *other()[2:]], id="one is another's"),
        pytest.param(lambda chunks: [*chunks[:-1], chunks[-1][:-1]], id="cut short"),
        pytest.param(lambda chunks: [chunks[0] + b"x", *chunks[1:]], id="bytes after the end"),
        pytest.param(lambda _: [], id="nothing"),
        pytest.param(lambda _: [b"not zstd"], id="not compressed"),
        pytest.param(lambda _: [zstandard.compress(b"\xc1")], id="not msgpack"),
        pytest.param(lambda _: [frame(7)], id="no array"),
        pytest.param(lambda _: [frame([1, 7, 0, 0, b""])], id="meta is no map"),
        pytest.param(lambda _: [frame([1, {}, 1 << 40, 0, b""])], id="far too many"),
        pytest.param(lambda _: [frame([True, {}, 0, 0, digest()])], id="format is true"),
    ],
)
def test_what_was_not_encoded_so_is_refused(damage: Callable[[list[bytes]], list[bytes]]) -> None:
    whole = encode(META, some_rows(5_000))
    assert len(whole) > 3

    with pytest.raises(WireError):
        drain(damage(whole))


@pytest.mark.parametrize(
    "plain",
    [b"\xc1", msgpack.packb(7), msgpack.packb(("a", "b")), msgpack.packb((1, "b", b""))],
    ids=["not msgpack", "no row", "two fields", "kind is no string"],
)
def test_a_bad_row_is_refused_though_its_chunk_is_the_one_announced(plain: bytes) -> None:
    chunk = zstandard.compress(plain)

    with pytest.raises(WireError, match="row"):
        drain([frame([1, {}, 1, 1, digest(chunk)]), chunk])


def test_rows_that_are_fewer_than_announced_are_refused() -> None:
    chunk = zstandard.compress(msgpack.packb(("Zone", "a", b"")))

    with pytest.raises(WireError, match="2 rows"):
        drain([frame([1, {}, 1, 2, digest(chunk)]), chunk])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.compress(bytes(1 << 30))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x")

    for chunk in (bomb, unsized):
        with pytest.raises(WireError, match="at most"):
            drain([chunk])
        with pytest.raises(WireError, match="at most"):
            drain([frame([1, {}, 1, 1, digest(chunk)]), chunk])


def test_a_newer_format_is_named_so() -> None:
    with pytest.raises(NewerFormatError):
        decode([frame([2, {"anything": 1}, 0, 0, b"", "more"])])


async def test_others_get_their_turns_while_a_snapshot_is_encoded() -> None:
    # Counted, not timed: two noisy cores. Idle, the longest pause was 2 ms of 200 in all.
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.ensure_future(watch())
    await encode_in_thread(META, some_rows(50_000, 600))
    watching.cancel()

    assert turns > 50_000 / 2_000


def digest(*chunks: bytes) -> bytes:
    from hashlib import blake2b

    return blake2b(b"".join(chunks), digest_size=16).digest()


def other() -> list[bytes]:
    return encode({**META, "position": [7, 5]}, [*some_rows(4_999), ("Zone", "x", b"")])


def drain(chunks: list[bytes]) -> int:
    rows: Iterator[Row]
    _, rows = decode(chunks)
    return sum(1 for _ in rows)
