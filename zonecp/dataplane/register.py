"""Registers the workload's Dataplane with the zone, again where the zone has forgotten, and takes
it back on a graceful stop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

from zonecp.dataplane.config import Config
from zonecp.dataplane.feed import FeedState
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime.config import read_file

log = structlog.get_logger(__name__)

REQUEST_S: Final = 10.0
DEREGISTER_S: Final = 3.0
BODY_BYTES_MAX: Final = 64 << 10

_AGAIN: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Not the document's fault, among what is the client's."""


def configured_dataplane(config: Config) -> dict[str, Any] | None:
    """The document to register, None without one; raises ConfigError as `read_dataplane`."""
    path = config.dataplane_runtime.resource_path
    if path is None:
        return None
    return read_dataplane(path, mesh=config.dataplane.mesh, name=config.dataplane.name)


def read_dataplane(path: Path, *, mesh: str, name: str | None) -> dict[str, Any]:
    """Read a Dataplane document; `mesh` and `name` fill what it leaves out.

    Raises:
        ConfigError: Not readable, not a Dataplane, or of another mesh or name than configured.
    """
    document = dict(read_file(path))
    wanted = {"type": "Dataplane", "mesh": mesh} | ({} if name is None else {"name": name})
    faults = [
        f"{path}: {key}: {document[key]!r} is not {value!r}"
        for key, value in wanted.items()
        if document.get(key, value) != value
    ]
    document = wanted | document
    if not isinstance(document.get("name"), str):
        faults.append(f"{path}: name: must be given here or as dataplane.name (--name)")
    if faults:
        raise ConfigError(faults)
    return document


class Registration:
    """Keeps one Dataplane known to the zone; a component for `supervise`."""

    def __init__(
        self, zones: tuple[str, ...], document: Mapping[str, Any], state: FeedState
    ) -> None:
        self.registered = False
        self._zones = zones
        self._zone = 0
        self._document = document
        self._path = f"/meshes/{document['mesh']}/dataplanes/{document['name']}"
        self._state = state
        self._accepted_once = False

    async def run(self) -> None:
        """Register, then whenever the zone has begun a new log; deregister when cancelled.

        Raises:
            UnavailableError: No zone took it; to be called again.
            ConfigError: The zone refused the document the first time. Later refusals are retried:
                by then names are served, which must go on.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    self._state.reincarnated.clear()
                    await self._register(session)
                    await self._state.reincarnated.wait()
                    self.registered = False
            except asyncio.CancelledError:
                await self._deregister(session)
                raise

    async def _register(self, session: aiohttp.ClientSession) -> None:
        zone = self._zones[self._zone]
        try:
            async with session.put(zone + self._path, json=self._document) as response:
                body = await response.content.read(BODY_BYTES_MAX)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._next_zone()
            raise UnavailableError(f"{zone}: {str(error) or 'no answer in time'}") from error
        if response.status >= 400:
            self._refused(zone, response.status, body)
        self.registered = self._accepted_once = True
        log.info("dataplane_registered", zone_url=zone, name=self._document["name"])

    def _refused(self, zone: str, status: int, body: bytes) -> None:
        faults = explain(status, body)
        if 400 <= status < 500 and status not in _AGAIN and not self._accepted_once:
            raise ConfigError([f"{zone} refused the Dataplane: {line}" for line in faults])
        self._next_zone()
        raise UnavailableError(f"{zone}: {'; '.join(faults)}")

    def _next_zone(self) -> None:
        self._zone = (self._zone + 1) % len(self._zones)

    async def _deregister(self, session: aiohttp.ClientSession) -> None:
        """Tell the zone; if it does not answer, it finds out by the feed that has ended."""
        if not self.registered:
            return
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(DEREGISTER_S):
                async with session.delete(self._zones[self._zone] + self._path) as response:
                    log.info("dataplane_deregistered", status=response.status)
                    return
        log.warning("dataplane_not_deregistered", zone_url=self._zones[self._zone])


def explain(status: int, body: bytes) -> list[str]:
    """Kuma's error body as lines; of another body, its beginning."""
    try:
        document = json.loads(body)
        title, detail = document["title"], document.get("detail", "")
        fields = document.get("invalid_parameters") or []
        lines = [f"{fault['field']}: {fault['reason']}" for fault in fields]
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:200].decode(errors="replace").strip()
        return [f"status {status}: {text}" if text else f"status {status}"]
    summary = f"status {status}: {title}" + (f": {detail}" if detail else "")
    return [summary, *lines]
