"""What is asked of a real Redis, and what `zonemesh doctor` and a start make of the answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tests.redis_deployments import weaknesses
from tests.redis_server import RedisServer, running
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.log.pools import Named
from zonemesh.log.redis import RedisStore
from zonemesh.log.redischecks import Weakness
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import Role
from zonemesh.runtime import plane
from zonemesh.runtime.plane import check_redis


async def codes(url: str) -> list[str]:
    return [weakness.code for weakness in await weaknesses(url)]


async def test_the_default_user_of_a_durable_server_may_too_much(
    redis_url: str, redis_server: RedisServer
) -> None:
    found = await weaknesses(redis_url)

    expected = {"rights_too_wide"} if redis_server.version >= (7, 0) else {"old", "rights_unknown"}
    assert {weakness.code for weakness in found} == expected
    assert {weakness.where for weakness in found} == {f"127.0.0.1:{redis_server.port}"}


async def test_settings_that_lose_entries_are_found_on_a_real_server(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        for name, value in (
            ("appendonly", "no"),
            ("maxmemory-policy", "allkeys-lru"),
            ("appendfsync", "no"),
            ("maxmemory", "1000000"),
            ("min-replicas-to-write", "2"),
        ):
            assert server.command(f"CONFIG SET {name} {value}") == b"+OK\r\n"
        found = await codes(server.url)

    expected = ["not_durable", "may_evict", "memory_nearly_full", "too_few_replicas"]
    assert found[:4] == expected
    assert "never_synced" in found


async def test_asking_changes_nothing_and_leaves_no_key(
    redis_url: str, redis_server: RedisServer
) -> None:
    await weaknesses(redis_url)
    await weaknesses(redis_url, role=Role("west"))
    await weaknesses(redis_url, role=Role("west", own_log=True))

    assert redis_server.command("DBSIZE") == b":0\r\n"
    assert redis_server.command("CONFIG GET appendonly").endswith(b"yes\r\n")


async def test_what_a_user_may_not_ask_is_said_to_be_unknown(
    redis_url: str, redis_server: RedisServer
) -> None:
    redis_server.command("ACL SETUSER poor on >secret -@all +echo")
    try:
        found = await weaknesses(redis_url.replace("redis://", "redis://poor:secret@"))
    finally:
        redis_server.command("ACL DELUSER poor")

    assert [one.severity for one in found] == ["unknown"] * 3


async def test_a_server_that_is_away_or_a_wrong_password_is_no_weakness(redis_url: str) -> None:
    with pytest.raises(UnavailableError):
        await weaknesses("redis://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"redis\.url"):
        await weaknesses(redis_url.replace("redis://", "redis://nobody:wrong@"))
    with pytest.raises(ConfigError, match=r"redis\.url"):
        await weaknesses("http://127.0.0.1")


async def test_what_a_zones_own_redis_refuses_names_the_settings_that_lead_there(
    redis_url: str,
) -> None:
    wrong = redis_url.replace("redis://", "redis://nobody:wrong@")
    store = RedisStore(wrong, named=Named("log.url", "log.passwordPath"))

    with pytest.raises(UnavailableError, match=r"in log\.url \(or log\.passwordPath\)"):
        await store.log("zone:west:own").head()
    assert "log.url" in (store.fault or "")
    await store.close()


@pytest.mark.parametrize(
    "role, setting", [(Role("west"), "redis.url"), (Role("west", own_log=True), "log.url")]
)
async def test_a_start_says_each_weakness_once_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role, setting: str
) -> None:
    told = structlog.testing.LogCapture()
    # Of its own: whatever level another test has set stays with a logger that was used under it.
    monkeypatch.setattr(
        plane,
        "log",
        structlog.wrap_logger(None, processors=[told], wrapper_class=structlog.BoundLogger),
    )
    with running(tmp_path) as server:
        server.command("CONFIG SET maxmemory-policy allkeys-lru")
        store = RedisStore(server.url)
        await check_redis(store, role)
        facts = await facts_of(store.commands, store.keys, role)
        await store.close()

    logs = told.entries
    said = [line for line in logs if line["event"] == "redis_weakness"]
    evicts = next(line for line in said if line["code"] == "may_evict")
    assert logs[0]["event"] == "redis_found"
    assert logs[0]["version"] == ".".join(map(str, facts.version or ()))
    assert evicts["log_level"] == "warning"
    assert {line["setting"] for line in logs} == {setting}
    assert set(evicts) == {"event", "log_level", "setting", *Weakness.__slots__}
    assert len(said) == len({line["code"] for line in said})
