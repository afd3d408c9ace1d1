"""Asks the agents for names all the time, so that "was answered at every moment" is measured."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from zonemesh.cli.demo.mesh import Mesh

EVERY_S = 0.02
FAILURES_KEPT = 5


@dataclass(slots=True)
class Watch:
    """Counts answers; use `run` as a task, and `expect` names from any other."""

    mesh: Mesh
    asked: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first few, in words."""

    _expected: dict[tuple[str, str], str] = field(default_factory=dict)

    def expect(self, zone: str, name: str, address: str) -> None:
        """From now on a zone's agent must answer this name with this address."""
        self._expected[zone, name] = address

    def release(self, name: str) -> None:
        """Expect a name no more."""
        self._expected = {key: value for key, value in self._expected.items() if key[1] != name}

    async def run(self) -> None:
        while True:
            pending = [self._ask(zone, name) for zone, name in self._expected]
            await asyncio.gather(*pending, asyncio.sleep(EVERY_S))

    async def _ask(self, zone: str, name: str) -> None:
        answer = await self.mesh.resolve(zone, name)
        expected = self._expected.get((zone, name))
        if expected is None:
            return
        self.asked += 1
        if answer.address != expected:
            self.failed += 1
            if len(self.failures) < FAILURES_KEPT:
                found = answer.address or answer.rcode
                self.failures.append(f"{name} in {zone}: {found} instead of {expected}")
