"""Outlives the demo by a moment: ends its processes and removes its directory, whatever killed it.

Run as a script, without the package. It makes the directory, prints its path and then holds a pipe
whose other end only the demo has. Every process of the demo is in the guardian's process group, so
none needs to be listed, and none can be missed between its fork and an entry in a list. Only an
Envoy has a session of its own, to outlive its agent; like all of them, it works in the directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

DONE = b"."
"""Sent by a demo that has cleaned up after itself."""

KILL_S = 3.0
"""How long killed processes may take to go; then the directory is removed all the same."""

PREFIX = "zonemesh-demo-"


def main() -> None:
    # The group gets Ctrl-C's and SIGTERM's meant for the demo; it says by the pipe when it is over.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    directory = tempfile.mkdtemp(prefix=PREFIX)
    os.write(sys.stdout.fileno(), os.fsencode(directory) + b"\n")
    os.close(sys.stdout.fileno())
    if os.read(sys.stdin.fileno(), 1) != DONE:
        end(directory)


def end(directory: str) -> None:
    """Kill the group, this process too: a child outside of it sees to the rest."""
    group = os.getpgrp()
    if os.fork():
        while True:
            time.sleep(KILL_S)
    os.setpgid(0, 0)
    deadline_s = time.monotonic() + KILL_S
    try:
        while time.monotonic() < deadline_s:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)
    except ProcessLookupError:
        pass
    end_within(directory)
    shutil.rmtree(directory, ignore_errors=True)


def end_within(directory: str) -> None:
    """Kill who works in the directory, and wait until they are gone; only Linux shows them."""
    deadline_s = time.monotonic() + KILL_S
    while (found := _within(directory)) and time.monotonic() < deadline_s:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _within(directory: str) -> list[int]:
    found = []
    for working in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # gone by now, or somebody else's
            if working.readlink().is_relative_to(directory):
                found.append(int(working.parent.name))
    return found


if __name__ == "__main__":
    main()
