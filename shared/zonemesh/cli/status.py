"""The command `zonemesh status`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from zonemesh.cli import output
from zonemesh.cli.client import AnsweredError, Client
from zonemesh.cli.connection import connected
from zonemesh.cli.options import form_option
from zonemesh.errors import InputError, UnavailableError

State = Mapping[str, Any]
"""`GET /_state` of a control plane."""

EVERY_S = 1.0


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Show it anew each second, until Ctrl-C.")
@form_option("table", "json", text="json is what the control plane says of itself, all of it.")
@connected
def status(client: Client, *, watch: bool, form: str) -> None:
    """Tell how a control plane is: who leads, how old what it knows is, zones and pools.

    Asked of global: all zones and all pools. Asked of a zone: its own part, and what it knows of
    the others. Lags are ages of what was last applied, so a number that grows is a hop that stands
    still.
    """
    if watch:
        _watch(client, form)
    elif form == "json":
        click.echo(output.pretty_json(read(client)))
    else:
        click.echo("\n".join(lines(read(client), client.url, output.width())))


def read(client: Client) -> State:
    """What a control plane says of itself.

    Raises:
        InputError: The URL is no control plane's.
    """
    try:
        return client.get("/_state")
    except AnsweredError as error:
        if error.status == 404:
            raise InputError(f"{client.url} is no control plane's REST address") from error
        raise


def _watch(client: Client, form: str) -> None:
    if form == "json":
        _watch_json(client)
        return
    from rich.console import Console  # noqa: PLC0415 -- 0.1 s that other forms need not wait for
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=False)
    shown: list[str] = []
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                try:
                    shown = list(lines(read(client), client.url, console.width))
                    moment = time.strftime("%H:%M:%S")
                    text = [*shown, "", f"as of {moment}; Ctrl-C ends"]
                except UnavailableError as error:
                    text = [*shown, "", f"{error}; trying again"]
                live.update(Text("\n".join(text)), refresh=True)
                time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return  # how it is meant to end


def _watch_json(client: Client) -> None:
    try:
        while True:
            try:
                click.echo(json.dumps(read(client), ensure_ascii=False))
            except UnavailableError as error:
                click.echo(f"{error}; trying again", err=True)
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return


def lines(state: State, url: str, width: int | None) -> Iterator[str]:
    """The state for people, in at most `width` columns."""
    head = list(_zone_head(state, url) if "own" in state else _global_head(state, url))
    label = max(len(name) for name, _ in head) + 2
    for name, text in head:
        folded = output.wrapped(text, (width or output.PROSE) - label) if width else [text]
        for number, line in enumerate(folded):
            yield f"{(name if number == 0 else ''):{label}}{line}".rstrip()
    for title, columns, rows in (_zones(state), _pools(state)):
        if rows:
            yield ""
            yield title
            yield from output.table(columns, rows, width).splitlines()


def _global_head(state: State, url: str) -> Iterator[tuple[str, str]]:
    yield "Global", f"{url}, {state.get('version', '')}"
    yield "Leader", "this replica" if state["leader"] else state.get("leader_url") or "NOBODY LEADS"
    yield "Ready", state.get("ready") or "yes"
    yield "Log", _log(state)
    yield from _formats(state, "log")
    yield "Lag", seconds(state.get("lag_s"))
    yield from _troubles(state)


def _zone_head(state: State, url: str) -> Iterator[tuple[str, str]]:
    yield "Zone", f"{state['zone']} at {url}, {state.get('version', '')}, uid {state.get('uid')}"
    yield "Leader", "this process" if state["leader"] else "NOT THIS PROCESS"
    yield "Ready", state.get("ready") or state.get("stale") or "yes"
    yield "Own log", _log(state["own"])
    yield from _formats(state, "own")
    if state.get("federated"):
        yield "Global's", _log(state["global"])
        yield "Lag", f"{seconds(state.get('lag_s'))} behind global"
        round_trip_s = state.get("canary_round_trip_s")
        told = "?" if round_trip_s is None else f"{round_trip_s * 1000:.0f} ms"
        yield "Canary", f"{told} to global and back"
        yield "Uplink", state.get("uplink_refused") or "takes what is written"
    yield "Agents", f"{state.get('subscribers', 0)} feeds open"
    if renumbered := state.get("renumbered"):
        yield "Renumbered", f"{renumbered} addresses given up to other zones"
    yield from _troubles(state)


def _log(described: Mapping[str, Any]) -> str:
    records = sum((described.get("records") or {}).values())
    cursor = described["cursor"]
    if cursor.startswith("."):
        return "not read yet"
    return f"{cursor}, {records} records, state {described['digest'][-16:]}"


def _formats(state: State, which: str) -> Iterator[tuple[str, str]]:
    """Said only while logs could be written in a later format than they are."""
    formats = state.get("formats") or {}
    written, readable = formats.get(which), formats.get("readable") or ()
    if written is None or written >= max(readable, default=written):
        return
    reads = " and ".join(map(str, readable))
    yield "Format", f"written in {written}, this build reads {reads}; {_holding(state, written)}"


def _holding(state: State, written: int) -> str:
    formats = state["formats"]
    if behind := formats.get("heldBackBy"):
        return f"held back by {', '.join(behind)}"
    if "own" not in state:
        here, there = (
            "raised once all have read it for a minute",
            "its leader says who holds it back",
        )
        return here if state["leader"] else there
    if state.get("federated") and formats["global"] <= written:
        return "global's log is not in a later one"
    return "another control plane of the zone holds it back"


def _troubles(state: State) -> Iterator[tuple[str, str]]:
    """What has happened to readers since the process started, and what is wrong now."""
    if state.get("halted"):
        yield "HALTED", state["halted"]
    if blocked_s := state.get("blocked_s"):
        yield "BLOCKED", f"its log takes no entry since {seconds(blocked_s)}"
    resyncs = state.get("resyncs") or {}
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(resyncs.items()))
    yield "Resyncs", told or "none"
    for shortage in state.get("shortages") or ():
        yield "SHORT", f"{shortage['pool']} of {_place(shortage['zone'])}: {shortage['why']}"


Table = tuple[str, list[str], list[list[output.Cell]]]


def _zones(state: State) -> Table:
    zones = state.get("zones") or {}
    if "own" in state:
        rows: list[list[output.Cell]] = [
            [
                zone,
                zone_state(each),
                seconds(each.get("lagSeconds")),
                seconds(each.get("canarySeconds")),
                str(each.get("version", "")),
            ]
            for zone, each in sorted(zones.items())
        ]
        return (
            "Zones, as global's log has them",
            ["ZONE", "STATE", "LAG", "CANARY", "VERSION"],
            rows,
        )
    rows = [
        [
            zone,
            zone_state(each),
            seconds(each.get("lagSeconds")),
            seconds(each.get("zoneLagSeconds")),
            str(each.get("records", "")),
            str(each.get("rejectedRecords", "")),
            str(each.get("bindingConflicts", "")),
            str(each.get("version", "")),
        ]
        for zone, each in sorted(zones.items())
    ]
    titles = ["ZONE", "STATE", "LAG", "SEES US", "RECORDS", "REJECTED", "CONFLICTS", "VERSION"]
    return "Zones", titles, rows


def zone_state(each: Mapping[str, Any]) -> str:
    if not each.get("enabled", True):
        return "Disabled"
    return "Online" if each.get("online") else "OFFLINE"


def _pools(state: State) -> Table:
    rows: list[list[output.Cell]] = [
        [pool, _place(zone), *(str(usage[each]) for each in _USAGE)]
        for pool, zones in sorted((state.get("pools") or {}).items())
        for zone, usage in sorted(zones.items())
    ]
    titles = ["POOL", "OF", "USED", "RESTING", "FREE", "WAITING", "BLOCKS"]
    return "Addresses", titles, rows


_USAGE = ("used", "quarantined", "free", "waiting", "blocks")


def _place(zone: str) -> str:
    return zone or "global"


def seconds(value: float | None) -> str:
    """An age in the unit that a person would use; a question mark where it is not known."""
    if value is None:
        return "?"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s"
