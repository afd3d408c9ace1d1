"""Registrations and removals in both zones all the time, each noted with what came of it."""

from __future__ import annotations

import threading
import time
from random import Random

from tests.chaos.history import Write
from tests.chaos.stage import Stage
from tests.e2e.mesh import ZONES, dataplane

STABLE = 5
CHURNING = 10
FRESH_MAX = 40
"""Per zone; then the oldest of them goes for each that comes."""

MARK = "chaos"
"""Part of the name of every service of the load: others may be there besides."""


PAUSE_S = 15.0


class Load(threading.Thread):
    """One zone's: services that stay, that come and go, and that are new."""

    def __init__(self, stage: Stage, zone: str, random: Random, *, every_s: float) -> None:
        super().__init__(daemon=True, name=f"load-{zone}")
        self._stage = stage
        self._zone = zone
        self._random = random
        self._every_s = every_s
        self._ended = threading.Event()
        self._going = threading.Event()
        self._idle = threading.Event()
        self._going.set()
        self.present: dict[str, bool | None] = {}
        """None: the last request about it was not answered."""
        self._number = 0
        self._fresh: list[str] = []
        self.acknowledged = 0

    @property
    def services(self) -> list[str]:
        return [f"{self._zone}/{name}" for name in list(self.present)]

    @property
    def newest(self) -> str:
        name = self._fresh[-1] if self._fresh else f"{MARK}-stable-0"
        return f"{self._zone}/{name}"

    def run(self) -> None:
        for number in range(STABLE):
            self.write(f"{MARK}-stable-{number}", put=True)
        for number in range(CHURNING):
            self.write(f"{MARK}-churn-{number}", put=True)
        while not self._ended.wait(self._every_s * self._random.uniform(0.5, 1.5)):
            if not self._going.is_set():
                self._idle.set()
                self._going.wait()
                continue
            self._step()
        self._idle.set()

    def pause(self) -> None:
        """No request is under way any more, and each was answered: asked again until it was."""
        self._going.clear()
        self._idle.wait(timeout=PAUSE_S)
        deadline_s = time.monotonic() + PAUSE_S
        for name in [name for name, there in self.present.items() if there is None]:
            while not self.write(name, put=True) and time.monotonic() < deadline_s:
                time.sleep(self._every_s)

    def go_on(self) -> None:
        self._idle.clear()
        self._going.set()

    def end(self) -> None:
        self._ended.set()
        self._going.set()
        self.join(timeout=15)

    def _step(self) -> None:
        draw = self._random.random()
        if draw < 0.45:
            self._toggle(f"{MARK}-churn-{self._random.randrange(CHURNING)}")
        elif draw < 0.9:
            self._new()
        else:  # a write that changes nothing
            self.write(f"{MARK}-stable-{self._random.randrange(STABLE)}", put=True)

    def _toggle(self, name: str) -> None:
        # What is not known is registered again: a removal would have to be told from its absence.
        self.write(name, put=self.present[name] is not True)

    def _new(self) -> None:
        if len(self._fresh) >= FRESH_MAX:
            oldest = self._fresh[0]
            if self.present[oldest] is None:
                self.write(oldest, put=True)
            elif self.write(oldest, put=False):
                self._fresh.pop(0)
            return
        name = f"{MARK}-new-{self._number}"
        self._number += 1
        self._fresh.append(name)
        self.write(name, put=True)

    def write(self, name: str, *, put: bool) -> bool:
        """One request, noted."""
        start_s = time.monotonic()
        path = f"/meshes/default/dataplanes/{name}-1"
        body = dataplane(name) if put else None
        status, _ = self._stage.call(self._zone, "PUT" if put else "DELETE", path, body)
        # 404 acknowledges no removal: a zone that is starting says so of what it has not read yet.
        done = status in ((200, 201) if put else (200,))
        self.present[name] = put if done else None
        self.acknowledged += done
        self._stage.history.writes.append(
            Write(start_s, time.monotonic(), f"{self._zone}/{name}", put, done)
        )
        return done


class Loads:
    """Both zones'."""

    def __init__(self, stage: Stage, seed: int, *, every_s: float = 0.1) -> None:
        self.zones = {
            zone: Load(stage, zone, Random(f"{seed} {zone}"), every_s=every_s) for zone in ZONES
        }

    def start(self) -> None:
        for load in self.zones.values():
            load.start()

    @property
    def services(self) -> list[str]:
        return [service for load in self.zones.values() for service in load.services]

    @property
    def newest(self) -> list[str]:
        return [load.newest for load in self.zones.values()]

    def pause(self) -> None:
        for load in self.zones.values():
            load.pause()

    def go_on(self) -> None:
        for load in self.zones.values():
            load.go_on()

    def end(self) -> None:
        for load in self.zones.values():
            load.end()
