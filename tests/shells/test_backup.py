"""Snapshot files: what was saved is what is read, damage is told, and nothing is overwritten."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgpack
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.cli.main import cli
from zonemesh.errors import NewerFormatError, WireError
from zonemesh.log import backup as backups
from zonemesh.log import backupfile, snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.backupfile import MAGIC, Backup
from zonemesh.log.clock import Clock
from zonemesh.log.port import Log
from zonemesh.log.redis import RedisStore
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import Change, Key
from zonemesh.recovery import Recovery
from zonemesh.registry import Registry
from zonemesh.travel import own_log

T = TypeVar("T")

ANY = Backup(log="global", saved_ms=1, version="0.1.0", newest=b"entry", chunks=[b"a", b"bc"])


def octets(backup: Backup = ANY) -> bytes:
    return b"".join(backupfile.pieces(backup))


# The file


@given(
    newest=st.binary(), chunks=st.lists(st.binary(), max_size=5), saved_ms=st.integers(0, 1 << 60)
)
def test_what_was_written_is_read(newest: bytes, chunks: list[bytes], saved_ms: int) -> None:
    backup = Backup(log="global", saved_ms=saved_ms, version="1", newest=newest, chunks=chunks)

    assert backupfile.parse(octets(backup)) == backup


@pytest.mark.parametrize("length", range(len(octets())))
def test_a_file_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(WireError, match=r"cut off|damaged|not a file"):
        backupfile.parse(octets()[:length])


@pytest.mark.parametrize("at", range(len(octets())))
def test_an_octet_changed_anywhere_is_found(at: int) -> None:
    damaged = bytearray(octets())
    damaged[at] ^= 0x5A

    with pytest.raises(WireError):
        backupfile.parse(bytes(damaged))


def test_a_later_format_says_what_is_needed() -> None:
    header = msgpack.packb((2, "whatever it will be"))
    data = MAGIC + len(header).to_bytes(4, "big") + header + bytes(40)

    with pytest.raises(NewerFormatError, match=r"format 2.*use a newer zonemesh"):
        backupfile.parse(data)


# Logs


async def filled(target: Log, *, zone: str = "") -> Registry:
    """A log that goes on behind a snapshot of it."""
    registry = Registry()
    appender = Appender(target, writer="w", clock=Clock())
    key = Key("default", zone, "", "x").packed
    registry.apply(await appender.create("inc-1", term=3))
    registry.apply(await appender.commit(changes=[Change("Mesh", key, b"before")]))
    await snapshotter.write(target, registry.freeze())
    await target.trim(registry.position)
    registry.apply(await appender.commit(changes=[Change("Mesh", key, b"after")]))
    return registry


def with_redis(url: str, act: Callable[[RedisStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = RedisStore(url)
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(run())


def with_file(directory: Path, act: Callable[[Log], Awaitable[T]], zone: str = "west") -> T:
    async def run() -> T:
        target = SqliteLog(directory / "own.db", own_log(zone))
        try:
            return await act(target)
        finally:
            await target.close()

    return asyncio.run(run())


async def state(target: Log) -> Registry:
    registry = Registry()
    await backups.save(target, registry, saved_ms=0, version="")
    return registry


def zonemesh(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["snapshot", *map(str, arguments)])


@pytest.fixture
def saved(redis_url: str, tmp_path: Path) -> Path:
    """Global's log, which is in that Redis too."""
    with_redis(redis_url, lambda store: filled(store.log("global")))
    path = tmp_path / "mesh.zms"
    done = zonemesh("save", "--redis", redis_url, "--output", path)
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.redis
def test_globals_log_is_saved_to_its_head_and_told(saved: Path) -> None:
    told = zonemesh("inspect", saved)
    facts = json.loads(zonemesh("inspect", saved, "-o", "json").stdout)

    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [each.name for each in saved.parent.iterdir()] == [saved.name]
    assert facts["log"] == "global"
    assert facts["position"] == "3-2"
    assert facts["incarnation"] == "inc-1"
    assert facts["kinds"] == {"Mesh": 1}
    assert facts["octets"] == saved.stat().st_size
    assert "verified" in told.stdout
    assert "3-2, written 20" in told.stdout


@pytest.mark.redis
def test_a_file_is_overwritten_only_by_force(saved: Path, redis_url: str) -> None:
    before = saved.read_bytes()
    refused = zonemesh("save", "--redis", redis_url, "--output", saved)
    assert saved.read_bytes() == before
    forced = zonemesh("save", "--redis", redis_url, "--output", saved, "--force")

    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert forced.exit_code == 0
    assert saved.read_bytes() != before  # saved at another time


@pytest.mark.redis
def test_a_file_goes_through_pipes(saved: Path, redis_url: str) -> None:
    done = zonemesh("save", "--redis", redis_url, "--output", "-")
    told = CliRunner().invoke(cli, ["snapshot", "inspect", "-"], input=done.stdout_bytes)

    assert told.exit_code == 0, told.output
    assert "log           global" in told.stdout


@pytest.mark.redis
def test_global_is_founded_again_in_doubt_and_above_every_term(saved: Path, redis_url: str) -> None:
    refused = zonemesh("restore", saved, "--redis", redis_url)
    restored = zonemesh("restore", saved, "--redis", redis_url, "--replace", "inc-1")
    registry = with_redis(redis_url, lambda store: state(store.log("global")))

    assert refused.exit_code == 1
    assert "--replace inc-1" in refused.stderr
    assert restored.exit_code == 0, restored.output
    assert str(registry.cursor) in restored.stdout
    assert registry.incarnation != "inc-1"
    assert registry.position.term > 3
    assert registry.get("Mesh", Key("default", "", "", "x").packed) == b"after"
    recovery = Recovery.of(registry)
    assert recovery is not None
    assert recovery.id == str(registry.cursor)
    assert recovery.wants
    assert recovery.held.startswith("inc-1.3-"), "only what a zone knows beyond that, and addresses"


@pytest.mark.redis
def test_global_is_founded_again_in_an_empty_redis(saved: Path, redis_url: str) -> None:
    with_redis(redis_url, lambda store: store.commands.call("FLUSHALL"))

    restored = zonemesh("restore", saved, "--redis", redis_url)
    registry = with_redis(redis_url, lambda store: state(store.log("global")))

    assert restored.exit_code == 0, restored.output
    assert registry.get("Mesh", Key("default", "", "", "x").packed) == b"after"
    assert with_redis(redis_url, lambda store: store.log("global").holder()) is None


@pytest.mark.redis
def test_a_damaged_file_is_refused_and_changes_nothing(saved: Path, redis_url: str) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    head = with_redis(redis_url, lambda store: store.log("global").head())
    done = zonemesh("restore", saved, "--redis", redis_url, "--replace", "inc-1")

    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {saved}: cut off after")
    assert "another copy" in done.stderr
    assert with_redis(redis_url, lambda store: store.log("global").head()) == head


def test_a_zones_own_log_comes_back_as_it_was(tmp_path: Path) -> None:
    old, new, path = tmp_path / "old", tmp_path / "new", tmp_path / "west.zms"
    old.mkdir()
    before = with_file(old, lambda target: filled(target, zone="west"))
    done = zonemesh("save", "--data-dir", old, "--output", path)
    assert done.exit_code == 0, done.output
    restored = zonemesh("restore", path, "--data-dir", new)
    again = zonemesh("restore", path, "--data-dir", new)

    after = with_file(new, state)
    assert restored.exit_code == 0, restored.output
    assert (after.cursor, after.h, after.digest) == (before.cursor, before.h, before.digest)
    assert again.exit_code == 1
    assert "there is a log zone:west:own already" in again.stderr


@pytest.mark.redis
def test_a_zones_own_log_in_a_redis_comes_back_as_it_was(redis_url: str, tmp_path: Path) -> None:
    name, path = own_log("west"), tmp_path / "west.zms"
    before = with_redis(redis_url, lambda store: filled(store.log(name), zone="west"))
    done = zonemesh("save", "--redis", redis_url, "--zone", "west", "--output", path)
    assert done.exit_code == 0, done.output
    with_redis(redis_url, lambda store: store.commands.call("FLUSHALL"))

    restored = zonemesh("restore", path, "--redis", redis_url, "--zone", "west")
    after = with_redis(redis_url, lambda store: state(store.log(name)))
    assert restored.exit_code == 0, restored.output
    assert (after.cursor, after.h, after.digest) == (before.cursor, before.h, before.digest)


def test_a_zones_file_is_saved_while_a_process_writes_to_it(tmp_path: Path) -> None:
    async def while_open(target: Log) -> Result:
        await filled(target, zone="west")
        return await asyncio.to_thread(
            zonemesh, "save", "--data-dir", tmp_path, "--output", tmp_path / "west.zms"
        )

    done = with_file(tmp_path, while_open)

    assert done.exit_code == 0, done.output
    assert "3-2" in zonemesh("inspect", tmp_path / "west.zms").stdout


@pytest.mark.parametrize(
    "arguments, exit_code, said",
    [
        (["save", "--output", "x"], 2, "--redis URL, or --data-dir"),
        (["save", "--data-dir", "{dir}", "--output", "x"], 1, "own.db: no such file"),
        (["inspect", "{dir}/none"], 2, "No such file"),
        (["restore", "{dir}/global", "--data-dir", "{dir}/new"], 2, "give --redis"),
        (["restore", "{dir}/west", "--redis", "redis://127.0.0.1:1"], 2, "holds the log zone:west"),
        (
            ["restore", "{dir}/west", "--data-dir", "{dir}/new", "--replace", "x"],
            2,
            "--replace is for global's log",
        ),
        (["save", "--redis", "redis://127.0.0.1:1", "--output", "{dir}/x"], 1, "redis"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], exit_code: int, said: str
) -> None:
    for log in ("global", "zone:west:own"):
        name = log.split(":")[1] if ":" in log else log
        (tmp_path / name).write_bytes(
            octets(Backup(log=log, saved_ms=1, version="1", newest=b"", chunks=[]))
        )
    done = zonemesh(*(each.format(dir=tmp_path) for each in arguments))

    assert done.exit_code == exit_code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()
