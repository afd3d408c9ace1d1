"""Control planes whose files were damaged on disk: begun anew from what others hold, or told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.alone import Alone
from tests.e2e.mesh import PATIENCE_S, Mesh, elsewhere, eventually, in_east, watching

SERVICES = tuple(f"s{number}" for number in range(40))
ADOPTS_S = 40.0
"""The stream's former owner is watched for 10 s first."""


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with closing(Mesh(tmp_path)) as found:
        found.start()
        found.start("east-agent")
        yield found


def torn(path: Path) -> None:
    """SQLite says so itself."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)


def flipped(path: Path) -> None:
    """A bit of an entry, which SQLite takes as it is: the log's own hashes tell."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT term, seq, data FROM entries ORDER BY term, seq")
        term, seq, data = rows.fetchall()[2]
        changed = data[:-20] + bytes([data[-20] ^ 0x10]) + data[-19:]
        connection.execute(
            "UPDATE entries SET data = ? WHERE term = ? AND seq = ?", (changed, term, seq)
        )
        connection.commit()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("damage", [torn, flipped], ids=lambda damage: damage.__name__)
def test_a_zone_whose_own_log_is_damaged_takes_from_global_what_it_had(
    mesh: Mesh, damage: Callable[[Path], None]
) -> None:
    addresses = mesh.registered(*SERVICES)
    assert mesh["west"].stop() == 0
    own = mesh.data_dir("west") / "own.db"
    damage(own)

    with watching(mesh, in_east(addresses)):
        mesh["west"].start()
        eventually(lambda: mesh.is_ready("west"), ADOPTS_S, mesh, "west")
        mesh.register("west", "later")
        mesh.resolves("east", elsewhere("later"))

    assert mesh.holds("west", addresses)
    assert "own_log_damaged" in mesh["west"].log.read_text()
    assert own.with_name("own.db.damaged").is_file()


@pytest.mark.timeout(60)
def test_a_damaged_copy_costs_a_download(mesh: Mesh) -> None:
    addresses = mesh.registered(*SERVICES)
    for name in ("east", "g1"):
        assert mesh[name].stop() == 0
        torn(mesh.data_dir(name) / "global.db")
        mesh[name].start()

    mesh.wait_ready("east", "g1")
    eventually(lambda: mesh.holds("g1", addresses), PATIENCE_S, mesh, "g1")
    for service, address in addresses.items():
        assert mesh.resolves("east", elsewhere(service)) == address


@pytest.mark.timeout(60)
def test_a_zone_alone_says_that_only_it_had_what_its_damaged_log_held(tmp_path: Path) -> None:
    alone = Alone(tmp_path)
    west = alone.processes["west"]
    try:
        alone.start("west")
        assert west.stop() == 0
        own = tmp_path / "west.data" / "own.db"
        torn(own)
        before = own.read_bytes()

        west.start()

        assert west.wait(20) == 2
        assert "restore it from a backup" in alone.log("west")
        assert own.read_bytes() == before
    finally:
        alone.close()
