"""Network namespaces of one's own, for tests that change routes and rules."""

from __future__ import annotations

import ctypes
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
_IP = shutil.which("ip", path=PATH) or "ip"
_numbers = itertools.count()
_links = itertools.count()
_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network of its own: a loopback that is up, and a default route that leads nowhere."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._running: list[subprocess.Popen[str]] = []

    def command(self, *command: str) -> list[str]:
        """A command so that it runs in it, with its own /etc/resolv.conf."""
        return [_IP, "netns", "exec", self.name, *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            self.command(*command),
            capture_output=True, text=True, timeout=30, check=check, env=ENVIRONMENT,
        )  # fmt: skip

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        """Run a command in it until the end of the test."""
        with log.open("w") as output:
            process = subprocess.Popen(
                self.command(*command),
                stdout=output, stderr=output, text=True, env=ENVIRONMENT,
            )  # fmt: skip
        self._running.append(process)
        return process

    def python(self, script: str, *arguments: str) -> str:
        done = self.run(sys.executable, "-c", script, *arguments, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread makes are of it, and so is what it starts: setns(2).

        Files, and with them resolv.conf, stay as they are.
        """
        own_path, path = Path("/proc/thread-self/ns/net"), Path("/run/netns") / self.name
        with own_path.open("rb") as own, path.open("rb") as other:
            _set_namespace(other.fileno())
            try:
                yield
            finally:
                _set_namespace(own.fileno())

    def close(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def join(one: Namespace, other: Namespace, prefix: str) -> None:
    """A cable between two: `one` has address `prefix`.1, `other` `prefix`.2, both /24."""
    link = f"zm{next(_links)}"
    peer = ("type", "veth", "peer", "name", link, "netns", other.name)
    one.run("ip", "link", "add", link, *peer)
    for number, end in enumerate((one, other), start=1):
        end.run("ip", "addr", "add", f"{prefix}.{number}/24", "dev", link)
        end.run("ip", "link", "set", link, "up")


def why_not() -> str | None:
    """What this machine lacks for network namespaces; None if it has it all."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip", path=PATH) is None:
        return "network namespaces need iproute2 (.ci/apt-install ip:iproute2)"
    return None


@contextmanager
def namespace(resolver: str = RESOLVER) -> Iterator[Namespace]:
    """Skips the test where that is not allowed, or not possible."""
    if (why := why_not()) is not None:
        pytest.skip(why)
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
        (own_etc / "resolv.conf").write_text(f"nameserver {resolver}\n")
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
