"""From a change in west to a program in east that knows only the name: `getaddrinfo` in a network
of its own, the kernel's redirect, the agent, and its Envoy that has to be ready first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench.connect import load, summary
from tests.e2e.apart import PROGRAM_USER, WEST, ApartMesh, apart, why_not
from tests.e2e.mesh import elsewhere
from tests.netns import ENVIRONMENT

PORT = 8080
REST_S = 0.05

ASKER = """
import encodings.idna, os, socket, sys, time
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for line in sys.stdin:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.getaddrinfo(line.strip(), 8080, type=socket.SOCK_STREAM)
            break
        except socket.gaierror:
            time.sleep(0.0005)
    else:
        sys.exit(f"{line.strip()} is not answered within 10 s")
    print(time.monotonic(), flush=True)
"""
"""Is told a name, and says when it was first answered; one clock for all processes."""


def measure(services: int, *, samples: int) -> dict[str, Any]:
    """Load services, then add one after the other.

    Returns:
        Milliseconds from sending the PUT until the name is answered; or why that could not be
        measured here.
    """
    if (why := why_not()) is not None:
        return {"not_measured": why}
    try:
        with tempfile.TemporaryDirectory() as directory, apart(Path(directory), "nat") as mesh:
            load(mesh, services)
            return {"services": services, "answered": summary(_add(mesh, samples))}
    except pytest.skip.Exception as error:
        return {"not_measured": str(error)}


def _add(mesh: ApartMesh, samples: int) -> list[float]:
    found = []
    with _asker(mesh) as asker:
        for number in range(samples):
            name = f"new{number}"
            started_s = time.monotonic()
            mesh.put_workload("west", name, PORT, address=WEST)
            # Not before: asking takes the cores from the change itself.
            found.append(_ask(asker, elsewhere(name)) - started_s)
            time.sleep(REST_S)
    return found


@contextmanager
def _asker(mesh: ApartMesh) -> Iterator[subprocess.Popen[str]]:
    command = mesh.networks.east.command(sys.executable, "-c", ASKER, PROGRAM_USER)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _ask(asker: subprocess.Popen[str], name: str) -> float:
    """When a name was first answered, on the monotonic clock."""
    assert asker.stdin is not None
    assert asker.stdout is not None
    asker.stdin.write(f"{name}\n")
    asker.stdin.flush()
    if not (line := asker.stdout.readline()):
        raise RuntimeError(f"the program that asks for {name} has ended")
    return float(line)
