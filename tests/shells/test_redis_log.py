"""What is Redis's own: errors and what they mean, connections, expiry, ACLs, redirection."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from blockbuster import BlockBuster

from tests.patience import SLOWER
from tests.ports import free_port
from tests.redis_server import RedisServer, running
from zonemesh.errors import ConfigError, FateUnknownError, RefusedError, UnavailableError
from zonemesh.log.pools import pool_of
from zonemesh.log.port import Head, Lease, Log, Raw, SnapshotInfo
from zonemesh.log.redis import RedisStore
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import GLOBAL
from zonemesh.model import START, Position
from zonemesh.runtime.redisserver import find_redis_server
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

A = Lease(writer="writer-a", url="http://a:5681")
B = Lease(writer="writer-b", url="http://b:5681")
UP_KEYS = "{zm}:zone:west:up:*"
ZONE_COMMANDS = (
    "+eval +evalsha +xadd +xread +xrange +xrevrange +xtrim +hget +hmget +hset "
    "+get +mget +set +del +unlink +exists +persist +echo +memory|usage"
)
"""What a zone's ACL user needs; the scripts' own commands are checked too."""


def chain_of(length: int) -> list[Sealed]:
    chain: list[Sealed] = []
    for seq in range(length):
        entry = Entry(
            incarnation="inc-1",
            position=Position(1, seq),
            previous=chain[-1].entry.position if chain else START,
            writer="writer-a",
            time_ms=seq,
            mono_delta_ms=0,
            log_time_ms=0,
        )
        chain.append(seal(entry, chain[-1].h if chain else NO_HASH))
    return chain


async def write(log: Log, chain: list[Sealed]) -> None:
    await log.create(chain[0])
    for sealed in chain[1:]:
        await log.append(sealed)


def snapshot_of(sealed: Sealed, chunks: int) -> SnapshotInfo:
    entry = sealed.entry
    return SnapshotInfo(
        incarnation=entry.incarnation, position=entry.position, h=sealed.h, chunks=chunks
    )


def head_of(sealed: Sealed) -> Head:
    entry = sealed.entry
    return Head(
        incarnation=entry.incarnation, position=entry.position, h=sealed.h, time_ms=entry.time_ms
    )


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_url)
    yield store
    await store.close()


@asynccontextmanager
async def configured(store: RedisStore, **settings: str | int) -> AsyncIterator[None]:
    """CONFIG SET for a while."""
    before = {name: (await store.commands.call("CONFIG", "GET", name))[1] for name in settings}
    try:
        for name, value in settings.items():
            await store.commands.call("CONFIG", "SET", name, value)
        yield
    finally:
        for name, value in before.items():
            await store.commands.call("CONFIG", "SET", name, value)


@asynccontextmanager
async def user(store: RedisStore, url: str, *rules: str) -> AsyncIterator[str]:
    """A URL with an ACL user of these rules."""
    await store.commands.call("ACL", "SETUSER", "zone-west", "reset", "on", ">secret", *rules)
    try:
        yield url.replace("redis://", "redis://zone-west:secret@")
    finally:
        await store.commands.call("ACL", "DELUSER", "zone-west")


Answer = Callable[[list[bytes]], Awaitable[bytes]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """A server that answers each command as it is told, in RESP: what a real one rarely does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                parts = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    parts.append((await reader.readexactly(size + 2))[:-2])
                writer.write(await answer(parts))
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    try:
        yield f"redis://{host}:{port}"
    finally:
        listening.close()


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


async def until(probe: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so: what another process does can only be polled."""
    async with asyncio.timeout(SLOWER * 10):
        while True:
            with suppress(UnavailableError, ConnectionError):
                if await probe():
                    return
            await asyncio.sleep(0.01)


@contextmanager
def seconds(most: float) -> Iterator[None]:
    clock = asyncio.get_running_loop().time
    started_s = clock()
    yield
    assert clock() - started_s < SLOWER * most


# ── errors ──


async def test_a_refused_connection_is_said_at_once() -> None:
    store = RedisStore("redis://127.0.0.1:1")
    log = store.log("global")
    sealed = chain_of(1)[0]

    with seconds(1.0):
        with pytest.raises(UnavailableError):
            await log.head()
        with pytest.raises(UnavailableError):
            await log.read(START, block_s=30)
        with pytest.raises(FateUnknownError):
            await log.append(sealed)
        with pytest.raises(FateUnknownError):
            await log.create(sealed)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    forever = asyncio.Event()

    async def silence(_: list[bytes]) -> bytes:
        await forever.wait()
        return b""

    async with server(silence) as url:
        store = RedisStore(url, timeout_s=0.05)
        with seconds(1.5):  # a blocking read has its slice of 0.3 s on top
            with pytest.raises(UnavailableError, match="no answer in time"):
                await store.log("global").head()
            with pytest.raises(FateUnknownError, match="no answer in time"):
                await store.log("global").append(chain_of(1)[0])
            with pytest.raises(UnavailableError, match="no answer in time"):
                await store.log("global").read(START, block_s=0.3)
        await store.close()
        forever.set()


async def test_an_append_cut_at_any_moment_is_settled_by_the_same_bytes(
    store: RedisStore,
) -> None:
    chain = chain_of(40)
    log = store.log("global")
    await log.create(chain[0])

    for turns, sealed in enumerate(chain[1:]):
        appending = asyncio.ensure_future(log.append(sealed))
        for _ in range(turns % 8):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.gather(appending, return_exceptions=True)
        await log.append(sealed)

    assert [raw.data for raw in await log.read(START)] == [sealed.data for sealed in chain]


async def test_out_of_memory_is_fate_unknown_and_passes(store: RedisStore) -> None:
    chain = chain_of(3)
    log = store.log("global")
    await write(log, chain[:2])

    async with configured(store, maxmemory=1):
        with pytest.raises(FateUnknownError, match="maxmemory"):
            await log.append(chain[2])
        with pytest.raises(FateUnknownError, match="maxmemory"):
            await log.resign(chain[2], A)
        assert await log.head() == head_of(chain[1])
    await log.append(chain[2])

    assert await log.head() == head_of(chain[2])


async def test_a_replacement_that_finds_no_memory_takes_nothing_away(store: RedisStore) -> None:
    chain = chain_of(3)
    log = store.log("global")
    await write(log, chain)
    anew = seal(
        Entry(
            incarnation="inc-2",
            position=Position(2, 0),
            previous=START,
            writer="writer-a",
            time_ms=0,
            mono_delta_ms=0,
            log_time_ms=0,
        ),
        NO_HASH,
    )

    async with configured(store, maxmemory=1):
        with pytest.raises(FateUnknownError):
            await log.create(anew, replacing=head_of(chain[-1]))

    assert len(await log.read(START)) == 3
    assert await log.head() == head_of(chain[-1])


async def test_a_demoted_master_is_fate_unknown_until_it_is_master_again(
    store: RedisStore,
) -> None:
    chain = chain_of(2)
    log = store.log("global")
    await log.create(chain[0])

    await store.commands.call("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(FateUnknownError, match="replica"):
            await log.append(chain[1])
        with pytest.raises(FateUnknownError, match="replica"):
            await log.append(chain[1])  # the connection was not kept; a new one says the same
    finally:
        await store.commands.call("REPLICAOF", "NO", "ONE")
    await log.append(chain[1])

    assert await log.head() == head_of(chain[1])


async def test_foreign_keys_are_named(store: RedisStore) -> None:
    await store.commands.call("SET", "{zm}:global:log", "not ours")
    await store.commands.call("SET", "{zm}:global:head", "not ours")

    with pytest.raises(UnavailableError, match="keyPrefix"):
        await store.log("global").head()
    with pytest.raises(UnavailableError, match="keyPrefix"):
        await store.log("global").read(START)


async def test_records_that_are_not_ours_are_an_unavailability(store: RedisStore) -> None:
    # Cured at the server: not a reason for a plane to end.
    call = store.commands.call
    log = store.log("global")
    await call("HSET", "{zm}:global:head", "incarnation", "x", "position", "nowhere")
    await call("SET", "{zm}:global:leader", "nobody")
    await call("XADD", "{zm}:global:snapshots", "1-0", "chunks", "many")

    with pytest.raises(UnavailableError, match="malformed"):
        await log.head()
    with pytest.raises(UnavailableError, match="no lease"):
        await log.holder()
    with pytest.raises(UnavailableError, match="wrongly"):
        await log.snapshots()


async def test_a_stream_without_a_head_is_no_log_and_is_not_made_again(store: RedisStore) -> None:
    await store.commands.call("XADD", "{zm}:global:log", "5-101", "e", "a deposed writer's")
    log = store.log("global")

    assert await log.head() is None
    with pytest.raises(RefusedError):
        await log.create(chain_of(1)[0])


async def test_a_head_without_its_stream_is_not_appended_to(store: RedisStore) -> None:
    chain = chain_of(2)
    log = store.log("global")
    await log.create(chain[0])
    await store.commands.call("DEL", "{zm}:global:log")

    with pytest.raises(RefusedError):
        await log.append(chain[1])

    assert await store.commands.call("EXISTS", "{zm}:global:log") == 0


async def test_what_is_no_entry_of_ours_is_not_skipped(store: RedisStore) -> None:
    await store.commands.call("XADD", "{zm}:global:log", "1-0", "other", "x")

    (raw,) = await store.log("global").read(START)

    assert raw.data == b"", "which is no entry, and stops the reader"


# ── credentials ──


async def test_a_wrong_password_says_what_to_change(redis_url: str, store: RedisStore) -> None:
    async with user(store, redis_url, "+@all", "~*") as url:
        wrong = RedisStore(url.replace("secret", "wrong"))
        with pytest.raises(UnavailableError, match=r"redis\.url"):
            await wrong.log("global").head()
        await wrong.close()


async def test_a_zones_user_reaches_its_own_stream_only(redis_url: str, store: RedisStore) -> None:
    chain = chain_of(3)
    async with user(store, redis_url, "-@all", *ZONE_COMMANDS.split(), f"~{UP_KEYS}") as url:
        zone = RedisStore(url)
        up = zone.log("zone:west:up")
        await write(up, chain[:2])
        assert await up.acquire(A)
        for sealed in chain[:2]:
            await up.put_snapshot(snapshot_of(sealed, 1), [b"chunk"])
        await up.trim(Position(1, 1))
        await up.resign(chain[2], A)

        with pytest.raises(FateUnknownError, match="ACL"):
            await zone.log("zone:east:up").create(chain[0])
        with pytest.raises(UnavailableError, match="ACL"):
            await zone.log("global").head()
        await store.commands.call("ACL", "SETUSER", "zone-west", "-xtrim")
        with pytest.raises(UnavailableError, match="ACL"):
            await up.trim(Position(1, 2))
        await zone.close()


# ── the server ──


async def test_a_server_that_forgot_its_scripts_is_told_them_again(store: RedisStore) -> None:
    chain = chain_of(3)
    log = store.log("global")
    await write(log, chain[:2])
    await store.commands.call("SCRIPT", "FLUSH")

    await log.append(chain[2])

    assert await log.head() == head_of(chain[2])


async def test_every_key_has_the_prefix_as_its_hash_tag(redis_url: str) -> None:
    store = RedisStore(redis_url, prefix="mesh*[1]")
    log = store.log("zone:west:up")
    chain = chain_of(1)
    await write(log, chain)
    await log.put_snapshot(snapshot_of(chain[0], 1), [b"chunk"])
    await log.acquire(A)
    await store.announce("west")
    await store.present("zone:west:up", "writer-a", b"x")

    keys = await store.commands.call("KEYS", "*")
    replicas = await store.replicas("zone:west:up")
    await store.forget("west")
    left = await store.commands.call("KEYS", "*")
    await store.close()

    assert len(keys) == 7
    assert all(key.startswith(b"{mesh*[1]}:zone") for key in keys)
    assert replicas == {"writer-a": b"x"}, "the prefix is no pattern"
    assert left == []


@pytest.mark.parametrize("prefix", ["", "a{b}", "a b"])
def test_a_prefix_that_would_break_the_hash_tag_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="keyPrefix"):
        RedisStore("redis://localhost", prefix=prefix)


# ── snapshots and expiry ──


async def test_chunks_expire_until_they_are_announced(store: RedisStore) -> None:
    chain = chain_of(2)
    log = store.log("global")
    await write(log, chain)
    await log.put_snapshot(snapshot_of(chain[0], 3), [b"a", b"b", b"c"])

    wrong = SnapshotInfo(incarnation="inc-1", position=Position(9, 9), h=b"x" * 8, chunks=1)
    with pytest.raises(RefusedError):
        await log.put_snapshot(wrong, [b"orphan"])

    keys = await store.commands.call("KEYS", "*snapshot:*")
    *announced, orphan = sorted([await store.commands.call("TTL", key) for key in keys])
    assert announced == [-1, -1, -1]
    assert 0 < orphan <= 3600


async def test_chunks_of_older_snapshots_are_deleted_with_their_announcement(
    store: RedisStore,
) -> None:
    chain = chain_of(5)
    log = store.log("global")
    await write(log, chain)

    for sealed in chain:
        await log.put_snapshot(snapshot_of(sealed, 10), [b"chunk"] * 10)

    assert len(await store.commands.call("KEYS", "*snapshot:*")) == 20


async def test_two_who_announce_at_once_leave_two_whole_snapshots(
    redis_url: str, store: RedisStore
) -> None:
    other = RedisStore(redis_url)
    chain = chain_of(3)
    log = store.log("global")
    await write(log, chain)
    infos = [snapshot_of(sealed, 2) for sealed in chain]

    await asyncio.gather(
        log.put_snapshot(infos[1], [b"a", b"b"]),
        other.log("global").put_snapshot(infos[2], [b"c", b"d"]),
        return_exceptions=True,  # the earlier one is refused if it comes later
    )
    await other.close()

    announced = await log.snapshots()
    assert announced[0] == infos[2]
    for info in announced:
        assert len(await log.load_snapshot(info)) == 2


async def test_a_lease_that_is_not_renewed_ends(redis_url: str) -> None:
    store = RedisStore(redis_url, lease_ms=30)
    log = store.log("global")
    assert await log.acquire(A)

    await until(lambda: log.acquire(B))

    assert not await log.renew(A)
    await store.close()


async def test_a_replica_that_says_nothing_more_is_forgotten_after_5_s(store: RedisStore) -> None:
    await store.present("global", "writer-a", b"x")

    assert 4_000 < await store.commands.call("PTTL", "{zm}:global:replica:writer-a") <= 5_000


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

    await until(alone)
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

        await until(attached)  # a sentinel asks a master for its replicas each 10 s only
        sentinel = stack.enter_context(sentinel_of(master, tmp_path / "sentinel.conf"))

        async def known() -> bool:
            return b"slave" in sentinel.command("SENTINEL REPLICAS mymaster")

        await until(known)
        nobody = free_port()
        store = RedisStore(
            f"redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{sentinel.port}/mymaster"
        )
        chain = chain_of(2)
        log = store.log("global")

        await log.create(chain[0])

        async def replicated() -> bool:
            return b":1" in replica.command("XLEN {zm}:global:log")

        await until(replicated)

        async def begun() -> bool:  # refused until the sentinel knows enough of the replica
            return sentinel.command("SENTINEL FAILOVER mymaster") == b"+OK\r\n"

        await until(begun)

        async def moved() -> bool:
            return bytes(str(replica.port), "ascii") in await _config(store, "port")

        await until(moved)
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

        await until(attached)
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
