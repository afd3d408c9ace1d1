"""Meshes of real processes, each in a directory and on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import AGENTS, Mesh


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Nothing of it runs yet: `mesh.start()` does that."""
    found = Mesh(tmp_path)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def calm_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One that runs, agents included, for a module's tests that break nothing of it."""
    found = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        found.start()
        found.start(*AGENTS)
        yield found
    finally:
        found.close()
