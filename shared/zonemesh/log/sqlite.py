"""A log in one SQLite file: the own log of a zone with one control plane; local copies of others.

All work is done in two threads of its own, so that no fsync stops the event loop: one writes (and
makes the schema), one reads. A write is durable when it returns: WAL with `synchronous=FULL`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from zonemesh.errors import (
    ConfigError,
    DamagedFileError,
    FateUnknownError,
    NotFoundError,
    UnavailableError,
)
from zonemesh.log import fence
from zonemesh.log.port import Head, Lease, Raw, SnapshotInfo
from zonemesh.model import Position
from zonemesh.wire import Sealed

SCHEMA = 1
LOCK = "lock"
"""Beside the file: whoever holds its flock leads. Local disks only; NFS may grant it twice."""

APPLICATION_ID = 0x5A4D4C47  # "ZMLG": tells our files from other people's
DAMAGED = ".damaged"
"""Ends the name of a file that was set aside."""
_MAGIC = b"SQLite format 3"
_BUSY_S = 2.0
_WAL_BYTES_MAX = 16 << 20
"""What a checkpoint leaves of a write-ahead log that a snapshot made large."""

_TABLES = """
CREATE TABLE entries (term INTEGER, seq INTEGER, data BLOB NOT NULL, PRIMARY KEY (term, seq));
CREATE TABLE head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    incarnation TEXT NOT NULL, term INTEGER NOT NULL, seq INTEGER NOT NULL, h BLOB NOT NULL,
    time_ms INTEGER NOT NULL, owner TEXT NOT NULL, format INTEGER NOT NULL
);
CREATE TABLE snapshots (
    term INTEGER, seq INTEGER, incarnation TEXT NOT NULL, h BLOB NOT NULL,
    chunks INTEGER NOT NULL, PRIMARY KEY (term, seq)
);
CREATE TABLE chunks (term INTEGER, seq INTEGER, i INTEGER, data BLOB NOT NULL,
    PRIMARY KEY (term, seq, i));
CREATE TABLE log (name TEXT NOT NULL);
"""

# Nothing that waiting cures: the operator must change the path, its rights, or restore the file.
_WRONG_FILE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)

P = ParamSpec("P")
T = TypeVar("T")


class SqliteLog:
    """One log in one file.

    Opened at the first call, which raises `ConfigError` if the file cannot be used. Reads wait only
    for appends made through this object: a log in a file has one process.

    Args:
        path: The file; made if its directory exists.
        name: The log's; a file of another log is refused.
        durable: False for a copy of another log: losing its newest part in a power cut costs a
            download. Only then `copy`, `replace` and `clear` may be used, and only then a snapshot
            may be put whose entry is not held.
    """

    def __init__(self, path: Path, name: str, *, durable: bool = True) -> None:
        self._path = path
        self._name = name
        self._durable = durable
        self._writing = ThreadPoolExecutor(1, f"sqlite-write-{path.name}")
        self._reading = ThreadPoolExecutor(1, f"sqlite-read-{path.name}")
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._changed = asyncio.Event()
        self._lock: int | None = None
        self._lease: Lease | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    async def head(self) -> Head | None:
        return await self._read(read_head)

    async def create(
        self, sealed: Sealed, *, owner: str = "", replacing: Head | None = None
    ) -> None:
        await self._append(lambda: self._transact(_create, sealed, owner, replacing))

    async def append(self, sealed: Sealed, *, owner: str | None = None) -> None:
        await self._append(lambda: self._transact(_append, sealed, owner))

    async def resign(self, sealed: Sealed, lease: Lease) -> None:
        def append_and_unlock() -> bool:
            appended = self._transact(_append, sealed, None)
            if self._lease is not None and self._lease.writer == lease.writer:
                self._unlock()
            return appended

        await self._append(append_and_unlock)

    async def repair(self, newest: Sealed | None = None, *, owner: str = "") -> bool:
        """Never anything: entries and head are of one file and one transaction."""
        del newest, owner
        return False

    async def read(
        self, after: Position, *, block_s: float = 0.0, count: int = 512
    ) -> Sequence[Raw]:
        clock = asyncio.get_running_loop().time
        until_s = clock() + block_s
        while True:
            changed = self._changed
            raws = await self._read(read_entries, after, count)
            if raws or clock() >= until_s:
                return raws
            try:
                async with asyncio.timeout_at(until_s):
                    await changed.wait()
            except TimeoutError:
                continue

    async def put_snapshot(self, info: SnapshotInfo, chunks: Sequence[bytes]) -> None:
        if not await self._write(_may_announce, info, fenced=self._durable):
            return
        # A transaction each, so that appends get their turns.
        for i, chunk in enumerate(chunks):
            await self._write(_put_chunk, info, i, chunk)
        await self._write(_announce, info, fenced=self._durable)

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        return await self._read(_snapshots)

    async def load_snapshot(self, info: SnapshotInfo) -> Sequence[bytes]:
        return await self._read(_chunks, info)

    async def trim(self, before: Position) -> int:
        return await self._write(_trim, before)

    async def copy(self, raws: Sequence[Raw], head: Head) -> None:
        """Store entries of another log as they are, and its head, in one step.

        Nothing is compared: that the entries follow each other is the caller's to know.
        """
        self._require_copy()
        await self._write(_copy, raws, head)
        self._tell()

    async def replace(self, info: SnapshotInfo, chunks: Sequence[bytes], head: Head) -> None:
        """Start a copy again from a snapshot; broken off at any moment, the old one is whole."""
        self._require_copy()
        first = await self._write(_next_chunk, info)
        for i, chunk in enumerate(chunks, first):
            await self._write(_put_chunk, info, i, chunk)
        await self._write(_replace, info, first, head)
        self._tell()

    async def clear(self) -> None:
        """Forget a copy whose original turned out to be another history, or a damaged one."""
        self._require_copy()
        try:
            await self._write(_clear)
        except DamagedFileError:
            await self.set_aside()

    async def set_aside(self) -> Path:
        """Keep a damaged file beside its place, and begin with none; where it is now.

        One is kept: the one before goes.

        Raises:
            UnavailableError: The directory takes no change.
        """
        await self._in(self._reading, self._close_reader)
        return await self._in(self._writing, self._move)

    def _move(self) -> Path:
        self._close_writer_connection()
        aside = self._path.with_name(self._path.name + DAMAGED)
        try:
            for end in ("", "-wal", "-shm"):
                aside.with_name(aside.name + end).unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + end).rename(f"{aside}{end}")
        except OSError as error:
            raise UnavailableError(f"{error.filename}: {error.strerror}") from error
        return aside

    async def acquire(self, lease: Lease) -> bool:
        return await self._in(self._writing, lambda: self._flock(lease))

    async def renew(self, lease: Lease) -> bool:
        return self._lease is not None and self._lease.writer == lease.writer

    async def release(self, lease: Lease) -> None:
        if await self.renew(lease):
            await self._in(self._writing, self._unlock)

    async def holder(self) -> Lease | None:
        return await self._in(self._reading, self._seen_holder)

    async def close(self) -> None:
        if self._closed:
            return
        await self._in(self._reading, self._close_reader)
        await self._in(self._writing, self._close_writer)
        self._closed = True
        self._reading.shutdown(wait=False)
        self._writing.shutdown(wait=False)

    def _require_copy(self) -> None:
        if self._durable:
            raise RuntimeError(f"{self._path}: a log of our own is only appended to")

    # ── threads ──

    async def _append(self, act: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            # Told from here: the caller may be cancelled, and the entry is there all the same.
            if act():
                loop.call_soon_threadsafe(self._tell)

        try:
            await self._in(self._writing, work)
        except UnavailableError as error:
            raise FateUnknownError(str(error)) from error

    async def _write(
        self,
        act: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._in(self._writing, lambda: self._transact(act, *args, **kwargs))

    async def _read(
        self,
        act: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if self._reader is None:
            await self._in(self._writing, self._open_writer)  # makes file and schema

        def work() -> T:
            with self._translated():
                return act(self._open_reader(), *args, **kwargs)

        return await self._in(self._reading, work)

    async def _in(self, thread: ThreadPoolExecutor, act: Callable[[], T]) -> T:
        if self._closed:
            raise UnavailableError(f"{self._path}: closed")
        return await asyncio.get_running_loop().run_in_executor(thread, act)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ── in the writing thread ──

    def _transact(
        self,
        act: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        connection = self._open_writer()
        with self._translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = act(connection, *args, **kwargs)
                connection.execute("COMMIT")
            except sqlite3.Error:
                # What reached the disk is unknown to SQLite too: look again with a new connection.
                self._close_writer_connection()
                raise
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            return result

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            directory = self._path.parent
            if not directory.is_dir():
                raise ConfigError([f"{directory}: no such directory"])
            with self._translated():
                connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
                try:
                    self._prepare(connection)
                except BaseException:
                    connection.close()
                    raise
            self._writer = connection
        return self._writer

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            fault = str(found).rpartition("\n")[2]
            raise DamagedFileError([f"{self._path}: database disk image is malformed: {fault}"])
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_MAX}")
        connection.execute("BEGIN IMMEDIATE")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO log VALUES (?)", (self._name,))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        elif application != APPLICATION_ID:
            raise ConfigError([f"{self._path}: not a log of Zonemesh"])
        elif version > SCHEMA:
            raise ConfigError(
                [f"{self._path}: schema {version}, this build knows {SCHEMA}; upgrade it"]
            )
        else:
            (name,) = connection.execute("SELECT name FROM log").fetchone()
            if name != self._name:
                fault = f"{self._path}: holds the log {name}, not {self._name}"
                raise ConfigError([f"{fault}; every control plane needs a dataDir of its own"])
        connection.execute("COMMIT")

    def _close_writer(self) -> None:
        self._close_writer_connection()
        self._unlock()

    def _close_writer_connection(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flock(self, lease: Lease) -> bool:
        if self._lock is not None:
            return self._lease is not None and self._lease.writer == lease.writer
        try:
            lock = os.open(self._path.parent / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError([f"{error.filename}: {error.strerror}"]) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        # For people and `holder`: the lock itself names nobody.
        os.truncate(lock, 0)
        os.write(lock, json.dumps({"writer": lease.writer, "url": lease.url}).encode())
        self._lock, self._lease = lock, lease
        return True

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = self._lease = None

    # ── in the reading thread ──

    def _open_reader(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S
            )
        return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _seen_holder(self) -> Lease | None:
        if self._lease is not None:
            return self._lease
        try:
            with (self._path.parent / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return self._read_lock()
        return None

    def _read_lock(self) -> Lease | None:
        try:
            document = json.loads((self._path.parent / LOCK).read_bytes())
            return Lease(writer=str(document["writer"]), url=str(document["url"]))
        except (ValueError, TypeError, KeyError, OSError):  # just now being taken or given up
            return None

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The low byte is the primary code; the others only refine it.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code == sqlite3.SQLITE_CORRUPT or (
                code == sqlite3.SQLITE_NOTADB and self._was_ours()
            ):
                raise DamagedFileError([f"{self._path}: {error}"]) from error
            if code in _WRONG_FILE:
                raise ConfigError([f"{self._path}: {error}"]) from error
            raise UnavailableError(f"{self._path}: {error}") from error

    def _was_ours(self) -> bool:
        """Whether what SQLite cannot read is an SQLite file all the same."""
        try:
            with self._path.open("rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC
        except OSError:
            return False


# ── what is done within a transaction ──


def read_head(connection: sqlite3.Connection) -> Head | None:
    row = connection.execute(
        "SELECT incarnation, term, seq, h, time_ms, owner, format FROM head"
    ).fetchone()
    if row is None:
        return None
    incarnation, term, seq, h, time_ms, owner, version = row
    return Head(
        incarnation=incarnation,
        position=Position(term, seq),
        h=h,
        time_ms=time_ms,
        owner=owner,
        format=version,
    )


def _append(connection: sqlite3.Connection, sealed: Sealed, owner: str | None) -> bool:
    head = read_head(connection)
    if not fence.appends(head, sealed):
        return False
    top = _top(connection)
    if top is None or top >= sealed.entry.position:
        raise fence.refused(head, sealed)
    _put(connection, sealed, fence.head_after(head, sealed, owner))
    return True


def _create(
    connection: sqlite3.Connection, sealed: Sealed, owner: str, replacing: Head | None
) -> bool:
    if not fence.creates(read_head(connection), sealed, top=_top(connection), found=replacing):
        return False
    connection.execute("DELETE FROM entries")
    _put(connection, sealed, fence.head_after(None, sealed, owner))
    return True


def _put(connection: sqlite3.Connection, sealed: Sealed, head: Head) -> None:
    _put_entries(connection, (Raw(head.position, sealed.data),))
    _put_head(connection, head)


def _put_entries(connection: sqlite3.Connection, raws: Sequence[Raw]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
        ((*raw.position, raw.data) for raw in raws),
    )


def _put_head(connection: sqlite3.Connection, head: Head) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (head.incarnation, *head.position, head.h, head.time_ms, head.owner, head.format),
    )


def _top(connection: sqlite3.Connection) -> Position | None:
    row = connection.execute(
        "SELECT term, seq FROM entries ORDER BY term DESC, seq DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Position(*row)


def read_entries(connection: sqlite3.Connection, after: Position, count: int) -> list[Raw]:
    rows = connection.execute(
        "SELECT term, seq, data FROM entries WHERE (term, seq) > (?, ?) ORDER BY term, seq LIMIT ?",
        (*after, count),
    )
    return [Raw(Position(term, seq), data) for term, seq, data in rows]


def _trim(connection: sqlite3.Connection, before: Position) -> int:
    top = _top(connection)
    if top is None:
        return 0
    return connection.execute(
        "DELETE FROM entries WHERE (term, seq) < (?, ?)", min(before, top)
    ).rowcount


def _copy(connection: sqlite3.Connection, raws: Sequence[Raw], head: Head) -> None:
    _put_entries(connection, raws)
    _put_head(connection, head)


def _clear(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM entries")
    connection.execute("DELETE FROM head")
    connection.execute("DELETE FROM snapshots")
    connection.execute("DELETE FROM chunks")


def _next_chunk(connection: sqlite3.Connection, info: SnapshotInfo) -> int:
    """Beyond what another snapshot has at this position, announced or broken off."""
    (last,) = connection.execute(
        "SELECT max(i) FROM chunks WHERE (term, seq) = (?, ?)", info.position
    ).fetchone()
    return 0 if last is None else int(last) + 1


def _replace(connection: sqlite3.Connection, info: SnapshotInfo, first: int, head: Head) -> None:
    connection.execute("DELETE FROM entries")
    connection.execute("DELETE FROM snapshots")
    connection.execute(
        "DELETE FROM chunks WHERE (term, seq) != (?, ?) OR i < ?", (*info.position, first)
    )
    # Only where the replaced snapshot was at this very position: one by one, so that none collides.
    for i in range(info.chunks if first else 0):
        connection.execute(
            "UPDATE chunks SET i = ? WHERE (term, seq, i) = (?, ?, ?)",
            (i, *info.position, first + i),
        )
    connection.execute(
        "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
        (*info.position, info.incarnation, info.h, info.chunks),
    )
    _put_head(connection, head)


def _snapshots(connection: sqlite3.Connection) -> list[SnapshotInfo]:
    rows = connection.execute(
        "SELECT incarnation, term, seq, h, chunks FROM snapshots ORDER BY term DESC, seq DESC"
    )
    return [
        SnapshotInfo(incarnation=incarnation, position=Position(term, seq), h=h, chunks=chunks)
        for incarnation, term, seq, h, chunks in rows
    ]


def _may_announce(connection: sqlite3.Connection, info: SnapshotInfo, *, fenced: bool) -> bool:
    announced = _snapshots(connection)
    row = connection.execute(
        "SELECT data FROM entries WHERE (term, seq) = (?, ?)", info.position
    ).fetchone()
    return fence.announces(
        read_head(connection) if fenced else None,
        None if row is None else fence.hash_of(row[0]),
        announced,
        info,
    )


def _put_chunk(connection: sqlite3.Connection, info: SnapshotInfo, i: int, data: bytes) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", (*info.position, i, data)
    )


def _announce(connection: sqlite3.Connection, info: SnapshotInfo, *, fenced: bool) -> None:
    if not _may_announce(connection, info, fenced=fenced):
        return
    kept = [old for old in _snapshots(connection)[:1] if old.incarnation == info.incarnation]
    connection.execute("DELETE FROM snapshots")
    connection.executemany(
        "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
        ((*one.position, one.incarnation, one.h, one.chunks) for one in (info, *kept)),
    )
    # Also what an interrupted snapshot left.
    connection.execute(
        "DELETE FROM chunks WHERE (term, seq) NOT IN (SELECT term, seq FROM snapshots) OR i >= "
        "(SELECT chunks FROM snapshots s WHERE (s.term, s.seq) = (chunks.term, chunks.seq))"
    )


def _chunks(connection: sqlite3.Connection, info: SnapshotInfo) -> list[bytes]:
    if info not in _snapshots(connection):
        raise NotFoundError(f"snapshot {info.position} is not announced")
    # What lies beyond them is a successor's that is not whole yet.
    rows = connection.execute(
        "SELECT data FROM chunks WHERE (term, seq) = (?, ?) ORDER BY i LIMIT ?",
        (*info.position, info.chunks),
    ).fetchall()
    if len(rows) != info.chunks:
        raise NotFoundError(f"snapshot {info.position} has {len(rows)} of {info.chunks} chunks")
    return [data for (data,) in rows]
