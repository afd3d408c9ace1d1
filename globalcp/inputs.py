"""What the leader of global is asked to decide about, besides the writes of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from globalcp.report import Report
from zonemesh.deciding import Delete, Put
from zonemesh.model import Change
from zonemesh.settings import Settings
from zonemesh.wire import Sealed


@dataclass(frozen=True, slots=True)
class Merge:
    """Entries of one zone's up stream, in order, following what was merged before."""

    zone: str
    entries: Sequence[Sealed]
    report: Report


@dataclass(slots=True)
class Progress:
    """How far a full sync came by the decisions about it. To lose it costs only time."""

    steps: Iterator[Change | None] | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """A zone's whole state, from a snapshot of its up stream: merged by difference.

    To be submitted again until all of it is in. If an entry of it is lost, with the term, it is to
    be made anew.
    """

    zone: str
    tables: Mapping[str, Mapping[str, bytes]]
    report: Report
    progress: Progress = field(default_factory=Progress, compare=False)


@dataclass(frozen=True, slots=True)
class Tick:
    """A heartbeat is due. `moved`: zones heard from since the last one."""

    note: Mapping[str, Any]
    moved: Mapping[str, Report] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something shows that global's log lacks what it has held."""

    reason: str


@dataclass(frozen=True, slots=True)
class TakeCopy:
    """A part of the newest copy of global's log that anybody holds, of which nothing is left."""

    changes: Sequence[Change]
    last: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """A term begins: what must be there is put if it is not."""

    settings: Settings
    skip_mesh: bool = False
    skip_generators: bool = False


Input = Put | Delete | Merge | Replace | Tick | Begin | Doubt | TakeCopy
