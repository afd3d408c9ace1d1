"""One redis-server that is killed, paused, emptied, demoted and damaged; on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.mesh import HOST, START_S, STOP_S
from tests.patience import SLOWER
from zonemesh.runtime.redisserver import find_redis_server, wait_ready

_REPLY_S = 10.0


class RedisNode:
    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.settings: dict[str, str] = {
            "bind": HOST,
            "port": str(port),
            "dir": str(directory.resolve()),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            # A replica that comes anew has its copy at once.
            "repl-diskless-sync-delay": "0",
        }
        self._log = directory.with_suffix(".log")
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self, settings: Mapping[str, str] | None = None) -> None:
        """Start, with what is on disk, and wait until it answers; these settings stay."""
        self.settings.update(settings or {})
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = [item for key, value in self.settings.items() for item in (f"--{key}", value)]
        with self._log.open("ab") as output:
            self._popen = subprocess.Popen(
                [find_redis_server(os.environ), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_ready(
            self._popen,
            directory=self.directory,
            port=self.port,
            log=self._log,
            timeout_s=SLOWER * START_S,
        )

    @property
    def running(self) -> bool:
        return self._popen is not None

    def kill(self) -> None:
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(timeout=SLOWER * STOP_S)
            self._popen = None

    def pause(self) -> None:
        assert self._popen is not None
        self._popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._popen is not None
        self._popen.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Its data; while it does not run."""
        assert not self.running
        shutil.rmtree(self.directory, ignore_errors=True)

    def lose_tail(self, size: int) -> None:
        """The last bytes of its append-only file, as after a power cut; while it does not run."""
        assert not self.running
        files = sorted(self.directory.glob("appendonlydir/*.incr.aof"))
        files += sorted(self.directory.glob("appendonly.aof"))  # 6.2
        with files[-1].open("r+b") as file:
            file.truncate(max(0, files[-1].stat().st_size - size))

    def command(self, *words: str) -> bytes:
        return command(self.port, *words)


def command(port: int, *words: str) -> bytes:
    """The beginning of a server's reply."""
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    with socket.create_connection((HOST, port), timeout=_REPLY_S) as connection:
        connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        return connection.recv(65_536)
