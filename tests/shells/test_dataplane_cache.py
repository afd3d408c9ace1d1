"""The last map on disk: written behind, served before anyone is reached, never believed blindly."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fake_zone import until
from zonecp.dataplane import cache as cache_module
from zonecp.dataplane.cache import FILE_NAME, Cache, read_outbounds
from zonecp.dataplane.entry import wire_entry
from zonecp.dataplane.events import Head
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.message import wire_name
from zonecp.dataplane.names import Names
from zonecp.dataplane.outbounds import Endpoint, Outbound, Outbounds
from zonecp.dataplane.resolver import Table

HEAD = Head(
    revision="own.1-2~glob.1-1", mesh="default", zone="west", zone_uid="u", domains=("mesh",)
)


def made(directory: Path, names: int = 3, head: Head | None = HEAD) -> tuple[Cache, FeedState]:
    state = FeedState(head=head)
    table = Table(["mesh"])
    for index in range(names):
        entry = wire_entry([bytes((241, 0, index >> 8, index & 255))], 60)
        table.put(wire_name(f"s{index}.mesh"), entry)
    return Cache(directory, table, state), state


def loaded(directory: Path) -> tuple[Cache, Table, FeedState]:
    state = FeedState()
    table = Table(["mesh"])
    cache = Cache(directory, table, state)
    cache.load()
    return cache, table, state


@pytest.mark.parametrize("names", [0, 3, 5_000])
async def test_what_was_written_is_loaded(tmp_path: Path, names: int) -> None:
    writer, _ = made(tmp_path / "new", names)

    await writer.write()
    cache, table, state = loaded(tmp_path / "new")

    assert writer.writes == 1
    assert writer.bytes == (tmp_path / "new" / FILE_NAME).stat().st_size
    assert table.loaded
    assert len(table) == names
    assert state.head == HEAD
    assert (cache.corrupt, cache.failures) == (0, 0)


async def test_what_changes_while_it_is_written_is_written_too(tmp_path: Path) -> None:
    cache, state = made(tmp_path, 5_000)
    table, new = cache._table, wire_entry([bytes((241, 9, 9, 9))], 60)
    write = asyncio.create_task(cache.write())
    await asyncio.sleep(0)

    table.remove(wire_name("s0.mesh"))
    table.put(wire_name("s1.mesh"), new)
    table.put(wire_name("late.mesh"), new)
    state.head = Head(revision="own.1-3~glob.1-1", mesh="default")
    await write
    _, found, found_state = loaded(tmp_path)

    assert entries(found) == entries(table)
    assert found_state.head == state.head
    assert table.touched == set()


async def test_a_map_that_is_replaced_while_it_is_written_is_written_later(tmp_path: Path) -> None:
    cache, state = made(tmp_path, 5_000)
    write = asyncio.create_task(cache.write())
    await asyncio.sleep(0)

    state.whole = False
    await write

    assert cache.writes == 0
    assert state.changed.is_set()


def test_without_a_file_there_is_no_map(tmp_path: Path) -> None:
    cache, table, state = loaded(tmp_path)

    assert not table.loaded
    assert state.head is None
    assert (cache.corrupt, cache.failures) == (0, 0)


@pytest.mark.parametrize("at", [0, 5, 14, 30, 60, -1])
async def test_a_flipped_bit_in_the_base_sets_the_file_aside(tmp_path: Path, at: int) -> None:
    await made(tmp_path)[0].write()
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)

    cache, table, _ = loaded(tmp_path)

    assert cache.corrupt == 1
    assert not table.loaded
    assert not path.exists()
    assert path.with_suffix(".corrupt").exists()


@pytest.mark.parametrize("keep", [0, 10, 45, 70])
async def test_a_cut_file_is_set_aside(tmp_path: Path, keep: int) -> None:
    await made(tmp_path)[0].write()
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:keep])

    cache, table, _ = loaded(tmp_path)

    assert cache.corrupt == 1
    assert not table.loaded


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [["not a head"]],
        [{"revision": "1", "mesh": "m"}],
        [{"revision": "1", "mesh": "m", "chunks": 2}, {}],
        [{"revision": "1", "mesh": "m", "chunks": 1}, ["not names"]],
        [{"revision": "1", "mesh": "m", "chunks": 1}, {b"a": b"b"}],
        [{"revision": "1", "mesh": "m", "chunks": 0}, [{"mesh": "m"}, {}]],
    ],
)
def test_a_sound_file_of_something_else_is_set_aside(tmp_path: Path, chunks: list[Any]) -> None:
    cache_module._replace(tmp_path / FILE_NAME, map(cache_module._packed, chunks))

    cache, table, _ = loaded(tmp_path)

    assert cache.corrupt == 1
    assert len(table) == 0


def entries(names: Names) -> dict[bytes, bytes | None]:
    return names.pick(names.keys())


async def changed_twice(directory: Path) -> tuple[Path, int, int]:
    """A base with s0 to s2, a delta without s0, one with s9; where the deltas begin."""
    cache, state = made(directory)
    await cache.write()
    base = last = cache.bytes
    for number, change in ((3, "s0.mesh"), (4, "s9.mesh")):
        key = wire_name(change)
        if key in cache._table.keys():  # noqa: SIM118 -- no mapping
            cache._table.remove(key)
        else:
            cache._table.put(key, wire_entry([bytes((241, 0, 0, 9))], 60))
        state.head = Head(revision=f"own.1-{number}~glob.1-1", mesh="default")
        last = cache.bytes
        await cache.write()
    assert base < last < cache.bytes == (directory / FILE_NAME).stat().st_size
    return directory / FILE_NAME, base, last


async def test_changes_are_appended_to_the_map_and_read_with_it(tmp_path: Path) -> None:
    await changed_twice(tmp_path)

    cache, table, state = loaded(tmp_path)

    assert state.head is not None
    assert state.head.revision == "own.1-4~glob.1-1"
    assert table.keys() == [wire_name(f"s{index}.mesh") for index in (1, 2, 9)]
    assert cache.corrupt == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "added"])
async def test_a_damaged_end_leaves_the_map_before_it_and_nothing_is_written_behind_it(
    tmp_path: Path, damage: str
) -> None:
    path, _, last = await changed_twice(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-1]
    elif damage == "flipped":
        data[last + 30] ^= 1
    else:
        data += b"\0\0"
    path.write_bytes(data)

    cache, table, state = loaded(tmp_path)
    assert state.head is not None
    found = state.head.revision
    table.put(wire_name("new.mesh"), wire_entry([bytes((241, 0, 0, 7))], 60))
    state.head = Head(revision="own.1-9~glob.1-1", mesh="default")
    await cache.write()

    assert found == ("own.1-4~glob.1-1" if damage == "added" else "own.1-3~glob.1-1")
    assert loaded(tmp_path)[1]._entries == table._entries
    assert cache.corrupt == 0


async def test_a_file_that_another_has_written_is_replaced(tmp_path: Path) -> None:
    cache, state = made(tmp_path)
    await cache.write()
    (tmp_path / FILE_NAME).write_bytes(b"something else")

    for number in (3, 4):
        cache._table.remove(wire_name(f"s{number - 3}.mesh"))
        state.head = Head(revision=f"own.1-{number}~glob.1-1", mesh="default")
        await cache.write()

    assert cache.failures == 1
    assert loaded(tmp_path)[1].keys() == [wire_name("s2.mesh")]


async def test_deltas_beyond_the_size_of_the_map_make_a_new_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "DELTAS_BYTES_MIN", 100)
    cache, state = made(tmp_path)
    sizes = []
    for number in range(40):
        entry = wire_entry([bytes((241, 0, 1, number))], 60)
        cache._table.put(wire_name("s0.mesh"), entry)
        state.head = Head(revision=f"own.1-{number}~glob.1-1", mesh="default")
        await cache.write()
        sizes.append(cache.bytes)

    assert max(sizes) < 4 * sizes[0] + 200
    assert any(after < before for before, after in pairwise(sizes))
    assert entries(loaded(tmp_path)[1]) == entries(cache._table)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE_NAME).write_bytes(bytes(100))
    monkeypatch.setattr(cache_module, "FILE_BYTES_MAX", 99)

    assert loaded(tmp_path)[0].corrupt == 1


async def test_neither_half_a_map_nor_none_nor_the_same_one_is_written(tmp_path: Path) -> None:
    nothing, _ = made(tmp_path, head=None)
    cache, state = made(tmp_path)

    await nothing.write()
    state.whole = False
    await cache.write()
    half = cache.writes
    state.whole = True
    await cache.write()
    await cache.write()

    assert (nothing.writes, half, cache.writes) == (0, 0, 1)


async def test_a_disk_that_cannot_be_written_is_counted_and_survived(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache, _ = made(tmp_path / "file")

    await cache.write()
    cache.load()

    assert (cache.writes, cache.failures) == (0, 2)


async def test_changes_are_written_behind_and_the_last_ones_at_the_stop(tmp_path: Path) -> None:
    cache, state = made(tmp_path)
    task = asyncio.create_task(cache.run())

    state.changed.set()
    await until(lambda: cache.writes == 1)
    state.head = Head(revision="own.1-3~glob.1-1", mesh="default")
    state.changed.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert cache.writes == 2
    assert loaded(tmp_path)[2].head == state.head


# Outbounds, for agents that follow them


def with_outbounds(directory: Path) -> tuple[Cache, FeedState, Outbounds]:
    table, state, outbounds = Table([]), FeedState(), Outbounds()
    state.head = Head(revision="own.1-1~glob.1-1", mesh="default")
    return Cache(directory, table, state, outbounds), state, outbounds


def outbound(number: int, port: int = 80) -> Outbound:
    return Outbound(
        id=f"id{number}",
        kind="MeshService",
        vips=(f"241.0.0.{number}",),
        port=port,
        name=f"s{number}",
        endpoints=(Endpoint(address="10.0.0.1", port=8080, zone="west"),),
    )


def found_outbounds(directory: Path) -> list[Outbound] | None:
    return read_outbounds(directory, "default")


async def test_outbounds_are_kept_beside_the_names(tmp_path: Path) -> None:
    cache, state, outbounds = with_outbounds(tmp_path)
    outbounds.put([outbound(1), outbound(2)])
    await cache.write()
    outbounds.put([outbound(2, port=81), outbound(3)])
    outbounds.remove(["id1"])
    state.head = Head(revision="own.1-2~glob.1-1", mesh="default")
    await cache.write()

    again, state_again, held = with_outbounds(tmp_path)
    state_again.head = None
    again.load()

    assert sorted(held, key=lambda each: each.id) == [outbound(2, port=81), outbound(3)]
    assert held.whole
    assert found_outbounds(tmp_path) == [outbound(2, port=81), outbound(3)]


async def test_a_change_of_outbounds_alone_is_appended(tmp_path: Path) -> None:
    cache, state, outbounds = with_outbounds(tmp_path)
    outbounds.put([outbound(number) for number in range(100)])
    await cache.write()
    base = cache.bytes

    outbounds.put([outbound(7, port=81)])
    state.head = Head(revision="own.1-2~glob.1-1", mesh="default")
    await cache.write()

    assert base < cache.bytes < base + 600
    assert outbound(7, port=81) in (found_outbounds(tmp_path) or [])


async def test_who_follows_no_outbounds_leaves_none_behind_that_are_old(tmp_path: Path) -> None:
    cache, _, outbounds = with_outbounds(tmp_path)
    outbounds.put([outbound(1)])
    await cache.write()

    state = FeedState()
    names_only = Cache(tmp_path, Table([]), state)
    names_only.load()
    state.head = Head(revision="own.1-2~glob.1-1", mesh="default")
    await names_only.write()

    again, _, held = with_outbounds(tmp_path)
    again.load()
    assert not held.whole, "a snapshot brings them"
    assert found_outbounds(tmp_path) is None
