"""What the demo knows while it runs: states and results, for screens and the JSON line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from statistics import median
from typing import Any

from zonemesh.cli.demo.mesh import Mesh, name_in
from zonemesh.cli.demo.watch import Watch
from zonemesh.errors import MeshError

LOOK_S = 0.02


class StepFailedError(MeshError):
    """A step did not come out as promised; the message says what was found instead."""

    code = "step_failed"


class StepLeftOutError(MeshError):
    """This machine lacks what a step needs; the message says what. The demo goes on."""

    code = "step_left_out"


class Mark(Enum):
    TO_COME = "to come"
    RUNNING = "running"
    OK = "ok"
    LEFT_OUT = "left out"
    FAILED = "FAILED"

    @property
    def over(self) -> bool:
        """There was nothing wrong with it."""
        return self in (Mark.OK, Mark.LEFT_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    key: str
    """Its name among the checks of the JSON line."""
    title: str
    """What is done, in one line."""
    run: Callable[[Story], Awaitable[str]]
    """Does and checks it; answers what was found, in one line."""
    about: tuple[str, ...] = ()
    """Processes whose logs explain a failure."""
    pause_s: float = 0.7
    """Before it, where a person watches."""


@dataclass(slots=True)
class Shown:
    """A step as the screens see it."""

    step: Step
    mark: Mark = Mark.TO_COME
    found: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Loading:
    """Progress of `--services N`."""

    total: int
    registered: int = 0
    resolvable: int = 0


@dataclass(slots=True)
class Row:
    """A service and what it is called."""

    service: str
    ips: tuple[str, ...] = ()
    note: str = ""
    name: str = ""
    """Everywhere; without it west has one, and all others another."""

    def name_in(self, zone: str) -> str:
        return self.name or name_in(zone, self.service)


@dataclass(slots=True)
class Story:
    mesh: Mesh
    watch: Watch
    steps: list[Shown]
    services: int = 0
    """How many more to load."""
    started_s: float = field(default_factory=time.monotonic)
    rows: dict[str, Row] = field(default_factory=dict)
    samples_ms: list[float] = field(default_factory=list)
    """PUT in west → DNS answer in east."""
    loading: Loading | None = None
    measuring: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while milliseconds are counted: nothing is drawn meanwhile."""
    leader: str = ""
    killed: str = ""
    killed_at_s: float = 0.0
    vips: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """By control plane, as they were before the leader was killed."""
    why_no_web: str | None = None
    """What this machine lacks for web: its agent, instances and step are left out."""
    web_url: str = ""
    """Its VIP's, once it has been asked."""
    figures: dict[str, Any] = field(default_factory=dict)
    """For the JSON line."""

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s

    def address(self, service: str) -> str:
        return self.rows[service].ips[0]

    def propagation(self) -> dict[str, Any]:
        found = self.samples_ms
        if not found:
            return {"n": 0, "p50": None, "max": None}
        return {"n": len(found), "p50": round(median(found), 1), "max": round(max(found), 1)}


Condition = Callable[[], Awaitable[bool]]


async def until(condition: Condition, timeout_s: float, failure: str) -> float:
    """Look until it is so; answers after how many seconds.

    Raises:
        StepFailedError: It is not so in time.
    """
    started_s = time.monotonic()
    while not await condition():
        if time.monotonic() - started_s > timeout_s:
            raise StepFailedError(f"{failure} within {timeout_s:g} s")
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - started_s


def require(*, that: bool, failure: str) -> None:
    if not that:
        raise StepFailedError(failure)
