"""What the control planes of one zone let each other know besides their log: who follows them.

An agent follows one replica, and only the leader writes the log. So each replica says every second
which Dataplanes' agents are connected to it, in a key of the log's store that goes with its writer,
and the leader reads them all. Not over REST: what the leader hears it can only write while the
store answers, so nothing is gained by a second way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import structlog

from zonecp.liveness import Liveness, Subscriber
from zonemesh.errors import UnavailableError
from zonemesh.log.port import Store
from zonemesh.model import Cursor, Position
from zonemesh.registry import Registry
from zonemesh.wire import FORMAT

PRESENT_EVERY_S = 1.0
"""A replica that has said nothing for 5 s is gone (`Store.present`)."""

log = structlog.get_logger()


class Replicas:
    """One replica's side of it; a component for `supervise`."""

    def __init__(
        self,
        store: Store,
        log_name: str,
        registry: Registry,
        liveness: Liveness,
        *,
        writer: str,
        url: str,
        leads: Callable[[], bool],
    ) -> None:
        """`store` holds the log called `log_name`, which `registry` is the state of."""
        self._store = store
        self._log_name = log_name
        self._registry = registry
        self._liveness = liveness
        self._writer = writer
        self._url = url
        self._leads = leads
        self._others: Mapping[str, Mapping[str, Any]] = {}

    def describe(self) -> list[dict[str, Any]]:
        """The other replicas as the leader last heard of them; for `GET /_state`."""
        return [
            {"url": about.get("url"), "applied": _applied(about), "agents": len(_agents(about))}
            for _, about in sorted(self._others.items())
        ]

    async def run(self) -> None:
        """Say and hear, for ever. Without the store, what was heard last stays."""
        while True:
            try:
                await self._say()
                await self._hear()
            except UnavailableError as error:
                log.debug("replicas_unknown", log=self._log_name, error=str(error))
            await asyncio.sleep(PRESENT_EVERY_S)

    async def _say(self) -> None:
        registry = self._registry
        about = {
            "url": self._url,
            "applied": [registry.incarnation, list(registry.position), registry.h],
            "formats": [FORMAT],
            "agents": [
                (key, each.agent, each.version, each.named)
                for key, each in self._liveness.here.items()
            ],
        }
        await self._store.present(self._log_name, self._writer, msgpack.packb(about))

    async def _hear(self) -> None:
        if not self._leads():
            self._others = {}
            self._liveness.heard_elsewhere({})
            return
        said = await self._store.replicas(self._log_name)
        self._others = {
            writer: about
            for writer, payload in said.items()
            if writer != self._writer and (about := _unpacked(payload)) is not None
        }
        found: dict[str, Subscriber] = {}
        for about in self._others.values():
            found.update(_agents(about))
        self._liveness.heard_elsewhere(found)


def _unpacked(payload: bytes) -> Mapping[str, Any] | None:
    """None: not what a replica says; a leader must not stumble over it."""
    try:
        about = msgpack.unpackb(payload)
        _agents(about), _applied(about)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        log.warning("replica_unreadable", error=repr(error))
        return None
    return about if isinstance(about, dict) else None


def _agents(about: Mapping[str, Any]) -> dict[str, Subscriber]:
    return {
        str(key): Subscriber(str(agent), str(version), named=bool(named))
        for key, agent, version, named in about.get("agents", ())
    }


def _applied(about: Mapping[str, Any]) -> str:
    incarnation, (term, seq), _ = about["applied"]
    return str(Cursor(incarnation, Position(term, seq)))
