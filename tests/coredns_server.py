"""The real CoreDNS of the tests: built once per user by `.ci/coredns`, where Go is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "coredns"
BUILD_S = 1200


def find_coredns() -> Path:
    """The program; skips the test where there is no Go to build it, and fails in CI if there is."""
    done = subprocess.run([SCRIPT, "--where"], capture_output=True, text=True, check=True)
    binary = Path(done.stdout.strip())
    if binary.exists():
        return binary
    if shutil.which("go") is None:
        pytest.skip(f"no CoreDNS at {binary}, and no Go to build one (make coredns)")
    if os.environ.get("CI"):
        pytest.fail(f"no CoreDNS at {binary}, though Go is here: run make coredns before")
    subprocess.run([SCRIPT], check=True, timeout=BUILD_S)
    if not binary.exists():
        pytest.skip("CoreDNS could not be built: run make coredns to see why")
    return binary
