"""The command `zonemesh log`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import click

from zonemesh.cli.entries import Chain, Shown, text, wanted
from zonemesh.cli.options import Redis, form_option, redis_options
from zonemesh.cli.reporting import reporting
from zonemesh.errors import ConfigError
from zonemesh.log.keys import Keys
from zonemesh.log.port import Head, Log, Raw
from zonemesh.log.redis import RedisStore
from zonemesh.log.sqlitefile import SqliteFile
from zonemesh.model import START, Position
from zonemesh.travel import GLOBAL_LOG

LAST = 10
_READ_COUNT = 256
_BLOCK_S = 1.0


class Source(Protocol):
    """Where entries are read."""

    async def head(self) -> Head | None: ...

    async def read(self, after: Position, *, block_s: float) -> Sequence[Raw]: ...

    async def close(self) -> None: ...


@click.command()
@click.argument("name", metavar="LOG", default=GLOBAL_LOG)
@redis_options
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="A log's file, own.db or global.db in a dataDir, without LOG; comes before --redis.",
)
@click.option("--after", metavar="POSITION", help="Begin after this one; 0-0 for all there is.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    default=LAST,
    show_default=True,
    help="Without --after: begin about so many entries before the end.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until Ctrl-C.")
@click.option("--kind", "kinds", multiple=True, help="Only entries that change this kind.")
@click.option("--changes", "changes_only", is_flag=True, help="Only entries that change anything.")
@form_option("text", "json", text="json: an object a line, with all that an entry says.")
@reporting
def log(
    name: str,
    *,
    redis: Redis | None,
    path: Path | None,
    after: str | None,
    last: int,
    follow: bool,
    kinds: tuple[str, ...],
    changes_only: bool,
    form: str,
) -> None:
    """Show the entries of a log, decoded, as they stand in Redis or in a file.

    LOG is global, zone:NAME:up or zone:NAME:own. Only read, past every control plane. Where an
    entry does not follow the one before it (a gap, another history), a line that begins with !!
    says so, and the exit code is 1.
    """

    def tell(entry: Shown) -> None:
        if not wanted(entry, kinds, changes_only=changes_only):
            return
        if form == "json":
            click.echo(json.dumps(entry, ensure_ascii=False))
        else:
            click.echo("\n".join(text(entry, kinds)))

    try:
        start = None if after is None else Position.parse(after)
        source = _source(name, redis, path)
        faults = asyncio.run(_show(source, start, last, follow=follow, tell=tell))
    except KeyboardInterrupt:
        return  # how following is meant to end
    if faults:
        sys.exit(1)


def _source(name: str, redis: Redis | None, path: Path | None) -> Source:
    if path is not None:
        return FileSource(SqliteFile(path))
    if redis is None:
        raise ConfigError(["say where the log is: --redis URL or --file PATH"])
    Keys(redis.prefix).of(name)  # refuses what is no log's name
    return RedisSource(redis.store(), name)


class RedisSource:
    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._log: Log = store.log(name)

    async def head(self) -> Head | None:
        return await self._log.head()

    async def read(self, after: Position, *, block_s: float) -> Sequence[Raw]:
        return await self._log.read(after, block_s=block_s, count=_READ_COUNT)

    async def close(self) -> None:
        await self._store.close()


class FileSource:
    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def head(self) -> Head | None:
        return self._file.head()

    async def read(self, after: Position, *, block_s: float) -> Sequence[Raw]:
        until_s = time.monotonic() + block_s
        # Another process writes: no event of ours could tell.
        while not (raws := self._file.read(after, _READ_COUNT)):
            if time.monotonic() >= until_s:
                break
            await asyncio.sleep(0.1)
        return raws

    async def close(self) -> None:
        self._file.close()


async def _show(
    source: Source,
    after: Position | None,
    last: int,
    *,
    follow: bool,
    tell: Callable[[Shown], None],
) -> int:
    """Tell each entry; answers how many faults there were."""
    try:
        head = await source.head()
        if head is None and not follow:
            raise ConfigError(["there is no such log here (yet)"])
        if after is None:
            after = START if head is None else _before_end(head.position, last)
        chain = Chain(from_beginning=after == START)
        async for raw in _entries(source, after, chain, follow=follow, tell=tell):
            for each in chain.take(raw):
                tell(each)
        return chain.faults
    finally:
        await source.close()


def _before_end(end: Position, last: int) -> Position:
    """Some entries before the end; only those of its term can be counted."""
    if end.seq >= last:
        return Position(end.term, end.seq - last)
    return Position(end.term, 0).before()


async def _entries(
    source: Source, after: Position, chain: Chain, *, follow: bool, tell: Callable[[Shown], None]
) -> AsyncIterator[Raw]:
    while True:
        raws = await source.read(after, block_s=_BLOCK_S if follow else 0.0)
        for raw in raws:
            yield raw
            after = raw.position
        if raws:
            continue
        fault = chain.compare(await source.head())
        if fault is not None:
            tell(fault)
            after = chain.place.position
        if not follow:
            return
