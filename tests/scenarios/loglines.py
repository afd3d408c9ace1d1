"""What the processes of a scenario log, kept for whoever has to explain its failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from tests.scenarios.virtualtime import current, now_s

_LOG: deque[str] = deque(maxlen=400)


def note_log(_: Any, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: keeps the newest lines and writes none."""
    facts = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
    _LOG.append(f"{now_s():9.3f} {current():9} {level:7} {event.get('event')} {facts}")
    raise structlog.DropEvent


def newest_log(lines: int = 60) -> str:
    return "\n".join(list(_LOG)[-lines:])


def forget_log() -> None:
    _LOG.clear()
