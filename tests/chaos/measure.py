"""What chaos measures: how soon a mesh is whole again, and at what cost."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.recorder import Asker
from tests.chaos.run import Run
from tests.e2e.mesh import GLOBALS, HOST, environment, eventually

HEARD_S = 5.0
"""A zone's heartbeat comes each second, and global tells of it each second."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float | None
    unit: str
    target: float | None = None
    """The most that it may be."""

    @property
    def missed(self) -> bool:
        return self.target is not None and (self.value is None or self.value > self.target)


def after_kills(run: Run, times: int) -> list[Figure]:
    """The leader is killed; until the log has an entry of another."""
    taken_s = []
    for _ in range(times):
        leader = run.stage.leading()
        killed_s = time.monotonic()
        run.stage.kill(leader)
        taken_s.append(_next_term(run, killed_s) - killed_s)
        run.stage.back(leader)
        run.settle()
    return [Figure(f"leader killed {times} times: next entry, longest", max(taken_s), "s", 3.0)]


def _next_term(run: Run, since_s: float) -> float:
    """When the first entry of a new term was seen in global's log."""

    def find() -> float | None:
        history = run.stage.history.logged
        entries = [entry for entry in reversed(history[-500:]) if entry.log == "global"]
        found = [
            entry.at_s for entry in entries if entry.at_s > since_s and entry.cursor[1][1] == 0
        ]
        return min(found) if found else None

    at_s = eventually(find, 20, run.stage, *GLOBALS)
    assert at_s is not None
    return at_s


def handovers(run: Run, times: int, say: Say) -> list[Figure]:
    """Leaders that stop gracefully, one after another."""
    taken_s = []
    for number in range(times):
        leader = run.stage.leading()
        begun_s = time.monotonic()
        run.stage.down(leader, "stopped")
        assert run.stage[leader].stop() == 0
        taken_s.append(_next_term(run, begun_s) - begun_s)
        run.stage.back(leader)
        if number % 10 == 9:
            say(f"  {number + 1} of {times}")
    run.settle()
    found = [each for each in run.violations() if each.rule.startswith("vip_")]
    return [
        Figure(f"{times} graceful leader changes: changed addresses", len(found), "", 0),
        Figure("graceful leader change: next entry, longest", max(taken_s), "s", 3.0),
    ]


def deltas(run: Run, services: int) -> list[Figure]:
    """East comes back after a cut in which 1 % of all services changed."""
    stage = run.stage
    link = stage.links["east"]
    stage.kill("east")
    stage.forget("east")
    before = link.sent["down"]
    stage.back("east")
    run.settle()
    snapshot = link.sent["down"] - before
    with stage.faulty("cut", "east"):
        link.cut()
        changed = max(1, services // 100)
        # East's agent cannot see them meanwhile: not waited for.
        for number in range(changed):
            stage.register("west", f"loaded-{number}", address="10.99.0.1")
        before = link.sent["down"]
    seconds = run.settle()
    delta = link.sent["down"] - before
    return [
        Figure(f"snapshot of {services} services", snapshot / 1024, "KiB"),
        Figure(f"resumed after {changed} changes", delta / 1024, "KiB"),
        Figure("resumed, share of a snapshot", 100 * delta / snapshot, "%", 1.0),
        Figure("resumed within", seconds, "s"),
    ]


def herd(run: Run, count: int, say: Say) -> list[Figure]:
    """Many zones lose Redis at once and find it again at once."""
    stage = run.stage
    port = stage.link("herd", stage.node.port)
    # Each zone has a machine of its own elsewhere: all of them must not take that of the measured.
    command = ["nice", "-n", "10", sys.executable, "-m", "tests.chaos.manyzones"]
    command.append(f"redis://{HOST}:{port}/0")
    log = (stage.directory / "manyzones.log").open("wb")
    many = subprocess.Popen(
        [*command, str(count)], stdout=subprocess.PIPE, stderr=log, env=environment()
    )
    current = _Current(many)
    current.start()
    try:
        eventually(lambda: _all(run, current, count), 120, stage, *GLOBALS)
        say(f"  {count} zones are current")
        calm = _propagation(run, 40)
        with stage.faulty("cut", "herd") as (link,):
            link.cut()
            time.sleep(5)
        healed_s = time.monotonic()
        busy = _Propagating(run)
        busy.start()
        try:
            eventually(lambda: _all(run, current, count), 60)
        except AssertionError as error:
            told = f"{current.number} current and {_heard(run)} heard of {count}"
            raise AssertionError(f"{told}, {str(error).splitlines()[0]}") from error
        took_s = time.monotonic() - healed_s
        during = busy.end()
    finally:
        many.kill()
        many.wait()
        log.close()
        current.join(timeout=5)
    ratio = _p99(during) / _p99(calm) if during else None
    return [
        Figure(f"{count} zones reconnect at once: all current", took_s, "s", 30.0),
        Figure("others' registrations before, p99", 1000 * _p99(calm), "ms"),
        Figure("others' registrations meanwhile, p99", 1000 * _p99(during), "ms"),
        Figure("others' p99, times", ratio, "", 2.0),
    ]


class _Current(threading.Thread):
    """What the many say of themselves."""

    def __init__(self, many: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._many = many
        self.number = 0

    def run(self) -> None:
        assert self._many.stdout is not None
        for line in self._many.stdout:
            self.number = json.loads(line)["current"]


def _all(run: Run, current: _Current, count: int) -> bool:
    """Whether all of many zones are current, and heard."""
    time.sleep(_LOOK_S)
    return current.number == count and _heard(run) == count


def _heard(run: Run) -> int:
    """How many of them global hears."""
    leader = run.stage.leader()
    if leader is None:
        return 0
    lags_s = run.stage.metric(leader, "zonemesh_zone_lag_seconds")
    return sum("many-" in labels and lag_s < HEARD_S for labels, lag_s in lags_s.items())


class _Propagating(threading.Thread):
    """Registrations in west until east answers, one after another, until `end`."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._ended = threading.Event()
        self._taken_s: list[float] = []

    def run(self) -> None:
        while not self._ended.is_set():
            self._taken_s += _propagation(self._run, 1)

    def end(self) -> list[float]:
        self._ended.set()
        self.join(timeout=30)
        return self._taken_s


_LOOK_S = 0.2
"""Before all metrics are asked for: no more than that is to be known."""
_PAUSE_S = 0.5
"""Between two: what is measured is not to be the load, on a machine that all zones share."""
_NUMBERS = iter(range(1_000_000))


def _propagation(run: Run, samples: int) -> list[float]:
    """Seconds from a registration in west to east's answer."""
    asker = Asker(run.stage, "east", run.loads, Random(0))
    taken_s = []
    for _ in range(samples):
        name = f"timed-{next(_NUMBERS)}"
        start_s = time.monotonic()
        run.loads.zones["west"].write(name, put=True)
        while asker.ask(f"west/{name}").address is None:
            assert time.monotonic() < start_s + 30, f"{name} does not resolve in east"
            time.sleep(0.002)
        taken_s.append(time.monotonic() - start_s)
        time.sleep(_PAUSE_S)
    asker.close()
    return taken_s


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
