"""Programs run beside the agent: asked a question, or for as long as the agent runs, however that
ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

STOP_S: Final = 3.0
"""Between SIGTERM and SIGKILL."""

LINE_BYTES_MAX: Final = 8 << 10
"""Of its output; the rest of a longer line is passed over."""

# PR_SET_PDEATHSIG outlives execv, but not fork: hence a program in between, which is gone at once.
# Not a preexec_fn: it runs Python in the fork of a process with threads.
_WITH_PARENT: Final = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def running(
    program: Path, *arguments: str, said: Callable[[str], None]
) -> AsyncGenerator[Process]:
    """Run a program for as long as this context.

    Args:
        program: Its file, which has been found to be executable.
        arguments: Without its own name.
        said: Told each line of its output.

    Raises:
        OSError: It could not be started.
    """
    command = [str(program), *arguments]
    if sys.platform == "linux":
        command = [sys.executable, "-ISc", _WITH_PARENT, str(os.getpid()), *command]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, limit=LINE_BYTES_MAX
    )
    assert process.stdout is not None
    listening = asyncio.create_task(_listen(process.stdout, said))
    try:
        yield process
    finally:
        await _end(process)
        # What it said last is there by now; a child of its own may hold the pipe open.
        await asyncio.wait({listening}, timeout=1.0)
        listening.cancel()


async def output_of(program: Path, *arguments: str, timeout_s: float, stderr: int = DEVNULL) -> str:
    """All that a program prints, which ends by itself; STDOUT as `stderr`: its errors too.

    Raises:
        OSError: It could not be started.
        TimeoutError: It does not end.
    """
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdin=DEVNULL, stdout=PIPE, stderr=stderr
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output.decode(errors="replace")


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listen(output: asyncio.StreamReader, said: Callable[[str], None]) -> None:
    while True:
        try:
            line = await output.readline()
        except ValueError:  # longer than the limit; what was read of it is gone
            continue
        if not line:
            return
        if text := line.decode(errors="replace").strip():
            said(text)
