"""Network namespaces of one's own, for tests that change routes and rules."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
ENVIRONMENT = {**os.environ, "PATH": PATH}
RESOLVER = "9.9.9.9"
"""Of its resolv.conf; nobody is there."""

STOP_S = 5.0
_numbers = itertools.count()


class Namespace:
    """A network of its own: a loopback that is up, and a default route that leads nowhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._running: list[subprocess.Popen[str]] = []

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True, text=True, timeout=30, check=check, env=ENVIRONMENT,
        )  # fmt: skip

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        """Run a command in it until the end of the test."""
        with log.open("w") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdout=output, stderr=output, text=True, env=ENVIRONMENT,
            )  # fmt: skip
        self._running.append(process)
        return process

    def python(self, script: str, *arguments: str) -> str:
        done = self.run(sys.executable, "-c", script, *arguments, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Skips the test where that is not allowed, or not possible."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    if shutil.which("ip", path=PATH) is None:
        pytest.skip("network namespaces need iproute2 (.ci/apt-install ip:iproute2)")
    name = f"zm-test-{os.getpid()}-{next(_numbers)}"
    made = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, text=True, check=False,
        env=ENVIRONMENT,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    found = Namespace(name)
    own_etc = Path("/etc/netns") / name  # seen as /etc by what is run there: ip-netns(8)
    try:
        own_etc.mkdir(parents=True)
        (own_etc / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
        for words in (
            "link set lo up",
            "addr add 10.77.0.1/24 dev lo",
            "route add default via 10.77.0.2 dev lo",
        ):
            found.run("ip", *words.split())
        yield found
    finally:
        found.close()
        shutil.rmtree(own_etc, ignore_errors=True)
        subprocess.run(["ip", "netns", "del", name], check=False, env=ENVIRONMENT)
