"""The command `zonemesh explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from zonemesh.cli import output
from zonemesh.cli.client import AnsweredError, Client
from zonemesh.cli.connection import connected, mesh_option
from zonemesh.cli.options import form_option
from zonemesh.errors import InputError
from zonemesh.legacypool import LEGACY

Answer = Mapping[str, Any]


@click.command()
@click.argument("name")
@mesh_option
@click.option("--dataplane", metavar="NAME", help="As seen by this data plane of the zone.")
@form_option("text", "json", "yaml")
@connected
def explain(client: Client, name: str, mesh: str, dataplane: str | None, form: str) -> None:
    """Tell why a NAME resolves from a zone, or why it does not.

    Asks a zone's control plane, since zones differ: which service holds the name and by which
    generator, who else wanted it and why they lost, where generators failed, which services are
    called nearly so. The exit code is 1 if the name does not resolve.
    """
    query = [("name", name), *([("dataplane", dataplane)] if dataplane else [])]
    try:
        answer = client.get(f"/meshes/{quote(mesh, safe='')}/_explain", query)
    except AnsweredError as error:
        if error.status == 404:
            raise InputError(
                f"{client.url} explains no names: give --url of a zone's control plane"
            ) from error
        raise
    if form == "json":
        click.echo(output.pretty_json(answer))
    elif form == "yaml":
        click.echo(output.pretty_yaml(answer))
    else:
        for line in lines(answer):
            click.echo("\n".join(output.wrapped(line, output.width() or output.PROSE)))
    if not answer.get("resolves"):
        sys.exit(1)


def lines(answer: Answer) -> Iterator[str]:
    """The answer for people; lines may be long."""
    where = f"in zone {answer['zone']}, mesh {answer['mesh']}"
    verb = "resolves" if answer["resolves"] else "does not resolve"
    yield f"{answer['name']} {verb} {where}."
    yield f"  {answer['why']}"
    if answer["vips"]:
        yield f"  {', '.join(answer['vips'])} (TTL {answer['ttl']} s)"
    yield from _section("Warnings", list(answer["warnings"]))
    yield from _section("Who wants it", list(_candidates(answer)))
    yield from _section("Generators that failed", list(map(_failure, answer["failures"])))
    yield from _section("Services called nearly so", list(map(_near, answer["near"])))
    yield from _section("Data plane", list(_dataplane(answer["dataplane"])))
    yield ""
    yield f"What zone {answer['zone']} knows of others is {answer['lag_s']:.1f} s old."


def _section(title: str, found: Sequence[str]) -> Iterator[str]:
    if found:
        yield ""
        yield f"{title}:"
        for each in found:
            yield from (f"  {line}" for line in each.splitlines())


def _candidates(answer: Answer) -> Iterator[str]:
    for each in answer["candidates"]:
        verdict = "holds it" if each["holds"] else "lost"
        text = f"{_service(each, answer)}: {verdict}"
        if each["generator"]:
            text += f"\n  generator {each['generator']}: {each['template']}"
        if each["why"]:
            text += f"\n  {each['why']}"
        if each["holds"]:
            endpoints = each["endpoints"]
            text += f"\n  endpoints: {endpoints['ready']} ready of {endpoints['total']}"
        yield text


def _service(each: Mapping[str, Any], answer: Answer) -> str:
    zone = each["zone"]
    if each["kind"] == LEGACY:
        return f"{each['service'].split('/')[2]} {each['name']} (legacy, any zone)"
    state = ((answer.get("zones") or {}).get(zone) or {}).get("state")
    place = "global" if not zone else f"zone {zone}" + (f", {state.lower()}" if state else "")
    return f"{each['kind']} {each['name']} ({place})"


def _failure(each: Mapping[str, Any]) -> str:
    place = f"zone {each['zone']}" if each["zone"] else "global"
    return f"{each['generator']} on {each['kind']} {each['name']} ({place}):\n  {each['message']}"


def _near(each: Mapping[str, Any]) -> str:
    names = each["names"] or ["no name here"]
    place = f"zone {each['zone']}" if each["zone"] else "global"
    return "\n  ".join([f"{each['kind']} {each['name']} ({place})", *names])


def _dataplane(found: Mapping[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    known = "" if found["known"] else " is not registered in this zone"
    yield f"{found['name']}{known}"
    yield f"{'trimmed' if found['trimmed'] else 'not trimmed'}: {found['why']}"
