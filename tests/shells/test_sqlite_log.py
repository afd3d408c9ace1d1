"""What is the file's own: durability, the lock between processes, and files that cannot be used."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.chains import head_of, raws
from tests.patience import SLOWER
from zonemesh.errors import ConfigError, RefusedError, UnavailableError
from zonemesh.log.port import Lease, SnapshotInfo
from zonemesh.log.sqlite import SCHEMA, SqliteLog
from zonemesh.model import START, Position
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

A = Lease(writer="writer-a", url="http://a:5681")
B = Lease(writer="writer-b", url="http://b:5681")
NAME = "zone:west:own"

CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_sqlite_log import A, NAME, entry
from zonemesh.errors import FateUnknownError
from zonemesh.log.sqlite import SqliteLog

async def main():
    log = SqliteLog(Path(sys.argv[1]), NAME)
{body}

asyncio.run(main())
"""

APPENDING = """
    sealed = entry(0, None)
    await log.create(sealed)
    for seq in range(1, 10_000):
        sealed = entry(seq, sealed)
        await log.append(sealed)
        print(seq, flush=True)
"""

LEADING = """
    print(await log.acquire(A), flush=True)
    sys.stdin.read()
"""

ON_A_FULL_DISK = """
    import resource
    sealed = entry(0, None)
    await log.create(sealed)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = Path(sys.argv[1] + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 40_000, unlimited[1]))
    full = 0
    for seq in range(1, 40):
        sealed = entry(seq, sealed)
        try:
            await log.append(sealed)
        except FateUnknownError:
            full += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            await log.append(sealed)
    print(full, (await log.head()).position, len(await log.read((0, 0))), flush=True)
    await log.close()
"""


def entry(seq: int, after: Sealed | None) -> Sealed:
    made = Entry(
        incarnation="inc-1",
        position=Position(1, seq),
        previous=START if after is None else after.entry.position,
        writer="writer-a",
        time_ms=seq,
        mono_delta_ms=0,
        log_time_ms=0,
        note={"filler": "x" * 3_000},
    )
    return seal(made, NO_HASH if after is None else after.h)


def chain_of(length: int) -> list[Sealed]:
    chain: list[Sealed] = []
    for seq in range(length):
        chain.append(entry(seq, chain[-1] if chain else None))
    return chain


def snapshot_of(sealed: Sealed) -> SnapshotInfo:
    return SnapshotInfo(incarnation="inc-1", position=sealed.entry.position, h=sealed.h, chunks=1)


def child(body: str, path: Path) -> subprocess.Popen[str]:
    code = CHILD.format(here=str(Path(__file__).parent), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


async def until(probe: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so: what another thread does can only be polled."""
    async with asyncio.timeout(SLOWER * 5):
        while True:
            if await probe():
                return
            await asyncio.sleep(0.002)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "own.db", NAME)
    yield log
    await log.close()


# ── durability ──


async def test_what_was_answered_survives_kill_9(tmp_path: Path, log: SqliteLog) -> None:
    with child(APPENDING, tmp_path / "own.db") as process:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        answered += [int(line) for line in process.stdout.read().splitlines()]

    head, entries = await log.head(), await log.read(START, count=20_000)
    assert head is not None
    assert head.position.seq >= answered[-1]
    assert [raw.position.seq for raw in entries] == list(range(head.position.seq + 1))


def test_a_full_disk_is_fate_unknown_and_the_same_bytes_pass_when_it_has_room(
    tmp_path: Path,
) -> None:
    with child(ON_A_FULL_DISK, tmp_path / "own.db") as process:
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert out.split() == ["1", "1-39", "40"]


async def test_an_own_log_syncs_every_commit_and_a_copy_does_not(tmp_path: Path) -> None:
    levels = {}
    for durable in (True, False):
        log = SqliteLog(tmp_path / f"{durable}.db", NAME, durable=durable)
        levels[durable] = await log._write(
            lambda connection: connection.execute("PRAGMA synchronous").fetchone()
        )
        await log.close()

    assert levels == {True: (2,), False: (1,)}, "2 is FULL, 1 is NORMAL"


async def test_an_append_that_was_cancelled_wakes_who_waits_for_it(
    tmp_path: Path, log: SqliteLog
) -> None:
    chain = chain_of(2)
    await log.create(chain[0])
    reading = asyncio.ensure_future(log.read(Position(1, 0), block_s=30))
    another = sqlite3.connect(tmp_path / "own.db", isolation_level=None)
    another.execute("BEGIN IMMEDIATE")  # holds the append up in its thread
    appending = asyncio.ensure_future(log.append(chain[1]))

    async def with_the_thread() -> bool:
        return not appending.done() and log._writing._work_queue.empty()

    await asyncio.sleep(0)
    await until(with_the_thread)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    another.execute("ROLLBACK")
    another.close()

    async with asyncio.timeout(SLOWER * 5):
        assert list(await reading) == raws(chain[1:])


async def test_no_call_blocks_the_event_loop(no_blocking: BlockBuster, log: SqliteLog) -> None:
    chain = chain_of(2)
    await log.create(chain[0])
    assert await log.acquire(A)
    await log.append(chain[1])
    await log.put_snapshot(snapshot_of(chain[1]), [b"chunk"])
    await log.read(START)
    await log.holder()
    await log.close()


# ── the lock ──


async def test_two_processes_do_not_lead_at_once(tmp_path: Path, log: SqliteLog) -> None:
    with child(LEADING, tmp_path / "own.db") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"

        assert not await log.acquire(B)
        assert await log.holder() == A

        process.kill()  # the lock goes with its process, however that ends
    assert await log.holder() is None
    assert await log.acquire(B)


async def test_closing_gives_the_lock_up(tmp_path: Path, log: SqliteLog) -> None:
    other = SqliteLog(tmp_path / "other.db", "global")
    assert await log.acquire(A)
    assert not await other.acquire(B), "one lock for a directory, whatever its files"

    await log.close()

    assert await other.acquire(B)
    await other.close()


async def test_a_closed_log_says_so(log: SqliteLog) -> None:
    await log.close()

    with pytest.raises(UnavailableError, match="closed"):
        await log.head()


# ── files that cannot be used ──


async def refusal_of(path: Path) -> str:
    log = SqliteLog(path, NAME)
    with pytest.raises(ConfigError) as refusal:
        await log.head()
    await log.close()
    (fault,) = refusal.value.faults
    assert str(path.parent) in fault
    assert "\n" not in fault
    return fault


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "no such directory" in await refusal_of(tmp_path / "nowhere" / "own.db")


async def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    assert "unable to open" in await refusal_of(tmp_path)


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    path.write_bytes(b"precious" * 1000)

    assert "not a database" in await refusal_of(path)
    assert path.read_bytes() == b"precious" * 1000


async def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    assert "not a log of Zonemesh" in await refusal_of(path)


async def test_a_file_of_a_newer_build_is_refused(tmp_path: Path, log: SqliteLog) -> None:
    await log.create(entry(0, None))
    await log.close()
    connection = sqlite3.connect(tmp_path / "own.db")
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()

    assert f"schema {SCHEMA + 1}" in await refusal_of(tmp_path / "own.db")


async def test_the_file_of_another_log_is_refused(tmp_path: Path) -> None:
    other = SqliteLog(tmp_path / "own.db", "zone:east:own")
    await other.head()
    await other.close()

    assert "zone:east:own" in await refusal_of(tmp_path / "own.db")


async def test_a_damaged_file_is_refused(tmp_path: Path, log: SqliteLog) -> None:
    for sealed in chain_of(1):
        await log.create(sealed)
    await log.close()
    path = tmp_path / "own.db"
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))

    assert "malformed" in await refusal_of(path)


# ── copies of other logs ──


async def test_a_copy_keeps_entries_and_head_as_they_are(tmp_path: Path) -> None:
    chain = chain_of(6)
    copy = SqliteLog(tmp_path / "global.db", "global", durable=False)

    await copy.put_snapshot(snapshot_of(chain[2]), [b"state at 1-2"])
    await copy.copy(raws(chain[3:5]), head_of(chain[4]))
    await copy.copy(raws(chain[4:]), head_of(chain[5]))  # overlapping is no harm

    assert list(await copy.read(START)) == raws(chain[3:])
    assert await copy.head() == head_of(chain[5])
    assert list(await copy.snapshots()) == [snapshot_of(chain[2])]
    await copy.close()


async def test_a_copy_of_another_history_can_be_cleared(tmp_path: Path) -> None:
    chain = chain_of(3)
    copy = SqliteLog(tmp_path / "global.db", "global", durable=False)
    await copy.put_snapshot(snapshot_of(chain[2]), [b"state"])
    await copy.copy(raws(chain), head_of(chain[2]))

    await copy.clear()
    await copy.put_snapshot(snapshot_of(chain[0]), [b"earlier"])

    assert await copy.head() is None
    assert list(await copy.read(START)) == []
    assert list(await copy.load_snapshot(snapshot_of(chain[0]))) == [b"earlier"]
    await copy.close()


async def test_an_own_log_is_only_appended_to(log: SqliteLog) -> None:
    with pytest.raises(RuntimeError):
        await log.copy([], head_of(entry(0, None)))
    with pytest.raises(RuntimeError):
        await log.clear()
    with pytest.raises(RuntimeError):
        await log.replace(snapshot_of(entry(0, None)), [b"state"], head_of(entry(0, None)))


@pytest.mark.parametrize("position", [1, 2])
async def test_a_copy_broken_off_while_it_is_replaced_is_the_old_one_and_then_the_new(
    tmp_path: Path, position: int
) -> None:
    chain = chain_of(4)
    copy = SqliteLog(tmp_path / "global.db", "global", durable=False)
    await copy.put_snapshot(snapshot_of(chain[position]), [b"old"])
    await copy.copy(raws(chain[position + 1 :]), head_of(chain[3]))
    new = replace(snapshot_of(chain[2]), incarnation="inc-2", h=b"another!", chunks=100)
    head = replace(head_of(chain[2]), incarnation="inc-2", h=b"another!")
    replacing = asyncio.ensure_future(copy.replace(new, [b"x"] * 100, head))
    await until(lambda: copy._read(_several_chunks))
    replacing.cancel()
    await asyncio.gather(replacing, return_exceptions=True)

    assert await copy.head() == head_of(chain[3])
    assert list(await copy.read(START)) == raws(chain[position + 1 :])
    assert list(await copy.load_snapshot(snapshot_of(chain[position]))) == [b"old"]

    await copy.replace(new, [b"%d" % i for i in range(100)], head)

    assert await copy.head() == head
    assert list(await copy.read(START)) == []
    assert list(await copy.snapshots()) == [new]
    assert list(await copy.load_snapshot(new)) == [b"%d" % i for i in range(100)]
    assert await copy._read(_count_chunks) == 100
    await copy.close()


async def test_chunks_of_a_snapshot_that_was_broken_off_are_removed_by_the_next(
    log: SqliteLog,
) -> None:
    chain = chain_of(2)
    await log.create(chain[0])
    await log.append(chain[1])
    putting = asyncio.ensure_future(log.put_snapshot(snapshot_of(chain[0]), [b"x"] * 100))
    await until(lambda: log._read(_some_chunks))
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)

    await log.put_snapshot(snapshot_of(chain[1]), [b"whole"])

    assert await log._read(_count_chunks) == 1
    with pytest.raises(RefusedError):
        await log.put_snapshot(snapshot_of(chain[0]), [b"late"])


def _count_chunks(connection: sqlite3.Connection) -> int:
    count: int
    (count,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    return count


def _several_chunks(connection: sqlite3.Connection) -> bool:
    return _count_chunks(connection) > 1


def _some_chunks(connection: sqlite3.Connection) -> bool:
    return _count_chunks(connection) > 0
