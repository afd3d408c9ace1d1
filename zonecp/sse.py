"""Server-Sent Events as octets: an event, and one whose data is spread over many lines.

WHATWG HTML 9.2.6; why lines: docs/decisions/0009.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from zonecp.revision import Revision

CHUNK_RECORDS = 256
"""Records on one line of a snapshot: a client can parse line by line without stalling."""

_encode = msgspec.json.encode


def event(name: str, revision: Revision, lines: Sequence[bytes]) -> bytes:
    return b"".join(lines_of(name, revision, lines))


def lines_of(name: str, revision: Revision, lines: Sequence[bytes]) -> list[bytes]:
    """A Server-Sent Event as a list of lines, the data spread over several (WHATWG HTML 9.2.6)."""
    head = f"id: {revision}\nevent: {name}\n".encode()
    return [head, *(b"data: " + line + b"\n" for line in lines), b"\n"]


def undressed(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The data of an event's lines."""
    for line in lines[1:-1]:
        yield line[len(b"data: ") :]


async def chunks(
    items: Iterable[Any], render: Callable[[Sequence[Any]], list[Any]]
) -> AsyncIterator[bytes]:
    """JSON array elements in lines of bounded length, without the brackets; one turn each."""
    pending: bytes | None = None
    for part in _batches(list(items), CHUNK_RECORDS):
        rendered = render(part)
        if rendered:
            if pending is not None:
                yield pending + b","
            pending = _encode(rendered)[1:-1]
        await asyncio.sleep(0)
    if pending is not None:
        yield pending


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
