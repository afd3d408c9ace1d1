"""Every weakness of a Redis is found in the facts, named, and has a remedy; nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zonemesh.log.keys import Keys
from zonemesh.log.redischecks import SETTINGS, Facts, weaknesses_of
from zonemesh.log.redisrights import Role, forbidden, needed

WEST = Role("west")
SOUND = Facts(
    where="redis-1:6379",
    user="west",
    role=WEST,
    info={
        "redis_version": "7.2.5",
        "role": "master",
        "aof_enabled": "1",
        "aof_last_write_status": "ok",
        "aof_last_bgrewrite_status": "ok",
        "rdb_last_bgsave_status": "ok",
        "maxmemory": "1000",
        "maxmemory_policy": "noeviction",
        "used_memory": "699",
        "connected_slaves": "1",
        "slave0": "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0",
        "slave_expires_tracked_keys": "0",
    },
    settings={
        "appendfsync": "everysec",
        "no-appendfsync-on-rewrite": "no",
        "min-replicas-to-write": "1",
        "min-replicas-max-lag": "10",
    },
    needed=dict.fromkeys(needed(Keys(), WEST), True),
    forbidden=dict.fromkeys(forbidden(Keys(), WEST), False),
    sentinels=3,
)


def with_info(**changed: str) -> Facts:
    return replace(SOUND, info={**(SOUND.info or {}), **changed})


def with_settings(**changed: str) -> Facts:
    changes = {name.replace("_", "-"): value for name, value in changed.items()}
    assert changes.keys() <= set(SETTINGS)
    return replace(SOUND, settings={**(SOUND.settings or {}), **changes})


def found(facts: Facts) -> list[tuple[str, str]]:
    return [(one.code, one.severity) for one in weaknesses_of(facts)]


def test_a_sound_server_has_no_weakness() -> None:
    assert weaknesses_of(SOUND) == []


@pytest.mark.parametrize(
    "facts, code, severity",
    [
        (with_info(redis_version="6.0.16"), "too_old", "error"),
        (with_info(redis_version="6.2.14"), "old", "warning"),
        (with_info(aof_enabled="0"), "not_durable", "error"),
        (with_info(aof_last_write_status="err"), "disk_fails", "error"),
        (with_info(aof_last_bgrewrite_status="err"), "disk_fails", "error"),
        (with_info(rdb_last_bgsave_status="err"), "disk_fails", "error"),
        (with_info(maxmemory_policy="allkeys-lru"), "may_evict", "error"),
        (with_info(used_memory="700"), "memory_nearly_full", "warning"),
        (with_info(used_memory="900"), "memory_nearly_full", "error"),
        (with_info(maxmemory="0", total_system_memory="900"), "memory_nearly_full", "warning"),
        (with_info(role="slave"), "replica", "error"),
        (with_info(slave0="ip=a,port=1,state=wait_bgsave"), "replica_not_in_step", "warning"),
        (with_info(connected_slaves="0"), "too_few_replicas", "error"),
        (with_settings(appendfsync="no"), "never_synced", "warning"),
        (with_settings(no_appendfsync_on_rewrite="yes"), "not_synced_on_rewrite", "warning"),
        (with_settings(min_replicas_to_write="0"), "no_min_replicas", "warning"),
        (with_settings(min_replicas_max_lag="0"), "no_min_replicas", "warning"),
        (with_settings(min_replicas_max_lag="60"), "long_replica_lag", "warning"),
        (replace(SOUND, sentinels=2), "few_sentinels", "warning"),
        (replace(SOUND, private=False), "clear_text", "warning"),
        (replace(SOUND, info=None), "info_refused", "unknown"),
        (replace(SOUND, settings=None), "config_refused", "unknown"),
        (replace(SOUND, needed=None, forbidden=None), "rights_unknown", "unknown"),
    ],
)
def test_each_weakness_is_found_alone(facts: Facts, code: str, severity: str) -> None:
    assert found(facts) == [(code, severity)]


def test_a_weakness_says_where_it_is_and_what_to_do() -> None:
    (weakness,) = weaknesses_of(with_info(maxmemory_policy="allkeys-lru"))

    assert weakness.where == "redis-1:6379"
    assert "allkeys-lru" in weakness.what
    assert "maxmemory-policy noeviction" in weakness.remedy


def test_a_replica_that_would_be_emptied_too_is_said() -> None:
    (alone,) = weaknesses_of(replace(with_info(aof_enabled="0", connected_slaves="0"), settings={}))
    (with_replica,) = weaknesses_of(with_info(aof_enabled="0"))

    assert "replicas" not in alone.what
    assert "replicas" in with_replica.what


def test_a_server_without_replicas_needs_no_setting_for_them() -> None:
    facts = replace(with_settings(min_replicas_to_write="0"), info={"connected_slaves": "0"})

    assert found(facts) == []


def test_rights_are_named_by_the_first_of_them() -> None:
    may = dict.fromkeys(forbidden(Keys(), WEST), True)
    may_not = dict.fromkeys(needed(Keys(), WEST), False)

    narrow, wide = weaknesses_of(replace(SOUND, needed=may_not, forbidden=may))

    assert (narrow.code, wide.code) == ("rights_too_narrow", "rights_too_wide")
    assert "SADD {zm}:zones" in narrow.what
    assert f"and {len(may) - 4} more" in wide.what
    assert "user west" in wide.what


def test_what_is_wrong_where_a_zones_own_log_is_names_the_setting_that_leads_there() -> None:
    role = Role("west", own_log=True)
    may = dict.fromkeys(forbidden(Keys(), role), True)
    facts = replace(SOUND, role=role, forbidden=may, sentinels=1)
    facts = replace(facts, info={**(SOUND.info or {}), "role": "slave"})

    told = {one.code: f"{one.what} {one.remedy}" for one in weaknesses_of(facts)}

    assert told.keys() == {"replica", "few_sentinels", "rights_too_wide"}
    assert all("log.url" in each and "redis.url" not in each for each in told.values())
    assert "the own log of zone west must not" in told["rights_too_wide"]


def test_errors_come_first() -> None:
    facts = replace(with_info(aof_enabled="0"), settings=None, private=False)

    assert [severity for _, severity in found(facts)] == ["error", "warning", "unknown"]
