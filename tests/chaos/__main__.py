"""`make chaos`: break a mesh of real processes in every way, check every history, measure.

python -m tests.chaos [--only flushall,measure] [--services 10000] [--seed 7] [--json FILE]

Exit code 0: nothing was violated, every mesh healed, every figure is within its target.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.__main__ import machine
from tests.chaos import measure
from tests.chaos.checker import RULES
from tests.chaos.faults import FAULTS
from tests.chaos.measure import Figure
from tests.chaos.run import Outcome, Run
from tests.chaos.sentinels import SENTINEL_FAULTS
from tests.redis_server import program_version

DETECT_S = 2.0
HEAL_S = 10.0
HEAL_MANY_S = 60.0
_MANY = 100_000
MEASURES = ("kills", "handovers", "deltas", "herd")
_SENTINELS_NEED = (7,)
_EVERYTHING = (*FAULTS, *SENTINEL_FAULTS, *MEASURES)


class Chaos:
    """Everything that was asked for, on as few meshes as hold out."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._meshes = 0
        self._run: Run | None = None
        self._sentinels = False
        self.outcomes: list[Outcome] = []
        self.figures: list[Figure] = []
        self.heal_s = HEAL_MANY_S if options.services >= _MANY else HEAL_S

    def close(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None

    def fault(self, name: str) -> None:
        start_s = time.monotonic()
        run = self._mesh(sentinels=name in SENTINEL_FAULTS)
        outcome = run.do(name)
        self.outcomes.append(outcome)
        told = "ok" if self._passed(outcome) else "FAILED"
        _say(f"{told:6} {name:34} {time.monotonic() - start_s:6.1f} s")
        if not self._passed(outcome):
            _say(run.explain(outcome))
        if outcome.healed_s is None or outcome.violations:
            self.close()  # whatever comes next begins with a mesh of which nothing is known

    def measure(self, name: str) -> None:
        start_s = time.monotonic()
        self.close()  # not on a mesh that was broken before
        run, options = self._mesh(sentinels=False), self._options
        try:
            match name:
                case "kills":
                    found = measure.after_kills(run, 5)
                case "handovers":
                    found = measure.handovers(run, options.handovers, _say)
                case "deltas":
                    found = measure.deltas(run, options.services)
                case _:
                    found = measure.herd(run, options.zones, _say)
        except AssertionError as error:
            _say(f"{name}: {error}")
            found = [Figure(f"{name}: {str(error).partition(chr(10))[0]}", None, "", 0)]
        self.figures += found
        missed = any(figure.missed for figure in found)
        _say(f"{'MISSED' if missed else 'ok':6} {name:34} {time.monotonic() - start_s:6.1f} s")
        self.close()

    def _mesh(self, *, sentinels: bool) -> Run:
        if self._sentinels != sentinels:
            self.close()
        if self._run is None:
            self._meshes += 1
            directory = self._directory / str(self._meshes)
            directory.mkdir()
            options = self._options
            self._sentinels = sentinels
            self._run = Run(directory, options.seed, services=options.services, sentinels=sentinels)
        return self._run

    def _passed(self, outcome: Outcome) -> bool:
        return outcome.passed and not self._late(outcome)

    def _late(self, outcome: Outcome) -> bool:
        if not outcome.detects:
            return False
        detected = outcome.detected_s is not None and outcome.detected_s <= DETECT_S
        return not detected or outcome.healed_s is None or outcome.healed_s > self.heal_s

    @property
    def failed(self) -> bool:
        return not all(map(self._passed, self.outcomes)) or any(f.missed for f in self.figures)

    # The end

    def tables(self) -> list[Table]:
        services = self._options.services
        found = Table(
            title=f"faults, {services} services beside the load, seed {self._options.seed}"
        )
        for column in ("fault", "violations", "detected s", "healed s", ""):
            found.add_column(column)
        for outcome in sorted(self.outcomes, key=lambda each: each.fault):
            counts = Counter(violation.rule for violation in outcome.violations)
            found.add_row(
                outcome.fault,
                ", ".join(f"{rule} {count}" for rule, count in counts.items()) or "0",
                _shown(outcome.detected_s) if outcome.detects else "",
                _shown(outcome.healed_s),
                "" if self._passed(outcome) else "FAILED",
            )
        figures = Table(title="measured")
        for column in ("figure", "value", "at most", ""):
            figures.add_column(column)
        for figure in self._figures():
            target = "" if figure.target is None else f"{figure.target:g} {figure.unit}"
            value = f"{_shown(figure.value)} {figure.unit}"
            figures.add_row(figure.name, value, target, "MISSED" if figure.missed else "")
        return [found, figures]

    def _figures(self) -> list[Figure]:
        lossy = [outcome for outcome in self.outcomes if outcome.detects]
        counts = Counter(each.rule for outcome in self.outcomes for each in outcome.violations)
        found = [Figure(f"violations: {rule}", counts[rule], "", 0) for rule in RULES]
        if lossy:
            found += [
                Figure("loss detected, longest", _longest(o.detected_s for o in lossy), "s", 2.0),
                Figure(
                    "loss healed, longest", _longest(o.healed_s for o in lossy), "s", self.heal_s
                ),
            ]
        return found + self.figures

    def json(self) -> dict[str, Any]:
        return {
            "machine": machine(),
            "time": datetime.now(UTC).isoformat(),
            "seed": self._options.seed,
            "services": self._options.services,
            "faults": [
                {
                    **asdict(outcome),
                    "violations": [each._asdict() for each in outcome.violations],
                    "passed": self._passed(outcome),
                }
                for outcome in self.outcomes
            ],
            "figures": [asdict(figure) for figure in self._figures()],
        }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    only = options.only.split(",") if options.only else list(_EVERYTHING)
    names = [name for name in only if name not in MEASURES]
    if program_version() < _SENTINELS_NEED:
        _say("without the faults of sentinels: the redis-server here is older than 7.0")
        names = [name for name in names if name not in SENTINEL_FAULTS]
    Random(options.seed).shuffle(names)
    names.sort(key=lambda name: name in SENTINEL_FAULTS)  # which have a mesh of their own
    with tempfile.TemporaryDirectory(prefix="zonemesh-chaos-") as directory:
        chaos = Chaos(options, Path(directory))
        _say(f"seed {options.seed}, {len(names)} faults, {options.services} services")
        try:
            for name in names:
                chaos.fault(name)
            for name in MEASURES:
                if name in only:
                    chaos.measure(name)
        finally:
            chaos.close()
            options.json.write_text(json.dumps(chaos.json(), indent=1) + "\n")
            for table in chaos.tables():
                Console(width=110).print(table)
    _say(f"written to {options.json}")
    return 1 if chaos.failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", help="faults and measures, by comma")
    parser.add_argument("--services", type=int, default=1_000, help="that nothing happens to")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--handovers", type=int, default=100)
    parser.add_argument("--zones", type=int, default=100, help="that reconnect at once")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"))
    options = parser.parse_args(arguments)
    known = set(_EVERYTHING)
    unknown = sorted(set((options.only or "").split(",")) - known - {""})
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _shown(value: float | None) -> str:
    return "never" if value is None else f"{value:.4g}"


def _longest(values: Any) -> float | None:
    """None if any of them is."""
    found = list(values)
    return None if None in found else max(found)


if __name__ == "__main__":
    sys.exit(main())
