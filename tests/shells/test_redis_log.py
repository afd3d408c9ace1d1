"""A log in Redis: errors and what they mean, ACLs, scripts, snapshots and what expires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from tests.chains import chain_of, entry, head_of, snapshot_of, write
from tests.patience import SLOWER
from tests.redis_answers import server
from tests.redis_deployments import until
from zonemesh.errors import ConfigError, FateUnknownError, RefusedError, UnavailableError
from zonemesh.log.port import Lease, SnapshotInfo
from zonemesh.log.redis import RedisStore
from zonemesh.model import START, Position

A = Lease(writer="writer-a", url="http://a:5681")
B = Lease(writer="writer-b", url="http://b:5681")
UP_KEYS = "{zm}:zone:west:up:*"
ZONE_COMMANDS = (
    "+eval +evalsha +xadd +xread +xrange +xrevrange +xtrim +hget +hmget +hset "
    "+get +mget +set +del +unlink +exists +persist +echo +memory|usage"
)
"""What a zone's ACL user needs; the scripts' own commands are checked too."""


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
    anew = entry((2, 0), None, incarnation="inc-2")

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

    await until(lambda: log.acquire(B), 10)

    assert not await log.renew(A)
    await store.close()


async def test_a_replica_that_says_nothing_more_is_forgotten_after_5_s(store: RedisStore) -> None:
    await store.present("global", "writer-a", b"x")

    assert 4_000 < await store.commands.call("PTTL", "{zm}:global:replica:writer-a") <= 5_000
