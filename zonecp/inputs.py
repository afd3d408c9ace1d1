"""What the leader of a zone is asked to decide about, besides the writes of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zonemesh.deciding import Delete, Put
from zonemesh.model import START, Change, Cursor, Position
from zonemesh.settings import Settings


@dataclass(frozen=True, slots=True)
class Tick:
    """A heartbeat is due: look at what only time changes."""

    note: Mapping[str, Any]
    canary: bytes | None = None
    """The zone's canary as it is to be from now on; b"": none; None: as it is."""


@dataclass(frozen=True, slots=True)
class FromGlobal:
    """Changes in global's log that are addressed to this zone (grants, settings, verdicts)."""

    cursor: Cursor
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Adopt:
    """A part of what global holds of this zone, taken over before the zone binds or publishes."""

    changes: Sequence[Change]
    last: bool
    """With it the zone is adopted: it may bind and publish."""
    later: bool = False
    """Where it comes from all is known that is here and not marked (`zonecp.unproven`)."""
    beyond: Position = START
    """Marks up to here do not count."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A term begins: what must be there is put if it is not."""

    uid: str
    settings: Settings
    adopted: bool
    cleanup_ms: int | None = None
    """Log time after which a Dataplane goes whose agent is gone; None: it stays."""
    stale: bool = False
    """What is in the log is older than what was published: adopt before anything else."""
    foreign: bool = False
    """Or is another one's."""
    end: Position = START
    """Where the log ended before this term."""


@dataclass(frozen=True, slots=True)
class Proven:
    """The log holds all that was published of it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Dataplanes (packed keys) whose agents came or went."""

    agents: Mapping[str, tuple[str, str] | None]
    """(instance, version) of the agent that is there now; None: it has gone."""


Input = Put | Delete | Tick | FromGlobal | Adopt | Begin | Proven | Heard
