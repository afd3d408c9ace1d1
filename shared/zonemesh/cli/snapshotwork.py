"""What the commands `zonemesh snapshot` do, with logs and files."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from zonemesh import __version__
from zonemesh.cli.options import Redis
from zonemesh.errors import ConfigError, ConflictError, WireError
from zonemesh.log import backup as backups
from zonemesh.log import backupfile
from zonemesh.log.backupfile import Backup
from zonemesh.log.clock import Clock
from zonemesh.log.port import Log
from zonemesh.log.redis import RedisStore
from zonemesh.log.sqlite import SqliteLog
from zonemesh.log.sqlitecopy import copy_of
from zonemesh.model import Cursor
from zonemesh.registry import Registry
from zonemesh.runtime.datadir import data_dir
from zonemesh.travel import GLOBAL_LOG, own_log

OWN_FILE = "own.db"
"""In a zone's `dataDir`."""

STDOUT = "-"
_PROGRESS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a log is: in a zone's `dataDir` if one is named, else in a Redis."""

    redis: Redis | None
    zone: str | None
    directory: Path | None

    def __post_init__(self) -> None:
        if self.directory is None and self.redis is None:
            raise ConfigError(["say where the log is: --redis URL, or --data-dir of a zone"])

    @asynccontextmanager
    async def store(self) -> AsyncIterator[RedisStore]:
        assert self.redis is not None
        store = self.redis.store()
        try:
            yield store
        finally:
            await store.close()


async def save(where: Where) -> Backup:
    registry = Registry()
    progress = asyncio.create_task(_progress(registry))
    try:
        async with _reading(where) as target:
            return await backups.save(
                target, registry, saved_ms=Clock().wall_ms(), version=__version__
            )
    finally:
        progress.cancel()


async def restore(backup: Backup, where: Where, *, replace: str | None) -> Cursor:
    _check_target(backup.log, where, replace)
    if where.directory is not None:
        with data_dir(where.directory):
            target = SqliteLog(where.directory / OWN_FILE, backup.log)
            try:
                return await backups.put_back(target, backup)
            finally:
                await target.close()
    async with where.store() as store:
        if backup.log == GLOBAL_LOG:
            return await backups.found_global(store, backup, clock=Clock(), replace=replace)
        return await backups.put_back(store.log(backup.log), backup)


def write(path: str, backup: Backup, *, force: bool) -> int:
    """Write a file in one step, or to stdout; answers how many octets.

    Raises:
        ConflictError: It is there already, or cannot be written.
    """
    if path == STDOUT:
        octets = sum(map(sys.stdout.buffer.write, backupfile.pieces(backup)))
        sys.stdout.buffer.flush()
        return octets
    check_absent(path, force=force)
    target = Path(path)
    # Beside it, and renamed when it is whole: there is never a part of a file.
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            octets = sum(map(file.write, backupfile.pieces(backup)))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise ConflictError(f"{path}: {error.strerror}") from error
    return octets


def check_absent(path: str, *, force: bool) -> None:
    if path != STDOUT and not force and Path(path).exists():
        raise ConflictError(f"{path} is there already; --force overwrites it")


def read(path: str) -> tuple[Backup, int]:
    """A file that is whole, and its octets."""
    try:
        with click.open_file(path, "rb") as file:
            data: bytes = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    with named(path):
        return backupfile.parse(data), len(data)


@contextmanager
def named(path: str) -> Iterator[None]:
    """What is wrong with a file is told with its name."""
    try:
        yield
    except WireError as error:
        raise type(error)(f"{path}: {error}") from error


@asynccontextmanager
async def _reading(where: Where) -> AsyncIterator[Log]:
    if where.directory is None:
        async with where.store() as store:
            yield store.log(own_log(where.zone) if where.zone else GLOBAL_LOG)
        return
    with tempfile.TemporaryDirectory(prefix="zonemesh-") as scratch:
        copy = Path(scratch) / OWN_FILE
        name = await asyncio.to_thread(copy_of, where.directory / OWN_FILE, copy)
        target = SqliteLog(copy, name)
        try:
            yield target
        finally:
            await target.close()


async def _progress(registry: Registry) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        click.echo(f"read {len(registry)} records ...", err=True)


def _check_target(log: str, where: Where, replace: str | None) -> None:
    fault = None
    if log == GLOBAL_LOG:
        if where.directory is not None:
            fault = "this file holds global's log, which is in Redis: give --redis"
        elif where.zone:
            fault = f"this file holds global's log, not that of zone {where.zone}"
    elif replace is not None:
        fault = "--replace is for global's log; a zone's is put back where there is none"
    elif where.directory is None and not (where.zone and log == own_log(where.zone)):
        fault = (
            f"this file holds the log {log}: give --data-dir of its zone, or --redis and --zone"
            " where its log.url is a Redis"
        )
    if fault is not None:
        raise ConfigError([fault])
