"""Looking whether the records in memory are still those that were put there.

The state hash is kept change by change, so it cannot see that a record was damaged after it was
put: for that every record is hashed again, a slice at a time, and the sums are compared.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from zonemesh.model import zone_of
from zonemesh.registry import SUM_BITS, Registry, record_hash

EVERY_S = 30.0
"""100,000 records take 0.2 s of CPU: less than a hundredth."""
_SLICE_ROWS = 200
"""About 0.4 ms: no longer than a change takes, as a change may be behind it."""
_REST_S = 0.01
"""Between slices, so that a look takes a twentieth of a core and not all of it for as long as it
lasts: processes that started together look together."""


async def scrub(
    registry: Registry, damaged: Callable[[str], None], *, every_s: float = EVERY_S
) -> None:
    """Look again and again; `damaged` is told which part is not what it was."""
    while True:
        await asyncio.sleep(every_s)
        parts = await differing(registry)
        if parts:
            damaged(", ".join(parts))


async def differing(registry: Registry) -> list[str]:
    """The parts of a registry, `<kind>/<zone>`, whose records do not have the hash that they had
    when they were put.
    """
    frozen, expected = registry.freeze(), dict(registry.sums)
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    for number, (kind, key, payload) in enumerate(frozen.rows(), 1):
        found[kind, zone_of(key)] += record_hash(kind, key, payload)
        if number % _SLICE_ROWS == 0:
            await asyncio.sleep(_REST_S)
    return [
        f"{kind}/{zone}"
        for kind, zone in sorted(expected.keys() | found.keys())
        if expected.get((kind, zone), 0) != found[kind, zone] % (1 << SUM_BITS)
    ]
