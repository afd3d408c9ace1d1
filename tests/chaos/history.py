"""What a run of chaos has seen, as plain values: the checker's only input. Times are monotonic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Cursor = tuple[str, tuple[int, int]]
"""A log's incarnation and position."""

NXDOMAIN = 3
NOERROR = 0


class Answer(NamedTuple):
    """A DNS question that was asked of an agent, and what came."""

    asked_s: float
    got_s: float
    agent: str
    service: str
    """`<zone>/<name>`"""
    rcode: int | None
    """None: nothing came."""
    address: str | None


class Write(NamedTuple):
    """A registration or removal through REST."""

    start_s: float
    end_s: float
    service: str
    put: bool
    done: bool
    """Acknowledged; otherwise it may or may not have happened."""


class Seen(NamedTuple):
    """Services' addresses as a control plane listed them."""

    at_s: float
    plane: str
    addresses: Mapping[str, str]


class Logged(NamedTuple):
    """An entry as it was read raw from Redis."""

    at_s: float
    log: str
    cursor: Cursor
    h: bytes
    bound: Mapping[str, str]
    """Addresses that it binds, by `<zone>/<name>` of a service, or by a legacy name's key."""
    leased: Mapping[str, tuple[str, int, int]]
    """Blocks that it leases, by record: owner, first address, size."""
    parts: Mapping[str, str]
    """Hashes of the state after it, by part; "" is all of it. Empty where that is not known."""


class State(NamedTuple):
    """What a reader of global's log says that it holds."""

    at_s: float
    reader: str
    cursor: Cursor
    parts: Mapping[str, str]
    resyncs: int


class Lag(NamedTuple):
    """How old what an agent has of a zone is, by what is exported: at some moment between these."""

    asked_s: float
    got_s: float
    agent: str
    origin: str
    lag_s: float
    """Its map's age."""


class Down(NamedTuple):
    """A process that chaos itself had killed, stopped or not yet let become ready."""

    name: str
    from_s: float
    to_s: float


class Fed(NamedTuple):
    """An agent said that its zone feeds it."""

    at_s: float
    agent: str


class Final(NamedTuple):
    """What an agent answered after faults and load had ended and time to settle had passed."""

    answer: Answer


@dataclass
class History:
    """Lists are appended to by threads, and read when they have ended (or as far as they are)."""

    answers: list[Answer] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    fed: list[Fed] = field(default_factory=list)
    downs: list[Down] = field(default_factory=list)
    finals: list[Final] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)
    """What was done to the mesh, for whoever reads a violation."""
