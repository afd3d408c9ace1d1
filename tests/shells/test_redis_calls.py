"""Calls to Redis: connections, cancellation, waiting, redirection, failover, URLs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from blockbuster import BlockBuster

from tests.chains import chain_of, head_of, write
from tests.ports import free_port
from tests.redis_answers import server
from tests.redis_deployments import until
from tests.redis_server import RedisServer, running
from zonemesh.errors import ConfigError, FateUnknownError, UnavailableError
from zonemesh.log.pools import pool_of
from zonemesh.log.port import Raw
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import GLOBAL
from zonemesh.model import START, Position
from zonemesh.runtime.redisserver import find_redis_server


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


# ── connections ──


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    redis_url: str, store: RedisStore
) -> None:
    admin = RedisStore(redis_url)
    chain = chain_of(2)
    log = store.log("global")
    await log.create(chain[0])

    await admin.commands.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def alone() -> bool:
        return len((await admin.commands.call("CLIENT", "LIST")).splitlines()) == 1

    await until(alone, 10)
    await asyncio.sleep(0)  # one turn of the loop, to hear of it
    await log.append(chain[1])

    await admin.close()
    assert await log.head() == head_of(chain[1])


async def test_a_cancelled_call_never_leaves_its_reply_to_the_next() -> None:
    # redis-py #2624, #2665: replies off by one after a cancellation.
    asked, held = asyncio.Event(), asyncio.Event()

    async def slow_first(command: list[bytes]) -> bytes:
        if command[-1] == b"first":
            asked.set()
            await held.wait()
        return bulk(command[-1])

    async with server(slow_first) as url:
        store = RedisStore(url)
        await store.commands.call("ECHO", "zeroth")
        first = asyncio.ensure_future(store.commands.call("ECHO", "first"))
        await asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        held.set()

        replies = [await store.commands.call("ECHO", f"{i}") for i in range(5)]
        await store.close()

    assert replies == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_call_cancelled_while_it_connects_leaves_no_half_open_connection() -> None:
    asked, held = asyncio.Event(), asyncio.Event()

    async def slow_password(command: list[bytes]) -> bytes:
        if command[0] != b"AUTH":
            return bulk(command[-1])
        if not held.is_set():
            asked.set()
            await held.wait()
        return b"+OK\r\n"

    async with server(slow_password) as url:
        store = RedisStore(url.replace("redis://", "redis://:secret@"))
        first = asyncio.ensure_future(store.commands.call("ECHO", "first"))
        await asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.ensure_future(store.commands.call("ECHO", "second"))
        await _others_run()
        held.set()

        assert await second == b"second"
        await store.close()


async def _others_run() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_cancelling_at_any_moment_mixes_no_replies(store: RedisStore) -> None:
    async def echo(i: int) -> bytes:
        reply: bytes = await store.commands.call("ECHO", f"{i}")
        return reply

    wrong = []
    for turns in range(60):
        calls = [asyncio.ensure_future(echo(i)) for i in range(12)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        wrong += [
            (i, reply)
            for i, reply in enumerate(done)
            if not isinstance(reply, asyncio.CancelledError) and reply != b"%d" % i
        ]

    assert wrong == []


async def test_no_call_blocks_the_event_loop(no_blocking: BlockBuster, store: RedisStore) -> None:
    await facts_of(store.commands, store.keys, GLOBAL)
    await store.log("global").create(chain_of(1)[0])
    await store.log("global").read(START, block_s=0.01)
    await store.log("global").read(Position(1, 0), block_s=0.01)


async def test_readers_that_wait_keep_no_append_from_its_turn(store: RedisStore) -> None:
    chain = chain_of(3)
    log = store.log("global")
    await log.create(chain[0])
    readers = [asyncio.ensure_future(log.read(Position(1, 0), block_s=30)) for _ in range(20)]

    async with asyncio.timeout(15):  # less than they wait for
        for before, sealed in pairwise(chain):
            assert await log.head() == head_of(before)
            await log.append(sealed)
        first = [(await reader)[0].position for reader in readers]

    assert first == [Position(1, 1)] * 20


async def test_a_long_wait_is_made_of_slices_of_a_second_at_most() -> None:
    # A link that was cut in silence is noticed within a slice, not at the end of the wait.
    blocks: list[int] = []

    async def third_time(command: list[bytes]) -> bytes:
        blocks.append(int(command[command.index(b"BLOCK") + 1]))
        if len(blocks) < 3:
            return b"*-1\r\n"
        entry = b"*2\r\n" + bulk(b"1-1") + b"*2\r\n" + bulk(b"e") + bulk(b"data")
        return b"*1\r\n*2\r\n" + bulk(command[-2]) + b"*1\r\n" + entry

    async with server(third_time) as url:
        store = RedisStore(url)
        read = await store.log("global").read(Position(1, 0), block_s=30)
        await store.close()

    assert list(read) == [Raw(Position(1, 1), b"data")]
    assert blocks == [1000, 1000, 1000]


async def test_a_redirection_to_a_clusters_other_node_is_followed() -> None:
    # All keys of a mesh have one hash tag, so one node of a cluster holds them all.
    seen: list[str] = []

    async def owner(command: list[bytes]) -> bytes:
        seen.append("owner")
        return bulk(command[-1])

    async with server(owner) as there:
        where = urlsplit(there).netloc

        async def other(_: list[bytes]) -> bytes:
            seen.append("other")
            return f"-MOVED 866 {where}\r\n".encode()

        async with server(other) as url:
            store = RedisStore(url)
            replies = [await store.commands.call("ECHO", text) for text in ("a", "b")]
            await store.close()

    assert replies == [b"a", b"b"]
    assert seen == ["other", "owner", "owner"]


async def test_a_failover_is_followed_though_the_old_master_still_answers(tmp_path: Path) -> None:
    # It does so for some 10 s, and whatever it takes meanwhile is lost when it is demoted.
    with ExitStack() as stack:
        master, replica = (
            stack.enter_context(running(tmp_path / name)) for name in ("master", "replica")
        )
        master.command("CONFIG SET repl-diskless-sync-delay 0")
        replica.command(f"REPLICAOF 127.0.0.1 {master.port}")

        async def attached() -> bool:
            return b"state=online" in master.command("INFO replication")

        await until(attached, 10)  # a sentinel asks a master for its replicas each 10 s only
        sentinel = stack.enter_context(sentinel_of(master, tmp_path / "sentinel.conf"))

        async def known() -> bool:
            return b"slave" in sentinel.command("SENTINEL REPLICAS mymaster")

        await until(known, 10)
        nobody = free_port()
        store = RedisStore(
            f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/mymaster"
        )
        chain = chain_of(2)
        log = store.log("global")

        await log.create(chain[0])

        async def replicated() -> bool:
            return b":1" in replica.command("XLEN {zm}:global:log")

        await until(replicated, 10)

        async def begun() -> bool:  # refused until the sentinel knows enough of the replica
            return sentinel.command("SENTINEL FAILOVER mymaster") == b"+OK\r\n"

        await until(begun, 10)

        async def moved() -> bool:
            return bytes(str(replica.port), "ascii") in await _config(store, "port")

        await until(moved, 10)
        assert b"role:master" in master.command("INFO replication")
        await log.append(chain[1])
        await store.close()
        assert b":2" in replica.command("XLEN {zm}:global:log")


async def test_a_log_moves_to_another_server_without_a_loss(tmp_path: Path) -> None:
    with running(tmp_path / "old") as old, running(tmp_path / "new") as new:
        chain = chain_of(3)
        before, after = RedisStore(old.url, timeout_s=2.0), RedisStore(new.url)
        await write(before.log("global"), chain[:2])
        old.command("CONFIG SET repl-diskless-sync-delay 0")
        new.command(f"REPLICAOF 127.0.0.1 {old.port}")

        async def attached() -> bool:
            return b"master_link_status:up" in new.command("INFO replication")

        await until(attached, 10)
        old.command("CLIENT PAUSE 600000 WRITE")
        with pytest.raises(FateUnknownError):
            await before.log("global").append(chain[2])
        new.command("REPLICAOF NO ONE")
        await after.log("global").append(chain[2])

        assert len(await after.log("global").read(START)) == 3
        await before.close()
        await after.close()


async def _config(store: RedisStore, name: str) -> list[bytes]:
    reply: list[bytes] = await store.commands.call("CONFIG", "GET", name)
    return reply


@contextmanager
def sentinel_of(master: RedisServer, config: Path) -> Iterator[RedisServer]:
    port = free_port()
    config.write_text(
        f"port {port}\n"
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\n"
    )
    binary = find_redis_server(os.environ)
    with subprocess.Popen(
        [binary, str(config), "--sentinel"], stdout=subprocess.DEVNULL
    ) as process:
        sentinel = RedisServer(process, port, config.parent)
        try:
            yield sentinel
        finally:
            process.kill()


async def test_a_closed_store_says_so(redis_url: str) -> None:
    store = RedisStore(redis_url)
    await store.log("global").head()
    await store.close()

    with pytest.raises(UnavailableError, match="closed"):
        await store.log("global").head()


# ── URLs ──


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost",
        "redis://localhost:port",
        "redis://localhost?nonsense=1",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://:26379/mymaster",
        "redis+sentinel://localhost/mymaster/one",
        "redis+sentinel://localhost/mymaster?nonsense=1",
        "redis+cluster://",
        "redis+cluster://localhost/1",
        "redis+cluster://localhost?nonsense=1",
    ],
)
def test_a_url_that_leads_nowhere_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url"):
        RedisStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:p%40ss@localhost:6380/3",
        "rediss://localhost?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://user:p%40ss@one:26379,two,[::1]:26380/mymaster/2?sentinel_password=x",
        "redis+cluster://user:p%40ss@one:6379,two,[::1]:6380",
        "rediss+cluster://one,two?ssl_cert_reqs=none",
    ],
)
def test_urls_of_every_kind_are_understood(url: str) -> None:
    pool_of(url)


async def test_a_urls_parameter_cannot_change_the_shape_of_replies(redis_url: str) -> None:
    store = RedisStore(f"{redis_url}?protocol=3&decode_responses=true")
    log = store.log("global")
    chain = chain_of(2)
    await write(log, chain)

    read = await log.read(START)
    await store.close()

    assert [raw.data for raw in read] == [sealed.data for sealed in chain]
