"""A process's directory: its own, and writable."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zonemesh.errors import ConfigError

PROCESS_LOCK = "process.lock"
"""In the data directory. Local disks only; NFS may grant it twice."""


@contextmanager
def data_dir(path: Path) -> Iterator[None]:
    """One process per data directory, for as long as it lives.

    Not the lease of a log in it: that is given up by whoever resigns and goes on writing here, and
    a process whose log is in Redis has none.

    Raises:
        ConfigError: Another process is there, or the directory cannot be made or written.
    """
    _make(path)
    lock = os.open(path / PROCESS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError([f"dataDir: {path} is in use by another process"]) from error
        yield
    finally:
        os.close(lock)


def _make(path: Path) -> None:
    if path == Path():  # what an empty setting becomes
        raise ConfigError(["dataDir: must name a directory"])
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError([f"dataDir: {path}: {error.strerror}; choose a writable one"]) from error
