"""`POST /_bulk`: many resources in one request, as lines of JSON, answered line by line.

The body is unbounded and never held: lines are parsed as they arrive, written in batches, and
answered in their order with `{"line", "type", "mesh", "name", "status"}` and `error` or `position`
(and `warnings`, where there are some). A line that is refused does not affect the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiohttp import web

from zonemesh.deciding import Written
from zonemesh.errors import MeshError, TooLargeError, UnavailableError, ValidationError, Violation
from zonemesh.resources.kind import Scope
from zonemesh.rest import answer, document, proxy, writing
from zonemesh.rest.api import API, BODY_BYTES_MAX, Api
from zonemesh.rest.errors import COULD_NOT_PROCESS, problem

log = structlog.get_logger(__name__)

BATCH_MAX = 500
"""Documents per call of the backend: about 150 KB of log entry."""

BATCHES_AHEAD = 2
"""Prepared batches that wait for the one being written; then the body is not read on."""

FAILURES_MAX = 3
"""Batches in a row that nobody could write before the rest of the lines is refused unseen."""

NDJSON_TYPE = "application/x-ndjson"


class Line(NamedTuple):
    """One line, read: a write if it may be made, an error if it may not."""

    number: int
    about: dict[str, Any]
    """What identifies the resource in the answer."""
    prepared: writing.Prepared | MeshError


Queue = asyncio.Queue[list[Line] | None]
"""Of batches, lines in order."""


async def post_bulk(request: web.Request) -> web.StreamResponse:
    """Stream lines in and results out."""
    api = request.app[API]
    if (url := api.backend.leader_url()) is not None:
        return await proxy.forward_stream(request, url)
    response = web.StreamResponse(headers={"Content-Type": NDJSON_TYPE})
    proxy.lift_buffer(request)
    await response.prepare(request)
    queue: Queue = asyncio.Queue(BATCHES_AHEAD)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_write_all(api, queue, response), name="bulk-writer")
            await _read_all(api, request, queue)
    except* ConnectionError:
        log.info("bulk_cut")  # the client is gone; the lines that it sent before are written
    await response.write_eof()
    return response


async def _read_all(api: Api, request: web.Request, queue: Queue) -> None:
    """Parse and check lines as they come; what has come is not kept waiting for a full batch."""
    lines = Lines()
    reader = Reader(api)
    async for chunk in request.content.iter_any():
        await _prepare(reader, lines.feed(chunk), queue)
    await _prepare(reader, lines.end(), queue)
    await queue.put(None)


async def _prepare(reader: Reader, lines: Sequence[tuple[int, bytes | None]], queue: Queue) -> None:
    for start in range(0, len(lines), BATCH_MAX):
        batch = [
            Line(number, *reader.read(line))
            for number, line in lines[start : start + BATCH_MAX]
            if line is None or line.strip()
        ]
        await queue.put(batch)


async def _write_all(api: Api, queue: Queue, response: web.StreamResponse) -> None:
    failures = 0
    while (batch := await queue.get()) is not None:
        puts = [line.prepared.put for line in batch if isinstance(line.prepared, writing.Prepared)]
        outcomes: Sequence[Written | MeshError] = ()
        if puts and failures < FAILURES_MAX:
            try:
                outcomes = await api.backend.write(puts)
                failures = 0
            except UnavailableError as error:
                failures += 1
                outcomes = [error] * len(puts)
        elif puts:
            outcomes = [UnavailableError("not tried: the lines before could not be written")] * len(
                puts
            )
        await response.write(_results(batch, outcomes))


def _results(batch: Sequence[Line], outcomes: Sequence[Written | MeshError]) -> bytes:
    written = iter(outcomes)
    results: list[bytes] = []
    for number, about, prepared in batch:
        if isinstance(prepared, writing.Prepared):
            result = _result(next(written), prepared.warnings)
        else:
            result = _result(prepared)
        results.append(answer.encode({"line": number, **about, **result}))
    results.append(b"")
    return b"\n".join(results)


def _result(outcome: Written | MeshError, warnings: Sequence[str] = ()) -> dict[str, Any]:
    if isinstance(outcome, MeshError):
        error = problem(outcome, COULD_NOT_PROCESS)
        return {"status": error["status"], "error": error}
    result = {"status": 201 if outcome.created else 200, "position": str(outcome.position)}
    return {**result, "warnings": warnings} if warnings else result


class Lines:
    """Splits a stream into numbered lines; a line that is too long is None, not memory."""

    def __init__(self, line_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._max = line_bytes_max
        self._parts: list[bytes] = []
        self._length = 0
        self._count = 0

    def feed(self, chunk: bytes) -> list[tuple[int, bytes | None]]:
        """The lines that this chunk completes."""
        first, *others = chunk.split(b"\n")
        self._extend(first)
        lines = []
        for part in others:
            lines.append(self._take())
            self._extend(part)
        return lines

    def end(self) -> list[tuple[int, bytes | None]]:
        """A last line without a newline, if there is one."""
        return [self._take()] if self._length else []

    def _extend(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= self._max:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _take(self) -> tuple[int, bytes | None]:
        line = b"".join(self._parts) if self._length <= self._max else None
        self._parts.clear()
        self._length = 0
        self._count += 1
        return self._count, line


class Reader:
    """Turns lines into writes; remembers the meshes that this very request creates."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._meshes: set[str] = set()

    def read(self, line: bytes | None) -> tuple[dict[str, Any], writing.Prepared | MeshError]:
        """What identifies the resource, and the write or why there is none."""
        about: dict[str, Any] = {"type": None, "mesh": None, "name": None}
        try:
            if line is None:
                raise TooLargeError(f"a line is longer than {BODY_BYTES_MAX} bytes")
            body = document.from_json(line)
            about = {field: body.get(field) for field in about}
            return about, self._prepared(body)
        except MeshError as error:
            return about, error

    def _prepared(self, body: Mapping[str, Any]) -> writing.Prepared:
        kind = self._api.kinds.get(_text(body, "type"))
        if kind is None:
            raise ValidationError([Violation("type", f"{body.get('type')!r} is no kind")])
        writing.require_writable(self._api, kind)
        mesh = _text(body, "mesh") if kind.scope is Scope.MESH else ""
        name = _text(body, "name")
        target = writing.Target(kind, mesh, name)
        prepared = writing.prepare(self._api, target, body, self._meshes)
        if kind.name == "Mesh":
            self._meshes.add(name)
        return prepared


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ValidationError([Violation(name, "must be a string that is not empty")])
    return value
