"""What `zonemesh doctor` has to say of a Redis: global's, or that of a zone's own log."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from zonemesh.cli.diagnosis import Finding, Level, fine
from zonemesh.cli.options import Redis
from zonemesh.errors import ConfigError, MeshError
from zonemesh.log.redis import RedisStore
from zonemesh.log.redischecks import Weakness, weaknesses_of
from zonemesh.log.redisfacts import facts_of
from zonemesh.log.redisrights import GLOBAL, Role


async def examine(redis: Redis, zone: str | None) -> tuple[list[Finding], list[str]]:
    """What there is to say of a Redis, and the addresses of the control planes that live in it.

    Args:
        redis: Where to look.
        zone: Whose own log should be there; None: global's.
    """
    role = GLOBAL if zone is None else Role(zone, own_log=True)
    where = "Redis" if zone is None else f"Redis of zone {zone}"
    try:
        store = redis.store()
    except ConfigError as error:
        return [Finding(Level.ERROR, "redis", where, str(error), "correct the option")], []
    remedy = "is it up, is the port open, is the password right?"
    found: list[Finding] = []
    urls: list[str] = []
    try:
        found += _of_server(weaknesses_of(await facts_of(store.commands, store.keys, role)), where)
        remedy = "whose Redis and user is that? docs/operations.md, Users"
        of_log, urls = await _of_log(store, role, where)
        found += of_log
    except MeshError as error:
        found.append(Finding(Level.ERROR, "redis", where, str(error), remedy))
    finally:
        await store.close()
    return found, urls


def _of_server(found: Sequence[Weakness], where: str) -> list[Finding]:
    told = [
        Finding(Level(each.severity), "redis", f"{where} {each.where}", each.what, each.remedy)
        for each in found
    ]
    return told or [fine("redis", where, "is set up as it should be")]


async def _of_log(store: RedisStore, role: Role, where: str) -> tuple[list[Finding], list[str]]:
    found = []
    if await store.log(role.log).head() is None:
        remedy = "is --prefix right? If so: docs/operations.md, Redis came back empty"
        if role.zone is not None:
            remedy = "are --zone and --prefix right? If so: start the zone's zonecp"
        found.append(Finding(Level.ERROR, "log", where, f"holds no log {role.log}", remedy))
    living = await store.replicas(role.log)
    urls = sorted(str(msgpack.unpackb(each).get("url")) for each in living.values())
    return [*found, _of_replicas(urls, role, where)], urls


def _of_replicas(urls: Sequence[str], role: Role, where: str) -> Finding:
    program = "globalcp" if role.zone is None else f"zonecp of zone {role.zone}"
    if not urls:
        remedy = "start one; whoever knows names goes on answering meanwhile"
        return Finding(Level.ERROR, "replicas", where, f"no {program} lives", remedy)
    told = f"{len(urls)} {program} live: {', '.join(urls)}"
    if len(urls) == 1:
        remedy = "run a second one: nobody takes over from one"
        return Finding(Level.WARNING, "replicas", where, told, remedy)
    return fine("replicas", where, told)
