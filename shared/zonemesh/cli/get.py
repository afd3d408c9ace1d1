"""The command `zonemesh get`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from zonemesh.cli import output
from zonemesh.cli.catalogue import Catalogue, Row
from zonemesh.cli.client import PAGE, Client, Document, item_path, list_path
from zonemesh.cli.columns import cells, columns
from zonemesh.cli.connection import complete_name, connected, kind_argument, mesh_option
from zonemesh.cli.naming import named
from zonemesh.cli.options import form_option
from zonemesh.cli.watching import EVERY_S, Event, follow
from zonemesh.errors import InputError

LIMIT = 10_000
"""Resources printed without `--size`: a list that goes on beyond it is no longer read by anyone."""


class Wanted(NamedTuple):
    """What is listed."""

    row: Row
    name: str | None
    mesh: str | None
    """None: across meshes, or a kind outside meshes."""

    @property
    def where(self) -> str:
        return f" in mesh {self.mesh}" if self.mesh is not None else ""


@click.command()
@kind_argument
@click.argument("name", required=False, shell_complete=complete_name)
@mesh_option
@click.option("-A", "--all-meshes", is_flag=True, help="List across meshes.")
@form_option(
    "table", "wide", "yaml", "json", text="wide adds columns such as addresses, names and states."
)
@click.option("-w", "--watch", is_flag=True, help="Go on printing what changes, until Ctrl-C.")
@click.option("--size", type=click.IntRange(1, PAGE), help="Only one page, of so many.")
@click.option("--offset", type=click.IntRange(min=0), help="Where that page starts.")
@connected
def get(
    client: Client,
    kind: str,
    name: str | None,
    *,
    mesh: str,
    form: str,
    size: int | None,
    offset: int | None,
    all_meshes: bool,
    watch: bool,
) -> None:
    """List resources of a KIND, or show the one called NAME.

    KIND may be one or several, a path or a short name: meshservice, meshservices, msvc.
    """
    row = Catalogue.fetch(client).find(kind)
    paged = size is not None or offset is not None
    _check(name, all_meshes=all_meshes, watch=watch, paged=paged)
    wanted = Wanted(row, name, None if all_meshes else row.mesh_of(mesh))
    if watch:
        _watch(client, wanted, form)
    elif name is not None:
        _show(wanted, _one(client, wanted, form), form)
    elif paged:
        _page(client, wanted, form, size=size or 100, offset=offset or 0)
    else:
        _show(wanted, _all(client, wanted, form), form)


def _check(name: str | None, *, all_meshes: bool, watch: bool, paged: bool) -> None:
    faults = []
    if name is not None and all_meshes:
        faults.append("a NAME is of one mesh: leave out --all-meshes")
    if paged and (watch or name is not None):
        faults.append("--size and --offset are for lists that are not watched")
    if faults:
        raise InputError("; ".join(faults))


def _path(wanted: Wanted, form: str) -> str:
    """Where the list is read. Zones' states are in their overviews only."""
    path = list_path(wanted.row.path, wanted.mesh)
    return f"{path}/_overview" if wanted.row.name == "Zone" and form == "wide" else path


def _one(client: Client, wanted: Wanted, form: str) -> list[Document]:
    row, name, mesh = wanted
    assert name is not None
    found = named(client, row, mesh, name)
    if row.name == "Zone" and form == "wide":
        found = client.get(f"{item_path(row.path, mesh, str(found['name']))}/_overview")
    return [found]


def _all(client: Client, wanted: Wanted, form: str) -> list[Document]:
    items = list(client.items(_path(wanted, form), LIMIT + 1))
    if len(items) > LIMIT:
        click.echo(
            f"Only the first {LIMIT}. Rerun command with --offset={LIMIT} --size={PAGE} to "
            "retrieve more resources",
            err=True,
        )
    return items[:LIMIT]


def _page(client: Client, wanted: Wanted, form: str, *, size: int, offset: int) -> None:
    page = client.page(_path(wanted, form), size=size, offset=offset)
    _show(wanted, page.items, form)
    if page.offset is not None:
        click.echo(
            f"\nRerun command with --offset={page.offset} argument to retrieve more resources",
            err=True,
        )


def _show(wanted: Wanted, items: Sequence[Document], form: str) -> None:
    if form == "json":
        shown = items[0] if wanted.name is not None else {"total": len(items), "items": items}
        click.echo(output.pretty_json(shown))
    elif form == "yaml":
        click.echo("\n---\n".join(map(output.pretty_yaml, items)))
    else:
        click.echo(_table(wanted.row, items, form))


def _table(row: Row, items: Iterable[Document], form: str) -> str:
    shown = columns(row, datetime.now(UTC), wide=form == "wide")
    return output.table(
        [column.title for column in shown],
        (cells(shown, each) for each in items),
        output.width(),
    )


def _watch(client: Client, wanted: Wanted, form: str) -> None:
    def fetch() -> list[Document]:
        if wanted.name is None:
            return list(client.items(_path(wanted, form), LIMIT))
        found = client.find(item_path(wanted.row.path, wanted.mesh, wanted.name))
        return [] if found is None else [found]

    changes = follow(
        fetch,
        pause=lambda: time.sleep(EVERY_S),
        tell=lambda line: click.echo(line, err=True),
    )
    try:
        for events in changes:
            _show_events(wanted.row, events, form)
    except KeyboardInterrupt:
        return  # how it is meant to end


def _show_events(row: Row, events: Sequence[tuple[Event, Mapping[str, Any]]], form: str) -> None:
    if form == "json":
        for event, document in events:
            click.echo(json.dumps({"event": event, "resource": document}, ensure_ascii=False))
    elif form == "yaml":
        for event, document in events:
            click.echo(f"--- # {event}\n{output.pretty_yaml(document)}")
    else:
        shown = columns(row, datetime.now(UTC), wide=form == "wide")
        rows = [[str(event), *cells(shown, document)] for event, document in events]
        titles = ["EVENT", *(column.title for column in shown)]
        click.echo(output.table(titles, rows, output.width()))
