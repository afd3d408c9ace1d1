"""One event per line on stderr: JSON for machines, colours for a terminal, the same keys in both.

stdout stays free for what a command was asked to print.
"""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import threading
from typing import Any, Literal, TextIO

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

_LEVELS: dict[Level, int] = {
    "debug": logging.INFO,  # libraries' debug lines are theirs
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

QUEUE_LINES_MAX = 10_000
"""Lines that wait for a slow reader of stderr. More are dropped and counted: a stuck pipe must not
stop DNS answers. 10,000 lines of 300 bytes are 3 MB."""


def configure(
    level: Level = "info", form: Format = "auto", *, stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's logging for the whole process.

    Args:
        level: Less than this is not written.
        form: `auto` is `console` on a terminal and `json` elsewhere.
        stream: stderr if None.
    """
    stream = stream or sys.stderr
    console = form == "console" or (form == "auto" and stream.isatty())
    writer = _Writer(stream)
    atexit.register(writer.close)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if console else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer(colors=stream.isatty())
            if console
            else structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(_LEVELS[level])
    # One line per request at 4,000 requests a second is a cost, not information.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class _Bridge(logging.Handler):
    """Libraries' records (asyncio, aiohttp, redis) as events of the same shape."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            min(max(record.levelno // 10 * 10, logging.INFO), logging.CRITICAL),
            "library_message",
            logger=record.name,
            message=record.getMessage(),
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


class _Writer:
    """Hands structlog's lines to a thread, so that the event loop never waits for I/O."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUE_LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._drain, name="log-writer", daemon=True)
        self._thread.start()

    def msg(self, line: str, **_: Any) -> None:
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    debug = info = warning = error = exception = critical = log = msg

    def close(self) -> None:
        """Write what waits, for at most two seconds."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(timeout=1.0)

    def _drain(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._stream.write(f"{line}\n")
                if self._dropped:
                    lines, self._dropped = self._dropped, 0
                    self._stream.write(f'{{"event": "log_lines_dropped", "lines": {lines}}}\n')
                if self._queue.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                # stderr is closed or its reader is gone. There is nowhere left to say so.
                self._dropped += 1
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return
