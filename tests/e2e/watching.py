"""Names that must be answered at every moment of something, and are asked for all the while."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.e2e.mesh import PATIENCE_S, POLL_S, Mesh, elsewhere
from tests.patience import SLOWER


class Watcher(threading.Thread):
    """Asks agents for names all the time; whatever is not the expected address is kept."""

    def __init__(self, mesh: Mesh, expected: Mapping[tuple[str, str], str]) -> None:
        super().__init__(daemon=True)
        self._mesh = mesh
        self._expected = dict(expected)
        self._ended = threading.Event()
        self.asked = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while True:  # at least once, however soon the end comes
            for (zone, name), address in self._expected.items():
                found = self._mesh.resolve(zone, name)
                self.asked += 1
                if found != [address]:
                    self.wrong.append(f"{name} in {zone}: {found}, not {address}")
            if self._ended.wait(POLL_S):
                return

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=SLOWER * PATIENCE_S)


@contextmanager
def watching(mesh: Mesh, expected: Mapping[tuple[str, str], str]) -> Iterator[Watcher]:
    """Within this context names must be answered at every moment; checked at its end."""
    watcher = Watcher(mesh, expected)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.end()
    assert watcher.asked > 0
    assert watcher.wrong == []


def in_east(addresses: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """What east's agent must answer for services of west; for `watching`."""
    return {("east", elsewhere(service)): address for service, address in addresses.items()}
