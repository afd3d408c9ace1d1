"""One mesh under load, one fault after another, and what the checker says of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.checker import Violation, check
from tests.chaos.faults import FAULTS, Scene
from tests.chaos.history import NOERROR, NXDOMAIN, Answer, Final
from tests.chaos.load import Loads
from tests.chaos.preload import preload
from tests.chaos.recorder import Recorder, log_events
from tests.chaos.sentinels import SENTINEL_FAULTS, SentinelStage
from tests.chaos.stage import Stage
from tests.e2e.mesh import AGENTS, PLANES, ZONES, at_home, elsewhere, eventually

HEAL_S = 30.0
"""After this a mesh counts as not healed, and its successor begins anew."""
_AGREE_S = 45.0
_AROUND_S = 2.0
_LINES = 60
_REPEATED = ("component_failing", "component_recovered")
"""Said again and again while something is away, and telling little of what is lost."""


@dataclass
class Outcome:
    """Of one fault."""

    fault: str
    violations: list[Violation] = field(default_factory=list)
    detected_s: float | None = None
    """From Redis's first answer until somebody noticed what it had lost."""
    healed_s: float | None = None
    """From the end of the fault (or Redis's first answer) until a registration made then was
    answered in the other zone, both ways.
    """
    detects: bool = False
    error: str | None = None

    @property
    def passed(self) -> bool:
        return not self.violations and self.healed_s is not None and self.error is None


class Run:
    """A mesh that is up, loaded and watched. Close it."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        every_s: float = 0.1,
        services: int = 0,
        sentinels: bool = False,
    ) -> None:
        """`sentinels`: for the faults that are done to those (`SENTINEL_FAULTS`)."""
        self.seed = seed
        self._faults = SENTINEL_FAULTS if sentinels else FAULTS
        self.stage = SentinelStage(directory) if sentinels else Stage(directory)
        self.loads = Loads(self.stage, seed, every_s=every_s)
        self.recorder = Recorder(self.stage, self.loads, seed)
        self._probes = 0
        self._reported: set[Violation] = set()
        try:
            self.stage.start()
            self.stage.start(*AGENTS)
            if services:
                preload(self.stage, services)
            self.loads.start()
            self.recorder.start()
            self.settle()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.loads.end()
        self.recorder.end()
        self.stage.close()

    def do(self, name: str) -> Outcome:
        """One fault: done, healed, checked."""
        outcome = Outcome(name)
        scene = Scene(self.stage, Random(f"{self.seed} {name}"), self._quiet)
        begun_s, wall_s = time.monotonic(), time.time()
        self.stage.note(f"--- {name}")
        try:
            self._faults[name](scene)
            since_s = scene.answers_s or time.monotonic()
            outcome.healed_s = self.settle(since_s)
            if scene.lossy:
                assert scene.answers_s is not None
                wall_answers_s = wall_s + scene.answers_s - begun_s
                outcome.detects = True
                outcome.detected_s = self._detected(wall_s, wall_answers_s)
            self._final()
        except AssertionError as error:
            outcome.error = str(error)
        outcome.violations = self.violations()
        return outcome

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        self.loads.pause()
        try:
            yield
        finally:
            self.loads.go_on()

    # Healing

    def settle(self, since_s: float | None = None) -> float:
        """Wait until a service registered from now on in each zone is answered in the other; the
        seconds since then.
        """
        since_s = since_s or time.monotonic()
        probes = {}
        for zone in ZONES:
            self._probes += 1
            probes[zone] = name = f"probe-{self._probes}"
            write = partial(self.loads.zones[zone].write, name, put=True)
            self._eventually(write, f"{zone} takes no registration")
        for zone, name in probes.items():
            asked = next(each for each in ZONES if each != zone)
            resolve = partial(self.stage.resolve, asked, elsewhere(name, zone))
            self._eventually(resolve, f"{name} of {zone} does not reach {asked}")
            self.stage.resolves(zone, at_home(name))
        return time.monotonic() - since_s

    def _eventually(self, condition: Callable[[], object], what: str) -> None:
        try:
            eventually(condition, HEAL_S)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error

    def _detected(self, wall_s: float, wall_answers_s: float) -> float | None:
        """The first word of any process about a loss; before Redis's first answer: 0."""
        found = [
            datetime.fromisoformat(line["timestamp"]).timestamp()
            for line in log_events(self.stage, *PLANES)
            if line.get("event") in DETECTED
        ]
        times = [at_s for at_s in found if at_s >= wall_s]
        return max(0.0, min(times) - wall_answers_s) if times else None

    def _final(self) -> None:
        """With the load at rest, every agent answers what was registered, and nothing else."""
        with self._quiet():
            services = self.loads.services
            deadline_s = time.monotonic() + _AGREE_S
            while True:
                answers = self.recorder.asked_afresh(services)
                if time.monotonic() > deadline_s or self._agree(answers):
                    break
                time.sleep(0.1)
            self.stage.history.finals += [Final(answer) for answer in answers]

    def _agree(self, answers: Sequence[Answer]) -> bool:
        present = {
            f"{zone}/{name}"
            for zone, load in self.loads.zones.items()
            for name, there in load.present.items()
            if there
        }
        return all(
            answer.rcode == (NOERROR if answer.service in present else NXDOMAIN)
            for answer in answers
        )

    # Judging

    def violations(self) -> list[Violation]:
        """Those that were not reported yet."""
        found = [each for each in check(self.stage.history) if each not in self._reported]
        self._reported.update(found)
        return found

    def timeline(self, at_s: float, until_s: float | None = None) -> str:
        """What was done and said around a moment, or from it until another."""
        end_s = at_s if until_s is None else until_s
        lines = [
            (when_s, text)
            for when_s, text in self.stage.history.notes
            if at_s - 3 * _AROUND_S < when_s < end_s + _AROUND_S
        ]
        offset_s = time.time() - time.monotonic()
        for line in log_events(self.stage):
            if "timestamp" not in line or line.get("event") in _REPEATED:
                continue
            when_s = datetime.fromisoformat(line["timestamp"]).timestamp() - offset_s
            if at_s - _AROUND_S < when_s < end_s + _AROUND_S:
                lines.append((when_s, f"{line['process']}: {_short(line)}"))
        lines.sort()
        return "\n".join(f"  {when_s - at_s:+7.2f} s  {text}" for when_s, text in lines[:_LINES])

    def explain(self, outcome: Outcome) -> str:
        """A failure in words: seed, violations, timeline around the first."""
        parts = [
            f"{outcome.fault} (seed {self.seed})",
            f"detected after {_seconds(outcome.detected_s)}",
            f"healed after {_seconds(outcome.healed_s)}",
            f"{len(outcome.violations)} violations",
        ]
        if outcome.error:
            parts.append(f"not healed: {outcome.error}")
            parts.append(self.timeline(time.monotonic()))
        parts += [f"{each.rule}: {each.subject}: {each.what}" for each in outcome.violations[:5]]
        if outcome.violations:
            parts.append(self.timeline(outcome.violations[0].at_s))
        elif not outcome.error:
            since_s = self.stage.history.notes[-1][0]
            parts.append(self.timeline(since_s, since_s + (outcome.healed_s or 0.0)))
        return "\n".join(parts)


DETECTED = ("log_fault_found", "uplink_refused", "leadership_lost", "zone_resync_started")
"""Log events that say that a store has lost or changed something."""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _short(line: dict[str, Any]) -> str:
    hidden = ("process", "timestamp", "level", "event")
    rest = " ".join(f"{key}={value}" for key, value in line.items() if key not in hidden)
    return f"{line.get('event')} {rest}"[:160]
