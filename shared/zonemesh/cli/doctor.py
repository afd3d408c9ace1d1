"""The command `zonemesh doctor`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from zonemesh.cli import diagnosis, output
from zonemesh.cli.client import Client
from zonemesh.cli.diagnosis import Finding, Level, fine
from zonemesh.cli.join import join
from zonemesh.cli.options import (
    Redis,
    form_option,
    own_log_option,
    redis_options,
    timeout_option,
    url_option,
)
from zonemesh.cli.reporting import reporting
from zonemesh.errors import ConfigError, MeshError

TIMEOUT_S = 3.0
PLANES_MAX = 200
"""Control planes that are asked; a mesh with more is not looked at from one terminal."""
_ASKED_AT_ONCE = 16
_STATUS = "/status"
"""Of an agent's diagnostics."""

_MARKS = {Level.OK: "ok", Level.UNKNOWN: "?", Level.WARNING: "warning", Level.ERROR: "ERROR"}
_INDENT = 8


@dataclass
class Found:
    """What was learnt of a mesh."""

    findings: list[Finding] = field(default_factory=list)
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    skews_s: dict[str, float] = field(default_factory=dict)


@click.command()
@url_option(
    "A control plane to begin with; may be given several times. Those that it knows are asked as "
    "well.",
    several=True,
)
@redis_options
@own_log_option
@click.option("--agent", "agents", multiple=True, help="An agent's diagnostics (port 9902) too.")
@click.option(
    "--join",
    "joining",
    is_flag=True,
    help="Instead: what would change if the zone of one --url, which stands alone, joined the mesh "
    "of the other, a global.",
)
@timeout_option(TIMEOUT_S)
@click.option("-v", "--verbose", is_flag=True, help="Also what is as it should be.")
@form_option("text", "json")
@reporting
def doctor(
    *,
    urls: tuple[str, ...],
    redis: Redis | None,
    zone: str | None,
    agents: tuple[str, ...],
    timeout: float,
    form: str,
    verbose: bool,
    joining: bool,
) -> None:
    """Look for what is wrong with a mesh, and say what to do about it.

    Asks control planes, and all others that they know by their addresses, whether they answer, who
    leads, how old what they hold is, whether states agree; about zones, addresses, settings, clocks
    and versions; Redis and agents if they are given.

    With --join it changes nothing either: it tells which blocks of addresses clash, which services
    and legacy names would get other addresses, and what has to be made on global.

    The exit code is 0 if nothing is wrong, 1 if something should be looked at (or would change), 2
    if something does not work.
    """
    if joining:
        text, code = join(urls, timeout, form)
    else:
        findings = _examine(urls, redis, zone, agents, timeout)
        code = diagnosis.exit_code(findings)
        if form == "json":
            found = [asdict(each) for each in findings]
            text = output.pretty_json({"exitCode": code, "findings": found})
        else:
            text = "\n".join(lines(findings, verbose=verbose, width=output.width()))
    click.echo(text)
    sys.exit(code)


def _examine(
    urls: tuple[str, ...],
    redis: Redis | None,
    zone: str | None,
    agents: Sequence[str],
    timeout_s: float,
) -> list[Finding]:
    found = Found()
    of_redis: list[Finding] = []
    if redis is not None:
        from zonemesh.cli.redisdoctor import examine  # noqa: PLC0415 -- 0.2 s, for who needs it

        of_redis, replicas = asyncio.run(examine(redis, zone))
        urls += tuple(replicas)
    elif zone is not None:
        raise ConfigError(["--zone says whose own log is in a Redis: give its --redis"])
    _ask_planes(found, urls, timeout_s)
    found.findings += diagnosis.of_replicas(found.states)
    found.findings += diagnosis.of_versions(found.states)
    found.findings += diagnosis.of_clocks(found.skews_s)
    found.findings += of_redis
    for agent in agents:
        found.findings += _ask_agent(agent, timeout_s)
    return found.findings


def lines(findings: Sequence[Finding], *, verbose: bool, width: int | None) -> Iterator[str]:
    """Findings for people, the worst first."""
    order = list(Level)[::-1]
    shown = [each for each in findings if verbose or each.level is not Level.OK]
    for each in sorted(shown, key=lambda each: order.index(each.level)):
        head = f"{_MARKS[each.level]:{_INDENT}}{each.where}: {each.what}"
        yield from output.wrapped(head, width, hanging=_INDENT) if width else [head]
        if each.remedy:
            remedy = f"{'':{_INDENT}}→ {each.remedy}"
            yield from output.wrapped(remedy, width) if width else [remedy]
    counts = Counter(each.level for each in findings)
    if shown:
        yield ""
    warnings = _counted(counts[Level.WARNING], "warning")
    yield (
        f"{len(findings)} checks: {counts[Level.OK]} ok, {warnings}, "
        + _counted(counts[Level.ERROR], "error")
        + (f", {counts[Level.UNKNOWN]} not known" if counts[Level.UNKNOWN] else "")
    )


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


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


def _ask_agent(url: str, timeout_s: float) -> list[Finding]:
    client = Client(url, timeout_s)
    where = f"agent {url}"
    try:
        return list(diagnosis.of_agent(client.get(_STATUS), where))
    except MeshError as error:
        return [Finding(Level.ERROR, "agent", where, str(error), "is it up on this host?")]
    finally:
        client.close()
