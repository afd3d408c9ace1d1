"""Many services that nothing happens to, so that healing has something to carry."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

from tests.chaos.stage import Stage
from tests.e2e.mesh import HOST, dataplane, eventually

NAMES_EACH = 2
"""Of a service elsewhere: its zone's, and its legacy one."""
_LINES = 1_000
_LOAD_S = 300.0


def preload(stage: Stage, count: int, *, start: int = 0, prefix: str = "loaded") -> None:
    """Register services in west through the bulk endpoint; back once east's agent has them."""
    before = names(stage)
    connection = http.client.HTTPConnection(HOST, stage.ports["west"], timeout=_LOAD_S)
    try:
        connection.request(
            "POST", "/_bulk", body=_lines(prefix, start, count), encode_chunked=True,
            headers={"Transfer-Encoding": "chunked", "Content-Type": "application/x-ndjson"},
        )  # fmt: skip
        answers = connection.getresponse().read().splitlines()
    finally:
        connection.close()
    taken = sum(b'"status":201' in answer for answer in answers)
    assert taken == count, f"{taken} of {count} services were registered: {answers[:1]}"
    eventually(lambda: names(stage) >= before + NAMES_EACH * count, _LOAD_S, stage, "east")


def names(stage: Stage) -> float:
    return stage.metric("east-agent", "zonedp_dns_names").get("", 0.0)


def _lines(prefix: str, start: int, count: int) -> Iterator[bytes]:
    for first in range(start, start + count, _LINES):
        yield b"".join(
            json.dumps(dataplane(f"{prefix}-{number}", _address(number))).encode() + b"\n"
            for number in range(first, min(first + _LINES, start + count))
        )


def _address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
