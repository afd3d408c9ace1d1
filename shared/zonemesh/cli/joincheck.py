"""The command `zonemesh join-check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from zonemesh.cli import output
from zonemesh.cli.client import AnsweredError, Client
from zonemesh.cli.connection import connected
from zonemesh.errors import InputError
from zonemesh.ipam import ipv4_text
from zonemesh.joining import Outcome, Side, compare

SHOWN_MAX = 20
"""Of each list; the number of the others is told. `-o json` has all."""


@click.command("join-check")
@click.option(
    "--global", "global_url", required=True, metavar="URL", help="REST address of a globalcp."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
)
@connected
def join_check(client: Client, global_url: str, form: str) -> None:
    """Tell what would change if a zone that stands alone joined a mesh.

    Asks the zone's control plane (--url) and global's (--global), and changes nothing: which
    blocks of addresses clash, which services and legacy names would get other addresses, and what
    has to be made on global. The exit code is 1 if anything would change or the zone could not
    join.
    """
    mesh = Client(global_url, client.timeout_s)
    try:
        zone, others = _side(client), _side(mesh)
    finally:
        mesh.close()
    outcome = compare(zone, others)
    document = _document(zone, outcome)
    if form == "json":
        click.echo(output.pretty_json(document))
    elif form == "yaml":
        click.echo(output.pretty_yaml(document))
    else:
        for line in lines(zone, outcome):
            click.echo(line)
    if not outcome.harmless:
        sys.exit(1)


def _side(client: Client) -> Side:
    try:
        return Side.of(client.get("/_addresses"))
    except AnsweredError as error:
        if error.status == 404:
            raise InputError(f"{client.url} is no control plane of this version") from error
        raise


def lines(zone: Side, outcome: Outcome) -> Iterator[str]:
    """The outcome for people."""
    if outcome.refused is not None:
        yield f"Zone {zone.zone} cannot join: {outcome.refused}."
        yield ""
    clashing = len({each.block for each in outcome.lost})
    yield (
        f"Blocks of zone {zone.zone}: {len(outcome.kept)} kept"
        f"{_draining(outcome)}, {clashing} lost."
    )
    for lost in outcome.lost[:SHOWN_MAX]:
        yield f"  {lost.block.pool} {lost.block.text}: {lost.why}"
    yield from _rest(len(outcome.lost))
    yield f"Services that get another address: {len(outcome.vips)}."
    for vip in outcome.vips[:SHOWN_MAX]:
        yield f"  {vip.pool} {vip.mesh}/{vip.name}, now {ipv4_text(vip.address)}"
    yield from _rest(len(outcome.vips))
    yield f"Legacy names that get another address: {len(outcome.names)}."
    for (_, _, name, address), why in outcome.names[:SHOWN_MAX]:
        yield f"  {name}, now {ipv4_text(address)}: {why}"
    yield from _rest(len(outcome.names))
    if outcome.left_out:
        yield f"To be made on global, or they are gone from the zone: {len(outcome.left_out)}."
        for kind, mesh, name in outcome.left_out[:SHOWN_MAX]:
            yield f"  {kind} {mesh}/{name}" if mesh else f"  {kind} {name}"
        yield from _rest(len(outcome.left_out))


def _draining(outcome: Outcome) -> str:
    count = len(outcome.draining)
    return f" ({count} in ranges that the mesh gives nothing new out of)" if count else ""


def _rest(count: int) -> Iterator[str]:
    if count > SHOWN_MAX:
        yield f"  and {count - SHOWN_MAX} more"


def _document(zone: Side, outcome: Outcome) -> dict[str, object]:
    return {
        "zone": zone.zone,
        "refused": outcome.refused,
        "kept": [[block.pool, block.text] for block in outcome.kept],
        "draining": [[block.pool, block.text] for block in outcome.draining],
        "lost": [[each.block.pool, each.block.text, each.why] for each in outcome.lost],
        "vips": [[vip.pool, vip.mesh, vip.name, ipv4_text(vip.address)] for vip in outcome.vips],
        "names": [
            [each.name.mesh, each.name.name, ipv4_text(each.name.address), each.why]
            for each in outcome.names
        ],
        "leftOut": [list(each) for each in outcome.left_out],
    }
