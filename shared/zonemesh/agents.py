"""Whether a Dataplane has an agent: notes of a zone's log, which travel to global as well.

A Dataplane's agent is its open subscription to the zone's map. One that never had an agent, put by
whoever manages it, has no note, and nothing here ever removes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import msgpack

from zonemesh.errors import WireError
from zonemesh.registry import Registry

AGENT = "dataplane.agent"
"""Kind of these notes; keys are the Dataplanes'."""
_TEXT_MAX = 100


@dataclass(frozen=True, slots=True)
class AgentNote:
    """The newest connection of a Dataplane's agent."""

    since_ms: int
    """Wall time of its begin."""
    until_ms: int | None = None
    """Wall time of its end; None while it lasts."""
    until_log_ms: int = 0
    """Log time of the end: what its age is reckoned in."""
    agent: str = ""
    """Which process of the agent: its instance id."""
    version: str = ""

    @property
    def online(self) -> bool:
        return self.until_ms is None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(
            (self.since_ms, self.until_ms, self.until_log_ms, self.agent, self.version)
        )
        return packed

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Raises WireError: not such a note."""
        try:
            since_ms, until_ms, until_log_ms, agent, version, *_ = msgpack.unpackb(payload)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise WireError(f"malformed note of an agent: {error!r}") from error
        times = (since_ms, 0 if until_ms is None else until_ms, until_log_ms)
        if not all(type(each) is int for each in times):
            raise WireError("malformed note of an agent: times are not integers")
        return cls(
            since_ms, until_ms, until_log_ms, str(agent)[:_TEXT_MAX], str(version)[:_TEXT_MAX]
        )

    @classmethod
    def of(cls, registry: Registry, dataplane: str) -> Self | None:
        """A Dataplane's (packed key); None if it has none, or none that can be read."""
        packed = registry.get(AGENT, dataplane)
        try:
            return None if packed is None else cls.unpack(packed)
        except WireError:
            return None  # another plane's: it costs this one thing


class Agents:
    """An index of the notes: which Dataplanes have an agent, and which have lost theirs."""

    def __init__(self) -> None:
        self.online: set[str] = set()
        self.offline: dict[str, int] = {}
        """Key -> log time of the loss."""

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        del old
        if kind != AGENT:
            return
        self.online.discard(key)
        self.offline.pop(key, None)
        if new is None:
            return
        note = AgentNote.unpack(new)
        if note.online:
            self.online.add(key)
        else:
            self.offline[key] = note.until_log_ms
