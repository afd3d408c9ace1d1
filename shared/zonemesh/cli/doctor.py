"""The command `zonemesh doctor`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import click
import msgpack

from zonemesh.cli import diagnosis, output
from zonemesh.cli.client import Client
from zonemesh.cli.connection import URL, URL_VARIABLE
from zonemesh.cli.diagnosis import Finding, Level, fine
from zonemesh.errors import ConfigError, MeshError
from zonemesh.log.keys import PREFIX
from zonemesh.log.redis import RedisStore
from zonemesh.log.redischecks import Weakness
from zonemesh.log.redisfacts import weaknesses
from zonemesh.travel import GLOBAL_LOG

TIMEOUT_S = 3.0
PLANES_MAX = 200
"""Control planes that are asked; a mesh with more is not looked at from one terminal."""
_ASKED_AT_ONCE = 16
_STATUS = "/status"
"""Of an agent's diagnostics."""

_MARKS = {Level.OK: "ok", Level.UNKNOWN: "?", Level.WARNING: "warning", Level.ERROR: "ERROR"}


@dataclass
class Found:
    """What was learnt of a mesh."""

    findings: list[Finding] = field(default_factory=list)
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    skews_s: dict[str, float] = field(default_factory=dict)


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    envvar=URL_VARIABLE,
    show_envvar=True,
    default=(URL,),
    show_default=True,
    help="A control plane to begin with; may be given several times. Those that it knows are "
    "asked as well.",
)
@click.option("--redis", "redis_url", envvar="ZONEMESH_REDIS_URL", help="Look at this Redis too.")
@click.option("--prefix", default=PREFIX, show_default=True, help="redis.keyPrefix.")
@click.option("--agent", "agents", multiple=True, help="An agent's diagnostics (port 9902) too.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each answer.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also what is as it should be.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text")
def doctor(
    *,
    urls: tuple[str, ...],
    redis_url: str | None,
    prefix: str,
    agents: tuple[str, ...],
    timeout: float,
    form: str,
    verbose: bool,
) -> None:
    """Look for what is wrong with a mesh, and say what to do about it.

    Asks control planes, and all others that they know by their addresses, whether they answer, who
    leads, how old what they hold is, whether states agree; about zones, addresses, clocks and
    versions; Redis and agents if they are given.

    The exit code is 0 if nothing is wrong, 1 if something should be looked at, 2 if something does
    not work.
    """
    found = Found()
    of_redis: list[Finding] = []
    if redis_url:
        of_redis, replicas = asyncio.run(_ask_redis(redis_url, prefix))
        urls += tuple(replicas)
    _ask_planes(found, urls, timeout)
    found.findings += diagnosis.of_replicas(found.states)
    found.findings += diagnosis.of_versions(found.states)
    found.findings += diagnosis.of_clocks(found.skews_s)
    found.findings += of_redis
    for agent in agents:
        found.findings += _ask_agent(agent, timeout)
    code = diagnosis.exit_code(found.findings)
    if form == "json":
        document = {"exitCode": code, "findings": [asdict(each) for each in found.findings]}
        click.echo(output.pretty_json(document))
    else:
        click.echo("\n".join(lines(found.findings, verbose=verbose, width=output.width())))
    sys.exit(code)


def lines(findings: Sequence[Finding], *, verbose: bool, width: int | None) -> Iterator[str]:
    """Findings for people, the worst first."""
    order = list(Level)[::-1]
    shown = [each for each in findings if verbose or each.level is not Level.OK]
    for each in sorted(shown, key=lambda each: order.index(each.level)):
        head = f"{_MARKS[each.level]:8}{each.where}: {each.what}"
        yield from output.wrapped(head, width or output.PROSE) if width else [head]
        if each.remedy:
            yield from output.wrapped(f"        → {each.remedy}", width or 10_000)
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    if shown:
        yield ""
    yield (
        f"{len(findings)} checks: {counts[Level.OK]} ok, {counts[Level.WARNING]} warnings, "
        f"{counts[Level.ERROR]} errors"
        + (f", {counts[Level.UNKNOWN]} not known" if counts[Level.UNKNOWN] else "")
    )


def _ask_planes(found: Found, urls: Sequence[str], timeout_s: float) -> None:
    """Ask those given, then those that they know."""
    asked: set[str] = set()
    waiting = [url.rstrip("/") for url in urls]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        while waiting and len(asked) < PLANES_MAX:
            turn = list(dict.fromkeys(url for url in waiting if url not in asked))
            turn = turn[: PLANES_MAX - len(asked)]
            asked.update(turn)
            answers = threads.map(lambda url: _state_of(url, timeout_s), turn)
            waiting = []
            for url, answer in zip(turn, answers, strict=True):
                waiting += _taken(found, url, answer)


def _state_of(url: str, timeout_s: float) -> tuple[Mapping[str, Any], float] | MeshError:
    """A control plane's state, and how far its clock is ahead of this one."""
    client = Client(url, timeout_s)
    try:
        before_s = time.time()
        state = client.get("/_state")
        here_s = (before_s + time.time()) / 2
        skew_s = state["now_ms"] / 1000 - here_s if "now_ms" in state else 0.0
    except MeshError as error:
        return error
    else:
        return state, skew_s
    finally:
        client.close()


def _taken(
    found: Found, url: str, answer: tuple[Mapping[str, Any], float] | MeshError
) -> list[str]:
    """Note an answer; answers which further control planes it names."""
    if isinstance(answer, MeshError):
        remedy = "is the process up, is the port open, is advertisedUrl right?"
        found.findings.append(Finding(Level.ERROR, "reachable", url, str(answer), remedy))
        return []
    state, skew_s = answer
    zone = state.get("zone")
    where = f"zone {zone} at {url}" if zone else f"global {url}"
    found.states[where], found.skews_s[where] = state, skew_s
    found.findings.append(fine("reachable", where, "answers"))
    found.findings += diagnosis.of_plane(state, where)
    known = [state.get("leader_url"), *(each.get("url") for each in state["zones"].values())] if (
        "zones" in state
    ) else []  # fmt: skip
    return [each.rstrip("/") for each in known if each]


async def _ask_redis(url: str, prefix: str) -> tuple[list[Finding], list[str]]:
    """What there is to say of a Redis, and the addresses of the globals that live in it."""
    where = "Redis"
    try:
        store = RedisStore(url, prefix=prefix)
    except ConfigError as error:
        return [Finding(Level.ERROR, "redis", where, str(error), "correct --redis")], []
    try:
        found = _of_server(await weaknesses(url, prefix=prefix), where)
        head = await store.log(GLOBAL_LOG).head()
        replicas = await store.replicas(GLOBAL_LOG)
    except ConfigError as error:
        return [Finding(Level.ERROR, "redis", where, str(error), "upgrade Redis")], []
    except MeshError as error:
        remedy = "is it up, is the port open, is the password right?"
        return [Finding(Level.ERROR, "redis", where, str(error), remedy)], []
    finally:
        await store.close()
    if head is None:
        remedy = "is --prefix right? If so: docs/operations.md, Redis came back empty"
        found.append(Finding(Level.ERROR, "log", where, "holds no log of global", remedy))
    urls = sorted(str(msgpack.unpackb(each).get("url")) for each in replicas.values())
    return [*found, _of_replicas(urls, where)], urls


def _of_server(found: Sequence[Weakness], where: str) -> list[Finding]:
    told = [
        Finding(Level(each.severity), "redis", f"{where} {each.where}", each.what, each.remedy)
        for each in found
    ]
    return told or [fine("redis", where, "is set up as it should be")]


def _of_replicas(urls: Sequence[str], where: str) -> Finding:
    if not urls:
        remedy = "start a globalcp; zones and agents go on meanwhile"
        return Finding(Level.ERROR, "globals", where, "no globalcp lives", remedy)
    told = f"{len(urls)} globalcp live: {', '.join(urls)}"
    if len(urls) == 1:
        remedy = "run a second one: nobody takes over from one"
        return Finding(Level.WARNING, "globals", where, told, remedy)
    return fine("globals", where, told)


def _ask_agent(url: str, timeout_s: float) -> list[Finding]:
    client = Client(url, timeout_s)
    where = f"agent {url}"
    try:
        return list(diagnosis.of_agent(client.get(_STATUS), where))
    except MeshError as error:
        return [Finding(Level.ERROR, "agent", where, str(error), "is it up on this host?")]
    finally:
        client.close()
