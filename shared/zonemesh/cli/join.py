"""What `zonemesh doctor --join` tells: what would change if a zone that stands alone joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zonemesh.cli import output
from zonemesh.cli.client import AnsweredError, Client
from zonemesh.errors import InputError
from zonemesh.ipam import ipv4_text
from zonemesh.joining import Outcome, Side, compare

SHOWN_MAX = 20
"""Of each list; the number of the others is told. `-o json` has all."""


def join(urls: Sequence[str], timeout_s: float, form: str) -> tuple[str, int]:
    """What to print, and the exit code: 1 if anything would change, or the zone could not join.

    Raises:
        InputError: The URLs are not those of a zone and of a global.
        UnavailableError: One of them does not answer.
    """
    sides = [_side(url, timeout_s) for url in urls]
    zones = [side for side in sides if side.zone]
    if len(sides) != 2 or len(zones) != 1:
        raise InputError("--join needs --url twice: of the zone that stands alone, and of a global")
    (zone,) = zones
    (mesh,) = [side for side in sides if side is not zone]
    outcome = compare(zone, mesh)
    if form == "json":
        text = output.pretty_json(_document(zone, outcome))
    else:
        text = "\n".join(_folded(lines(zone, outcome), output.width()))
    return text, 0 if outcome.harmless else 1


def _side(url: str, timeout_s: float) -> Side:
    client = Client(url, timeout_s)
    try:
        return Side.of(client.get("/_addresses"))
    except AnsweredError as error:
        if error.status == 404:
            raise InputError(f"{url} is no control plane of this version") from error
        raise
    finally:
        client.close()


def _folded(told: Iterable[str], width: int | None) -> Iterator[str]:
    for line in told:
        yield from output.wrapped(line, width) if width else [line]


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


def _document(zone: Side, outcome: Outcome) -> dict[str, Any]:
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
