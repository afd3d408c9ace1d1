"""The demo's processes: started into the guardian's group, logged to files, ended in order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zonemesh.cli.demo import guardian
from zonemesh.errors import ConfigError
from zonemesh.runtime.redisserver import find_redis_server, start_redis_server, wait_ready

REDIS_READY_S = 30.0
STOP_S = 1.2
"""After SIGTERM; what is still there is killed: Ctrl-C has 2 s for everything."""

LOOK_S = 0.02
LOG_LINES = 12
"""Of the log of a process that failed."""

_OWN_VARIABLES = ("ZONEMESH_", "KUMA_")


@dataclass(slots=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    killed: bool = False
    """Ended on purpose: not a failure."""

    @property
    def running(self) -> bool:
        return self.process.poll() is None


class Processes:
    """Use as a context: on leaving, every process has ended and the directory is gone."""

    def __init__(self) -> None:
        self._guardian = subprocess.Popen(  # noqa: S603 -- this very interpreter
            # By path, without the environment's packages: it starts within 20 ms.
            [sys.executable, "-I", "-S", guardian.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._guardian.stdout is not None
        self.directory = Path(os.fsdecode(self._guardian.stdout.readline().rstrip(b"\n")))
        self._children: dict[str, Child] = {}
        self._ended = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self:
            child.process.kill()
            child.process.wait()
        guardian.end_within(str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(guardian.DONE)
        self._guardian.stdin.close()
        self._guardian.wait()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children.values())

    def __len__(self) -> int:
        """How many were started, the guardian included."""
        return self._ended + len(self._children) + 1

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def start(self, name: str, script: str, *arguments: str) -> Child:
        """Start one of this distribution's console scripts."""
        program = Path(sysconfig.get_path("scripts")) / script
        if not program.exists():
            raise ConfigError([f"{program} is missing: install zonemesh into this environment"])
        return self._run(name, [str(program), *arguments])

    def start_script(self, name: str, path: str, *arguments: str) -> Child:
        """Start a file of Python that needs no packages."""
        return self._run(name, [sys.executable, "-I", "-S", path, *arguments])

    def _run(self, name: str, command: Sequence[str]) -> Child:
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 -- our own script, our own arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=_environment(),
                process_group=self._guardian.pid,
            )
        return self._add(name, process, log)

    async def start_redis(self, name: str, port: int) -> Child:
        """Start a redis-server and wait until it answers."""
        directory, log = self.directory / name, self.directory / f"{name}.log"
        process = start_redis_server(
            find_redis_server(os.environ),
            directory=directory,
            port=port,
            log=log,
            process_group=self._guardian.pid,
        )
        child = self._add(name, process, log)
        await asyncio.to_thread(
            wait_ready, process, directory=directory, port=port, log=log, timeout_s=REDIS_READY_S
        )
        return child

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would."""
        child = self._children[name]
        child.killed = True
        child.process.kill()
        child.process.wait()

    def failed(self) -> Child | None:
        """One that has ended though nobody asked it to."""
        return next((child for child in self if not child.killed and not child.running), None)

    async def stop(self, order: Sequence[Sequence[str]]) -> None:
        """SIGTERM, wave by wave; then SIGKILL for whatever remains."""
        deadline_s = time.monotonic() + STOP_S
        for child in self:
            child.killed = True
        for wave in order:
            children = [self._children[name] for name in wave if name in self._children]
            for child in children:
                if child.running:
                    child.process.send_signal(signal.SIGTERM)
            # Asked, not waited for: a process that hangs must not cost a thread.
            while any(child.running for child in children) and time.monotonic() < deadline_s:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)

    def _add(self, name: str, process: subprocess.Popen[bytes], log: Path) -> Child:
        if name in self._children:
            self._ended += 1
        child = self._children[name] = Child(name, process, log)
        return child


def last_words(log: Path, lines: int = LOG_LINES) -> list[str]:
    """The end of a log."""
    try:
        return log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _environment() -> dict[str, str]:
    """Without what would configure the children: theirs is written to files here."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)
    }
