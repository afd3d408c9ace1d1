"""The command `zonemesh apply`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import click

from zonemesh.cli import documents
from zonemesh.cli.catalogue import Catalogue, Row
from zonemesh.cli.client import AnsweredError, Client, Document, item_path, problem_lines
from zonemesh.cli.connection import connected, mesh_option
from zonemesh.cli.documents import Fault, Source
from zonemesh.cli.reporting import lines_of
from zonemesh.errors import InputError, MeshError, ValidationError

BULK_MIN = 20
"""From so many documents on they are sent together."""
BULK_MAX = 1_000
"""Of one request: so much is answered well within the timeout."""

CREATED, UPDATED, UNCHANGED, FAILED = "Created", "Updated", "Unchanged", "Failed"


@dataclass(frozen=True, slots=True)
class Item:
    """One document that says what it is."""

    source: Source
    row: Row
    mesh: str | None
    name: str

    @property
    def title(self) -> str:
        mesh = "" if self.mesh is None else f" mesh={self.mesh}"
        return f"resource type={self.row.name}{mesh} name={self.name}"

    @property
    def path(self) -> str:
        return item_path(self.row.path, self.mesh, self.name)

    @property
    def body(self) -> Document:
        """The document, its mesh in it."""
        return self.source.body if self.mesh is None else self.source.body | {"mesh": self.mesh}


class Outcome(NamedTuple):
    title: str
    what: str
    where: str
    lines: Sequence[str] = ()
    """Warnings, or what is wrong."""


class Sent(NamedTuple):
    """What became of one document."""

    created: bool
    warnings: Sequence[str] = ()


@click.command()
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="What to apply, YAML or JSON; may be given more than once. - is stdin.",
)
@mesh_option
@click.option("--dry-run", is_flag=True, help="Check and compare only; nothing is written.")
@connected
def apply(client: Client, files: tuple[str, ...], mesh: str, *, dry_run: bool) -> None:
    """Create or update the resources of files.

    A file may hold several documents; those of a mesh that name none are of --mesh. Each is
    applied on its own: if one fails, the others are applied and the exit code is 1.
    """
    read = list(documents.read(files, sys.stdin.buffer))
    catalogue = Catalogue.fetch(client)
    found = [_item(each, catalogue, mesh) if isinstance(each, Source) else each for each in read]
    items = [each for each in found if isinstance(each, Item)]
    # What others are in comes first, in whatever order files were read.
    items.sort(key=lambda item: item.row.name != "Mesh")
    failed = [Outcome("document", FAILED, each.where, [each.reason]) for each in found
              if isinstance(each, Fault)]  # fmt: skip
    if not read:
        raise InputError("nothing to apply: no documents in " + ", ".join(files))
    bad = False
    for outcome in (*failed, *(_tried(client, items) if dry_run else _applied(client, items))):
        bad |= outcome.what == FAILED
        _print(outcome, dry_run=dry_run)
    if bad:
        sys.exit(1)


def _print(outcome: Outcome, *, dry_run: bool) -> None:
    bad = outcome.what == FAILED
    where = f" ({outcome.where})" if bad else ""
    click.echo(f"{outcome.title} {outcome.what}{where}{' (dry run)' * dry_run}", err=bad)
    for line in outcome.lines:
        click.echo(f"  {line}" if bad else f"  Warning: {line}", err=True)


def _item(source: Source, catalogue: Catalogue, mesh: str) -> Item | Fault:
    body = source.body
    faults = [
        f"{field}: must be a string that is not empty"
        for field in ("type", "name")
        if not isinstance(body.get(field), str) or not body[field]
    ]
    if not isinstance(body.get("mesh", ""), str):
        faults.append("mesh: must be a string")
    if faults:
        return Fault(source.where, "; ".join(faults))
    row = catalogue.named(body["type"])
    if row is None:
        return Fault(source.where, f"type: {body['type']!r} is no kind of this control plane")
    return Item(source, row, row.mesh_of(body.get("mesh") or mesh), body["name"])


# Applying


def _applied(client: Client, items: Sequence[Item]) -> Iterator[Outcome]:
    if len(items) < BULK_MIN:
        for item in items:
            yield _outcome(client, item, _version(client, item), partial(_put, client, item))
        return
    for start in range(0, len(items), BULK_MAX):
        part = items[start : start + BULK_MAX]
        before = [_version(client, item) for item in part]
        results = _bulk(client, part)
        for number, item in enumerate(part):
            send = partial(_sent, results.get(number))
            yield _outcome(client, item, before[number], send)


def _put(client: Client, item: Item) -> Sent:
    warnings = client.put(item.path, item.body)
    return Sent(created=False, warnings=warnings)


def _bulk(client: Client, items: Sequence[Item]) -> Mapping[int, Document | MeshError]:
    """The result of each line, by its place; what was not answered is not in it."""
    try:
        answered = client.bulk(item.body for item in items)
    except MeshError as error:
        return dict.fromkeys(range(len(items)), error)
    return {int(each["line"]) - 1: each for each in answered if "line" in each}


def _sent(result: Document | MeshError | None) -> Sent:
    if isinstance(result, MeshError):
        raise result
    if result is None:
        lines = ["not answered: it may have been written or not; apply it again"]
        raise AnsweredError(0, lines, titled=False)
    if "error" in result:
        raise AnsweredError(int(result["status"]), problem_lines(result["error"]), titled=True)
    warnings = tuple(map(str, result.get("warnings") or ()))
    return Sent(created=result.get("status") == 201, warnings=warnings)


def _outcome(
    client: Client, item: Item, before: str | MeshError | None, send: Callable[[], Sent]
) -> Outcome:
    try:
        if isinstance(before, MeshError):
            raise before
        sent = send()
        what = CREATED
        if before is not None and not sent.created:
            after = _version(client, item)
            what = UNCHANGED if after == before else UPDATED
    except MeshError as error:
        return Outcome(item.title, FAILED, item.source.where, lines_of(error))
    return Outcome(item.title, what, item.source.where, sent.warnings)


def _version(client: Client, item: Item) -> str | MeshError | None:
    """When it was changed last: a write that changes nothing leaves that as it is."""
    try:
        found = client.find(item.path)
    except MeshError as error:
        return error
    return None if found is None else str(found.get("modificationTime"))


# Dry run


def _tried(client: Client, items: Sequence[Item]) -> Iterator[Outcome]:
    meshes = {item.name for item in items if item.row.name == "Mesh"}
    for item in items:
        try:
            what = _try(client, item, meshes)
        except MeshError as error:
            yield Outcome(item.title, FAILED, item.source.where, _fault_lines(error))
        else:
            yield Outcome(item.title, what, item.source.where)


def _fault_lines(error: MeshError) -> Sequence[str]:
    if isinstance(error, ValidationError):
        return [f"* {field}: {reason}" for field, reason in error.violations]
    return lines_of(error)


def _try(client: Client, item: Item, meshes: set[str]) -> str:
    """What applying would do, by this program's own rules for the kind.

    Raises:
        MeshError: It would fail.
    """
    if item.row.read_only:
        raise InputError(f"{item.row.name} is not written on this control plane")
    wanted = _checked(item)
    try:
        found = client.get(item.path)
    except AnsweredError as error:
        mesh_missing = error.absent and error.lines[0].startswith("Failed to retrieve Mesh")
        if not error.absent or (mesh_missing and item.mesh not in meshes):
            raise
        return CREATED
    if wanted is None:
        return UPDATED
    return UNCHANGED if _found(item, found) == wanted else UPDATED


Content = tuple[Mapping[str, str], Mapping[str, Any]]
"""What is kept of a document: labels and spec."""


def _checked(item: Item) -> Content | None:
    """What would be kept of a document; None for a kind that only the control plane knows."""
    from zonemesh.resources.catalogue import KINDS  # noqa: PLC0415 -- with `rest`: 0.2 s
    from zonemesh.rest.document import spec_of  # noqa: PLC0415

    kind = KINDS.get(item.row.name)
    if kind is None:
        return None
    sent = item.body.get("labels")
    if not isinstance(sent, dict | None):
        raise ValidationError([("labels", "must be an object")])
    return _kept(sent, kind.validate(spec_of(kind, item.body), item.name))


def _found(item: Item, document: Document) -> Content:
    from zonemesh.resources.catalogue import KINDS  # noqa: PLC0415
    from zonemesh.rest.document import spec_of  # noqa: PLC0415

    return _kept(document.get("labels"), spec_of(KINDS[item.row.name], document))


def _kept(sent: Mapping[str, str] | None, spec: Mapping[str, Any]) -> Content:
    from zonemesh import labels  # noqa: PLC0415

    # A service's state is the control plane's, whatever a document says.
    return labels.stored(sent or {}), {
        name: value for name, value in spec.items() if name != "state"
    }
