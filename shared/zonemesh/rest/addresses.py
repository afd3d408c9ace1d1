"""`GET /_addresses`: the blocks and addresses that a control plane holds, for `joining`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from zonemesh import joining
from zonemesh.registry import Registry
from zonemesh.rest import answer
from zonemesh.rest.pages import Page, add_page
from zonemesh.rest.schemas import NUMBER, STRING, array_of, object_of
from zonemesh.settings import Settings

SLICE = 2_000
"""Rows made before other requests get a turn: some 5 ms."""

_CIDRS = {"type": "object", "additionalProperties": array_of(STRING)}
_ROWS = array_of(array_of({"oneOf": [STRING, NUMBER]}))
_ANSWER = object_of(
    {
        "zone": STRING,
        "uid": STRING,
        "zones": {"type": "object", "additionalProperties": STRING},
        "pools": _CIDRS,
        "former": _CIDRS,
        **dict.fromkeys(("blocks", "vips", "names", "made_here"), _ROWS),
    }
)


def add_addresses(
    app: web.Application,
    registry: Registry,
    *,
    zone: str,
    uid: Callable[[], str],
    zones: Callable[[], Mapping[str, str]],
    settings: Callable[[], Settings],
) -> None:
    """Add the route; `zone` and `uid` are "" and `zones` (UIDs by name) has some on global."""

    async def addresses(_: web.Request) -> web.Response:
        now = settings()
        head = {"zone": zone, "uid": uid(), "zones": zones(), "pools": now.pools}
        pieces = [answer.encode({**head, "former": now.former})[:-1]]
        rows: Mapping[str, Iterable[Any]] = {
            "blocks": joining.block_rows(registry),
            "vips": joining.vip_rows(registry, zone),
            "names": joining.name_rows(registry),
            # What is made on global belongs there.
            "made_here": joining.made_here_rows(registry) if zone else (),
        }
        for name, each in rows.items():
            pieces.append(b',"%s":[' % name.encode())
            pieces.append(b",".join([piece async for piece in _pieces(each)]))
            pieces.append(b"]")
        return web.Response(body=b"".join([*pieces, b"}\n"]), content_type=answer.JSON_TYPE)

    page = Page(
        path="/_addresses",
        handler=addresses,
        summary="The blocks and addresses that are held here",
        schema=_ANSWER,
    )
    add_page(app, page)


async def _pieces(rows: Iterable[Any]) -> Any:
    part: list[Any] = []
    for row in rows:
        part.append(row)
        if len(part) == SLICE:
            yield answer.encode(part)[1:-1]
            part = []
            await asyncio.sleep(0)
    if part:
        yield answer.encode(part)[1:-1]
