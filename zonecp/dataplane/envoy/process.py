"""Runs an Envoy: starts it, takes over one that an earlier agent left running, and ends it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from zonecp.dataplane.envoy.binary import EnvoyMissingError, find_envoy, version_of
from zonemesh.errors import UnavailableError

log = structlog.get_logger(__name__)

BOOTSTRAP_FILE: Final = "envoy.json"
LOG_FILE: Final = "envoy.log"
PID_FILE: Final = "envoy.pid"
LOG_BYTES_MAX: Final = 16 << 20
"""A longer log is put aside at the next start, and the one put aside before is dropped."""

STOP_S: Final = 3.0
TAIL_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How an Envoy is run."""

    binary: Path | None
    """None: as `find_envoy` finds it."""

    directory: Path
    """Where its files are."""

    bootstrap: dict[str, Any]
    concurrency: int
    log_level: str
    drain_s: int

    def arguments(self, binary: Path) -> list[str]:
        return [
            str(binary),
            *("-c", str(self.directory / BOOTSTRAP_FILE)),
            *("--concurrency", str(self.concurrency)),
            *("--log-level", self.log_level),
            *("--drain-time-s", str(self.drain_s)),
            # Several Envoys of one host would share its memory by their number.
            "--disable-hot-restart",
        ]


class EnvoyProcess:
    """One call of `run` is one life of an Envoy; a component for `supervise`."""

    def __init__(self, command: Command) -> None:
        self.version = ""
        self.starts = 0
        self.adopted = 0
        """Lives that were taken over."""

        self.failures = 0
        self.pid: int | None = None
        self.trouble: str | None = None
        """Why the last one ended, or none was started; None while one runs."""

        self.missing = False
        """There is no program to run: nothing is to be waited for."""

        self._child: asyncio.subprocess.Process | None = None
        """None of one that was taken over."""

        self._command = command
        self._directory = command.directory

    async def run(self) -> None:
        """Run it until it ends, or until cancelled.

        Raises:
            UnavailableError: It ended, or could not be started; to be called again.
        """
        try:
            pid = await self._take_over() or await self._start()
            self.pid, self.trouble, self.missing = pid, None, False
            await self._end_of(pid)
            raise UnavailableError(f"envoy ended: {self._last_words()}")
        except UnavailableError as error:
            self.failures += 1
            self.missing = isinstance(error, EnvoyMissingError)
            self.trouble = str(error)
            raise
        except asyncio.CancelledError:
            await self._stop()
            raise
        finally:
            self.pid = None

    async def _start(self) -> int:
        binary = find_envoy(self._command.binary, os.environ)
        self.version = await version_of(binary)
        arguments = self._command.arguments(binary)
        try:
            self._write_bootstrap()
            with self._open_log() as output:
                self._child = await asyncio.create_subprocess_exec(
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._directory,
                    # Ctrl-C on a terminal is for the agent, which ends Envoy itself.
                    start_new_session=True,
                )
            pid: int = self._child.pid
            (self._directory / PID_FILE).write_text(json.dumps([pid, arguments]))
        except OSError as error:
            raise UnavailableError(f"envoy not started: {error}") from error
        self.starts += 1
        log.info("envoy_started", pid=pid, version=self.version, binary=str(binary),
                 log=str(self._directory / LOG_FILE))  # fmt: skip
        return pid

    async def _take_over(self) -> int | None:
        """An Envoy that this agent's predecessor started, if it runs as this one would."""
        self._child = None
        found = self._running()
        if found is None:
            return None
        pid, arguments = found
        same = arguments == self._command.arguments(Path(arguments[0])) and self._same_bootstrap()
        if not same:
            log.info("envoy_replaced", pid=pid, reason="it runs by another configuration")
            await self._kill(pid)
            return None
        with suppress(EnvoyMissingError):
            self.version = await version_of(Path(arguments[0]))
        self.adopted += 1
        log.info("envoy_taken_over", pid=pid)
        return pid

    def _running(self) -> tuple[int, list[str]] | None:
        """The Envoy of this directory, if it still runs: its process and arguments."""
        try:
            pid, arguments = json.loads((self._directory / PID_FILE).read_text())
            running = Path(f"/proc/{int(pid)}/cmdline").read_bytes().decode().split("\0")[:-1]
        except (OSError, ValueError, TypeError):
            return None
        # A process of that number may be anybody's by now.
        return (int(pid), running) if running == arguments else None

    def _same_bootstrap(self) -> bool:
        try:
            return (self._directory / BOOTSTRAP_FILE).read_text() == self._bootstrap_text()
        except OSError:
            return False

    async def _end_of(self, pid: int) -> None:
        if self._child is not None:
            await self._child.wait()
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _stop(self) -> None:
        if self.pid is not None:
            await self._kill(self.pid)
            log.info("envoy_stopped", pid=self.pid)

    async def _kill(self, pid: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self._end_of(pid)
                    break
        with suppress(OSError):
            (self._directory / PID_FILE).unlink()

    def _bootstrap_text(self) -> str:
        return json.dumps(self._command.bootstrap, indent=2)

    def _write_bootstrap(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / BOOTSTRAP_FILE).write_text(self._bootstrap_text())

    def _open_log(self) -> Any:
        path = self._directory / LOG_FILE
        with suppress(FileNotFoundError):
            if path.stat().st_size > LOG_BYTES_MAX:
                path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _last_words(self) -> str:
        path = self._directory / LOG_FILE
        try:
            with path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                tail = file.read().decode(errors="replace")
        except OSError:
            tail = ""
        code = None if self._child is None else self._child.returncode
        return explain_end(code, tail, path)


_IN_USE: Final = re.compile(r"cannot bind '?\[?([^']*?)\]?:(\d+)'?: Address already in use")


def explain_end(code: int | None, tail: str, path: Path) -> str:
    """One line on why an Envoy ended, from its exit code and the end of its log."""
    bound = _IN_USE.findall(tail)
    if code is not None and code > 0 and bound:
        address, port = bound[-1]
        return (
            f"port {port} on {address} is in use: end what listens there (another agent's Envoy?),"
            " or choose another with dataplane.adminPort (--admin-port)"
        )
    bad = [line for line in tail.splitlines() if "[critical]" in line or "[error]" in line]
    said = bad[-1].split("] ")[-1][:300] if bad else "it says nothing"
    how = "" if code is None else f"exit code {code}, " if code >= 0 else f"{_signal(-code)}, "
    return f"{how}{said} (log: {path})"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
