"""The command `zonemesh describe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from zonemesh.cli import columns, output
from zonemesh.cli.catalogue import Catalogue, Row
from zonemesh.cli.client import PAGE, Client, Document, item_path
from zonemesh.cli.connection import complete_name, connected, kind_argument, mesh_option
from zonemesh.cli.naming import named

DATAPLANES_MAX = 20
_LABEL_WIDTH = 16
_META = frozenset(
    {
        *("type", "mesh", "name", "labels", "creationTime", "modificationTime"),
        *("kri", "snis", "status", "spec"),
    }
)


class Resource(NamedTuple):
    row: Row
    mesh: str | None
    document: Document


@click.command()
@kind_argument
@click.argument("name", shell_complete=complete_name)
@mesh_option
@connected
def describe(client: Client, kind: str, name: str, mesh: str) -> None:
    """Tell everything about one resource, for people.

    NAME is what it is called here, or where it was made.

    Of a service: its addresses, its names and why it lacks one, the Dataplanes behind it. Of a
    zone, on the global control plane: whether it is heard of, and how old what it told is.
    """
    row = Catalogue.fetch(client).find(kind)
    in_mesh = row.mesh_of(mesh)
    resource = Resource(row, in_mesh, named(client, row, in_mesh, name))
    for line in _lines(client, resource, datetime.now(UTC)):
        click.echo(line)


def _lines(client: Client, resource: Resource, now: datetime) -> Iterator[str]:
    row, _, document = resource
    yield from _head(row, document, now)
    yield from _spec(document)
    if "status" in document:
        yield from _status(document["status"])
    if row.name == "MeshService":
        yield from _dataplanes(client, resource)
    if row.name == "Zone":
        yield from _insight(client, resource, now)


def pair(label: str, value: str) -> str:
    return f"{label + ':':{_LABEL_WIDTH}}{value}"


def _head(row: Row, document: Document, now: datetime) -> Iterator[str]:
    yield pair("Name", str(document.get("name")))
    yield pair("Kind", row.name)
    if "mesh" in document:
        yield pair("Mesh", str(document["mesh"]))
    if made_in := columns.zone(document):
        yield pair("Zone", made_in)
    for label, field in (("Created", "creationTime"), ("Modified", "modificationTime")):
        moment = document.get(field)
        yield pair(label, f"{moment} ({output.age(moment, now)} ago)")
    yield from _block("Labels", [f"{k}={v}" for k, v in sorted(_labels(document).items())])


def _labels(document: Document) -> Mapping[str, Any]:
    return document.get("labels") or {}


def _block(label: str, values: Sequence[str]) -> Iterator[str]:
    """Values below one another, the first beside the label; folded where there are spaces."""
    columns_left = (output.width() or output.PROSE) - _LABEL_WIDTH
    folded = [line for value in values for line in output.wrapped(value, columns_left)]
    for number, line in enumerate(folded or ["none"]):
        yield pair(label, line) if number == 0 else " " * _LABEL_WIDTH + line


def _spec(document: Document) -> Iterator[str]:
    """The spec, wherever the kind keeps it."""
    flat = {name: value for name, value in document.items() if name not in _META}
    spec = document.get("spec", flat)
    if spec:
        yield "Spec:"
        yield from (f"  {line}" for line in output.pretty_yaml(spec).splitlines())


def _status(status: Mapping[str, Any]) -> Iterator[str]:
    yield from _block("Addresses", [str(each.get("ip")) for each in status.get("vips") or ()])
    given = {_generator(each): str(each.get("hostname")) for each in status.get("addresses") or ()}
    lines = []
    for each in status.get("hostnameGenerators") or ():
        generator = _generator(each)
        lines += [_name_line(given.get(generator), generator, each.get("conditions") or ())]
    yield from _block("Names", lines)
    for condition in status.get("conditions") or ():
        yield pair("Condition", _condition(condition))
    proxies = status.get("dataplaneProxies")
    if proxies:
        counts = ", ".join(f"{proxies.get(each, 0)} {each}" for each in _PROXY_COUNTS)
        yield pair("Data planes", counts)


_PROXY_COUNTS = ("total", "healthy", "connected")


def _generator(entry: Mapping[str, Any]) -> str:
    return str((entry.get("hostnameGeneratorRef") or {}).get("coreName", ""))


def _name_line(
    hostname: str | None, generator: str, conditions: Sequence[Mapping[str, Any]]
) -> str:
    if hostname is not None:
        return f"{hostname} (by {generator})"
    failed = [f"{each.get('reason')}: {each.get('message')}" for each in conditions]
    return f"none by {generator}: {'; '.join(failed) or 'not given'}"


def _condition(condition: Mapping[str, Any]) -> str:
    kind, status = condition.get("type"), condition.get("status")
    return f"{kind} {status}, {condition.get('reason')}: {condition.get('message')}"


# Dataplanes of a service


def _dataplanes(client: Client, resource: Resource) -> Iterator[str]:
    """Those selected, as far as this control plane shows them: a zone shows its own only."""
    row, mesh, service = resource
    path = f"{item_path(row.path, mesh, str(service['name']))}/_dataplanes"
    found = list(client.items(path, PAGE))
    if not found:
        return
    rows = [
        (str(each["name"]), columns.address(each), columns.dataplane_state(each))
        for each in found[:DATAPLANES_MAX]
    ]
    text = output.table(["NAME", "ADDRESS", "STATE"], rows, output.width())
    yield from (f"  {line}" for line in text.splitlines())
    if len(found) > DATAPLANES_MAX:
        yield f"  and {len(found) - DATAPLANES_MAX} more"


# Zones


def _insight(client: Client, resource: Resource, now: datetime) -> Iterator[str]:
    path = item_path("zones", None, str(resource.document.get("name")))
    overview = client.find(f"{path}/_overview") or {}
    insight = overview.get("zoneInsight")
    yield pair(
        "State", columns.zone_state(overview) or "unknown here: ask the global control plane"
    )
    if not insight:
        return
    if since := (insight.get("zonemesh") or {}).get("since"):
        yield pair("Since", f"{since} ({output.age(since, now)} ago)")
    if effects := columns.zone_effects(overview):
        yield pair("Elsewhere", f"{effects}, of its services")
    subscription = (insight.get("subscriptions") or [{}])[-1]
    for label, field in (("Connected", "connectTime"), ("Disconnected", "disconnectTime")):
        if moment := subscription.get(field):
            yield pair(label, f"{moment} ({output.age(moment, now)} ago)")
    version = ((subscription.get("version") or {}).get("kumaCp") or {}).get("version")
    yield pair("Version", str(version or "unknown"))
    yield from _told(insight.get("zonemesh") or {})


_TOLD = (
    ("URL", "url", ""),
    ("Lag", "lagSeconds", " s, of what global has of it"),
    ("Its own lag", "zoneLagSeconds", " s, of what it has of global"),
    ("Records", "records", ""),
    ("Rejected", "rejectedRecords", " records"),
    ("Conflicts", "bindingConflicts", " bindings"),
)


def _told(told: Mapping[str, Any]) -> Iterator[str]:
    for label, field, unit in _TOLD:
        if told.get(field) not in (None, ""):
            yield pair(label, f"{told[field]}{unit}")
