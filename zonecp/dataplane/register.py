"""Registers the workload's Dataplane with the zone, again where the zone has forgotten, and takes
it back on a graceful stop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import structlog

from zonecp.dataplane import probe as probe_rules
from zonecp.dataplane.feedstate import FeedState
from zonemesh.errors import ConfigError, UnavailableError

log = structlog.get_logger(__name__)

REQUEST_S: Final = 10.0
DEREGISTER_S: Final = 3.0
SETTLE_S: Final = 3.0
"""At most, until the inbounds' first verdicts."""

LOOK_S: Final = 1.0
"""Between two looks whether the feed was opened anew."""

BODY_BYTES_MAX: Final = 64 << 10

_AGAIN: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Not the document's fault, among what is the client's."""


class Registration:
    """Keeps one Dataplane known to the zone; a component for `supervise`."""

    def __init__(
        self,
        zones: tuple[str, ...],
        document: Mapping[str, Any],
        state: FeedState,
        *,
        headers: Callable[[], dict[str, str]] = dict,
        settled: asyncio.Event | None = None,
    ) -> None:
        """Args:
        zones: Base URLs of the zone's REST, used in turn.
        document: The Dataplane, as configured.
        state: Tells when the zone may have forgotten.
        headers: More of them, for each request.
        settled: Waited for, but not long, before the first registration: the inbounds' verdicts.
        """
        self.registered = False
        self._unanswered = False
        """A zone was asked to take it, and may have."""
        self.registrations = 0
        self._zones = zones
        self._zone = 0
        self._document = document
        self._path = f"/meshes/{document['mesh']}/dataplanes/{document['name']}"
        self._state = state
        self._headers = headers
        self._settled = settled
        self._accepted_once = False
        self._ready: Mapping[int, bool] = {
            probe.inbound: False for probe in probe_rules.probes(document)
        }
        self._draining = False
        self._changed = asyncio.Event()
        self._told_drained = asyncio.Event()

    def status(self) -> dict[str, Any]:
        return {
            "name": self._document["name"],
            "registered": self.registered,
            "zone": self._zones[self._zone],
            "draining": self._draining,
            "registrations": self.registrations,
        }

    def set_ready(self, ready: Mapping[int, bool]) -> None:
        """Inbounds that are probed, by index; the zone is told at once."""
        self._ready = {**self._ready, **ready}
        self._changed.set()

    async def drain(self, wait_s: float) -> None:
        """Have new connections go elsewhere, and wait for those that are there.

        Returns after `wait_s`; at once where there is nothing to drain, and soon where the zone
        cannot be told.
        """
        if wait_s <= 0 or not self.registered or probe_rules.drained(self._document) is None:
            return
        self._draining = True
        self._changed.set()
        try:
            async with asyncio.timeout(DEREGISTER_S):
                await self._told_drained.wait()
        except TimeoutError:
            log.warning("dataplane_not_drained", zone_url=self._zones[self._zone])
            return
        log.info("dataplane_draining", wait_s=wait_s)
        await asyncio.sleep(wait_s)

    async def run(self) -> None:
        """Register, then whenever something may have changed; deregister when cancelled.

        That is: an inbound's state, the zone's log, or its process (the feed was opened anew).

        Raises:
            UnavailableError: No zone took it; to be called again.
            ConfigError: The zone refused the document the first time. Later refusals are retried:
                by then names are served, which must go on.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                await self._settle()
                while True:
                    self._changed.clear()
                    self._state.reincarnated.clear()
                    streams = self._state.ended.total()
                    await self._register(session)
                    await self._wait(streams)
            except asyncio.CancelledError:
                await self._deregister(session)
                raise

    async def _settle(self) -> None:
        if self._settled is None or self._accepted_once:
            return
        # Else each restart of an agent would show a healthy workload as one that is not ready.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()

    async def _wait(self, streams: int) -> None:
        """Until the zone must be told again."""
        news = [
            asyncio.create_task(event.wait()) for event in (self._changed, self._state.reincarnated)
        ]
        try:
            while True:
                done, _ = await asyncio.wait(
                    news, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                if self._state.reincarnated.is_set():
                    self.registered = False
                if done or (self._state.connected and self._state.ended.total() != streams):
                    return
        finally:
            for task in news:
                task.cancel()

    def _wanted(self) -> Mapping[str, Any]:
        if self._draining:
            return probe_rules.drained(self._document) or self._document
        return probe_rules.with_states(self._document, self._ready)

    async def _register(self, session: aiohttp.ClientSession) -> None:
        zone, draining = self._zones[self._zone], self._draining
        request = session.put(zone + self._path, json=self._wanted(), headers=self._headers())
        before, self._unanswered = self._unanswered, True
        try:
            async with request as response:
                body = await response.content.read(BODY_BYTES_MAX)
        except aiohttp.ClientConnectorError as error:
            self._unanswered = before
            self._next_zone()
            raise UnavailableError(f"{zone}: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._next_zone()
            raise UnavailableError(f"{zone}: {str(error) or 'no answer in time'}") from error
        self._unanswered = False
        if response.status >= 400:
            self._refused(zone, response.status, body)
        self.registered = self._accepted_once = True
        self.registrations += 1
        if draining:
            self._told_drained.set()
        log.info("dataplane_registered", zone_url=zone, name=self._document["name"])

    def _refused(self, zone: str, status: int, body: bytes) -> None:
        faults = explain(status, body)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            faults.append("the token is dataplaneRuntime.tokenPath's (--dataplane-token-file)")
        if 400 <= status < 500 and status not in _AGAIN and not self._accepted_once:
            raise ConfigError([f"{zone} refused the Dataplane: {line}" for line in faults])
        if status == HTTPStatus.CONFLICT:
            self.registered = False
        self._next_zone()
        raise UnavailableError(f"{zone}: {'; '.join(faults)}")

    def _next_zone(self) -> None:
        self._zone = (self._zone + 1) % len(self._zones)

    async def _deregister(self, session: aiohttp.ClientSession) -> None:
        """Tell one zone that answers; if none does, they find out by the feed that has ended."""
        if not (self.registered or self._unanswered):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DEREGISTER_S):
                for _ in self._zones:
                    url = self._zones[self._zone] + self._path
                    with suppress(aiohttp.ClientError, OSError):
                        async with session.delete(url, headers=self._headers()) as response:
                            if response.status < 500:
                                log.info("dataplane_deregistered", status=response.status)
                                return
                    self._next_zone()
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
