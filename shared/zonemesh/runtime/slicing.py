"""Long work in slices, so that others get a turn of the event loop in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

SLICE = 2_000
"""Keys looked at before other requests get a turn: some 5 ms."""
RECORDS_SLICE = 500
"""Records counted before the same: each must be decoded, at some 10 µs."""

T = TypeVar("T")


async def slices(items: Sequence[T], size: int = SLICE) -> AsyncGenerator[Sequence[T]]:
    """Parts of a sequence, with a turn for others after each that is full."""
    for start in range(0, len(items), size):
        part = items[start : start + size]
        yield part
        if len(part) == size:
            await asyncio.sleep(0)
