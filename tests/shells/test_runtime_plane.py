"""What both control planes do alike at their start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zonemesh.errors import ConfigError
from zonemesh.log.port import Lease
from zonemesh.log.sqlite import SqliteLog
from zonemesh.runtime.datadir import data_dir

HOLDING = """
import sys
from pathlib import Path
from zonemesh.runtime.datadir import data_dir

with data_dir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_data_directory_belongs_to_one_process_until_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "data")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"

    with pytest.raises(ConfigError, match="is in use by"), data_dir(tmp_path / "data"):
        pass
    other.kill()
    other.communicate()

    with data_dir(tmp_path / "data"):
        pass


async def test_a_lease_given_up_gives_up_no_data_directory(tmp_path: Path) -> None:
    own = SqliteLog(tmp_path / "own.db", "zone:west:own")
    lease = Lease(writer="a", url="")

    with data_dir(tmp_path):
        assert await own.acquire(lease)
        await own.release(lease)

        with pytest.raises(ConfigError, match="in use"), data_dir(tmp_path):
            pass
    await own.close()
