"""Outlives the demo by a moment: ends its processes and removes its directory, whatever killed it.

Run as a script, without the package. It makes the directory, prints its path and then holds a pipe
whose other end only the demo has. Every process of the demo is in the guardian's process group, so
none needs to be listed, and none can be missed between its fork and an entry in a list.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time

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
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
