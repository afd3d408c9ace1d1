"""Meshes of real processes, each in a directory and on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """Nothing of it runs yet: `mesh.start()` does that."""
    with closing(Mesh(tmp_path)) as found:
        yield found


@pytest.fixture(scope="module")
def calm_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One that runs, agents included, for a module's tests that break nothing of it."""
    with closing(Mesh(tmp_path_factory.mktemp("mesh"))) as found:
        found.start_all()
        yield found
