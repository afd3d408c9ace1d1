"""The two clocks a log is written by, passed in so that simulation can turn them itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

MONO_DELTA_MAX_MS = 5_000
"""A pause longer than this counts as this much log time: a log that stood still expires nothing."""


@dataclass(frozen=True, slots=True)
class Clock:
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    """Shown and used for lag; may jump."""
    mono_s: Callable[[], float] = time.monotonic
    """Never jumps; differences only."""
