"""Asks the zone for the Corefile template that is set on the control plane."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from zonecp.dataplane.coredns.corefile import Corefile, CorefileError
from zonecp.dataplane.coredns.process import BUILT_IN_SOURCE, CoreDns, Source
from zonecp.dataplane.feedstate import FeedState
from zonemesh.errors import UnavailableError

log = structlog.get_logger(__name__)

REQUEST_S: Final = 5.0
LOOK_S: Final = 1.0
"""Between two looks whether the feed was opened anew: a zone that starts may have another one."""

BODY_BYTES_MAX: Final = 1 << 20

_UNKNOWN: Final = "\0"
"""No template: nothing has been heard of the zone."""


class Bootstrap:
    """A component for `supervise`: fetches after each begin of a feed."""

    def __init__(
        self,
        zones: tuple[str, ...],
        *,
        mesh: str,
        dataplane: str,
        coredns: CoreDns,
        state: FeedState,
        headers: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._zones = zones
        self._zone = 0
        self._path = f"/meshes/{mesh}/_bootstrap"
        self._query = {"dataplane": dataplane}
        self._coredns = coredns
        self._state = state
        self._headers = headers
        self._text: str | None = _UNKNOWN

    async def run(self) -> None:
        """Raises UnavailableError: No zone answered; to be called again."""
        asked_after = None
        while True:
            ended = self._state.ended.total()
            if ended != asked_after:
                await self._fetch()
                asked_after = ended
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1.5))

    async def _fetch(self) -> None:
        zone = self._zones[self._zone]
        try:
            document = await self._get(zone)
        except UnavailableError:
            self._zone = (self._zone + 1) % len(self._zones)
            raise
        text = document.get("corefileTemplate") or None
        if text is not None and not isinstance(text, str):
            raise UnavailableError(f"{zone}: corefileTemplate is not text")
        if text != self._text:
            self._text = text
            self._take(text, zone)

    def _take(self, text: str | None, zone: str) -> None:
        if (source := _source(text, zone)) is None:
            return
        try:
            self._coredns.want(source, keep=text)
        except OSError as error:
            log.warning("zone_template_not_kept", error=str(error))

    async def _get(self, zone: str) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers()) as session,
                session.get(zone + self._path, params=self._query) as response,
            ):
                body = await response.content.read(BODY_BYTES_MAX)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{zone}: {str(error) or 'no answer in time'}") from error
        if response.status == 404:
            return {}  # a zone of an earlier version has no such route
        if response.status != 200:
            raise UnavailableError(f"{zone}{self._path}: status {response.status}")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise UnavailableError(f"{zone}{self._path}: {error}") from error


def _source(text: str | None, zone: str) -> Source | None:
    """None for a template that cannot be read: what runs goes on."""
    if text is None:
        return BUILT_IN_SOURCE
    try:
        return Source(Corefile.parse(text), f"of the zone {zone}")
    except CorefileError as error:
        log.warning("zone_template_refused", zone_url=zone, error=str(error))
        return None
