"""What both control planes' composition roots do alike: start checks, supervision, graceful end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import structlog

from zonemesh.errors import ConfigError
from zonemesh.log.leadership import Leadership
from zonemesh.log.port import Lease
from zonemesh.log.redis import RedisStore
from zonemesh.log.redischecks import weaknesses_of
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import Role
from zonemesh.log.sqlite import SqliteLog
from zonemesh.runtime.main import freeze_heap, give_back_memory
from zonemesh.runtime.sections import HttpConfig, RedisConfig
from zonemesh.runtime.supervise import Backoff, Component, supervise

_FREEZE_LOOK_S = 2.0
_FREEZE_RECORDS_MIN = 5_000

log = structlog.get_logger()


async def run_until(
    components: Mapping[str, Component], stop: asyncio.Event, leadership: Leadership
) -> None:
    """Supervise until asked to stop; a leader then commits what waits and resigns."""
    ended = asyncio.Event()

    async def graceful() -> None:
        await stop.wait()
        await leadership.resign()
        ended.set()

    every: dict[str, Callable[[], Any]] = {**components, "stop": graceful}
    await supervise(every, Backoff(), random.Random(), stop=ended)


def global_store(config: RedisConfig) -> RedisStore:
    """Where global's log and the zones' up streams are; connects nothing.

    Raises:
        ConfigError: The URL leads nowhere, or a file is missing.
    """
    return RedisStore(
        config.url,
        prefix=config.key_prefix,
        password_path=config.password_path,
        wait_replicas=config.wait_replicas,
    )


async def check_redis(store: RedisStore, role: Role) -> None:
    """Say once what kind of server this is and what is wrong with it; refuse one that is too old.

    Args:
        store: Where the role's logs are.
        role: Whose user this should be.

    Raises:
        ConfigError: Older than Redis 6.2.
        UnavailableError: It does not answer yet.
    """
    facts = await facts_of(store.commands, store.keys, role)
    log.info(
        "redis_found",
        setting=role.url,
        where=facts.where,
        user=facts.user,
        version=(facts.info or {}).get("redis_version"),
    )
    for weakness in weaknesses_of(facts):
        if weakness.code == "too_old":
            raise ConfigError([f"{role.url}: {weakness.what}: {weakness.remedy}"])
        if weakness.severity == "unknown":
            log.info("redis_weakness", setting=role.url, **asdict(weakness))
        else:
            log.warning("redis_weakness", setting=role.url, **asdict(weakness))


def because(why: str | None, store: RedisStore | None) -> str | None:
    """Why a plane is not ready, with what Redis has to do with it."""
    if why is None or store is None or store.fault is None:
        return why
    return f"{why} ({store.fault})"


def advertised(http: HttpConfig) -> str:
    """Where other processes reach this one's REST; said if that cannot be right."""
    if not http.advertised_url and http.address in ("0.0.0.0", "::"):  # noqa: S104 -- compared
        log.warning(
            "advertised_url_unusable",
            address=http.address,
            remedy="set apiServer.http.advertisedUrl: other replicas send writes there",
        )
    return http.advertised_url or f"http://{http.address}:{http.port}"


async def lead_alone(own: SqliteLog, writer: str) -> None:
    """Take a file's lease at the start: it may lie outside the data directory.

    Raises:
        ConfigError: Another process has it.
    """
    if not await own.acquire(Lease(writer=writer, url="")):
        raise ConfigError([f"log.url: the log {own.name} is in use by another process"])


async def freeze_as_it_grows(records: Callable[[], int]) -> None:
    """Take what is loaded out of the garbage collector's way, again whenever it has grown by half.

    Not on a timer alone: what is frozen while it lives is never collected if it dies in a cycle.
    Once a load has ended, what it took on the way is given back to the system.
    """
    frozen = given_back = before = 0
    while True:
        await asyncio.sleep(_FREEZE_LOOK_S)
        now = records()
        if now > max(frozen * 1.5, _FREEZE_RECORDS_MIN):
            frozen = now
            freeze_heap()
        elif now == before and now > max(given_back * 1.1, _FREEZE_RECORDS_MIN):
            given_back = now
            await asyncio.to_thread(give_back_memory)
        before = now
