"""`zonedp status`, `lookup` and `querylog`: what a running agent says of itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from zonecp.dataplane.routes import LOOKUP, QUERY_LOG, QUERY_LOG_S, STATUS
from zonemesh.cli.client import Client
from zonemesh.errors import MeshError
from zonemesh.runtime.main import report

AGENT = "http://127.0.0.1:9902"
TIMEOUT_S = 10.0
ITEMS_MAX = 10
"""Of a list of documents, in lines for people."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _asking(command: Command) -> Command:
    as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
    agent = click.option(
        "--agent",
        default=AGENT,
        show_default=True,
        envvar="ZONEDP_AGENT",
        help="Where the agent has its diagnostics: its port is dataplane.readinessPort.",
    )
    return as_json(agent(command))


@click.command()
@_asking
def status(agent: str, *, as_json: bool) -> None:
    """What a running agent serves and drives."""
    _show(_ask(agent, STATUS), as_json=as_json, lines=_lines)


@click.command()
@click.argument("name")
@click.option(
    "--type", "qtype", default="A", show_default=True, help="Of the record, such as AAAA."
)
@_asking
def lookup(name: str, qtype: str, agent: str, *, as_json: bool) -> None:
    """What a running agent answers for NAME, and why.

    NAME may be an address. Told is also where the answer is from: map, zone, service, or upstream.
    """
    found = _ask(agent, f"{LOOKUP}?{urlencode({'name': name, 'type': qtype})}")
    _show(found, as_json=as_json, lines=_answer)


@click.command()
@click.argument("state", type=click.Choice(["on", "off", "show"]), default="show")
@click.option("--seconds", default=QUERY_LOG_S, show_default=True, help="For how long.")
@click.option("--sample", default=1, show_default=True, help="Every so many queries one.")
@_asking
def querylog(state: str, seconds: int, sample: int, agent: str, *, as_json: bool) -> None:
    """Have a running agent log its DNS queries, for a while."""
    method = {"on": "POST", "off": "DELETE", "show": "GET"}[state]
    path = QUERY_LOG
    if state == "on":
        path += f"?{urlencode({'seconds': seconds, 'sample': sample})}"
    _show(_ask(agent, path, method), as_json=as_json, lines=_lines)


def _ask(agent: str, path: str, method: str = "GET") -> dict[str, Any]:
    client = Client(agent, TIMEOUT_S)
    try:
        return client.ask(method, path)
    except MeshError as error:
        sys.exit(report(error))
    finally:
        client.close()


def _show(
    document: Mapping[str, Any],
    *,
    as_json: bool,
    lines: Callable[[Mapping[str, Any]], Iterator[str]],
) -> None:
    click.echo(json.dumps(document, indent=1) if as_json else "\n".join(lines(document)))


def _lines(document: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Any document of mappings, readable; sections that nobody here knows as well."""
    width = max((len(key) for key in document), default=0)
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}"
            yield from _lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{indent}{key}"
            for each in value[:ITEMS_MAX]:
                yield f"{indent}  {' '.join(map(_text, each.values()))}"
            if len(value) > ITEMS_MAX:
                yield f"{indent}  ... and {len(value) - ITEMS_MAX} more: --json"
        else:
            yield f"{indent}{key:<{width}}  {_text(value)}"


def _text(value: Any) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _answer(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['name']} {found['type']}: {found['status']}"
    yield from (f"  {record}" for record in found["answers"])
    yield from _lines({key: value for key, value in found.items()
                       if key not in ("name", "type", "status", "answers")})  # fmt: skip
