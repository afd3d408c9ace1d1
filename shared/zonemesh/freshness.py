"""How old the newest thing applied of a log is, without trusting that two clocks agree.

A reader cannot know when an entry was made, only that it was neither before the entry before it had
been taken by the store, nor less long after that one than the log's own time has advanced. The age
told is the least that both allow, so it may be told too old by a second, never too young: a writer
that died while the link was cut is as old as it is when the link is back.

That there was nothing to read until a moment says of the next entry only that it was taken after
it. It may have been made long before, and have waited for the store: what its writer came to know
meanwhile is not in it. The entry after it tells, by what log time has advanced in between.

Log time does not count that nobody wrote: the first entry of a term, and one after a long wait for
the store, say by `PAUSED_MS` how much more time than that has passed, as far as the writer knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PAUSED_MS: Final = "paused_ms"
"""Key of an entry's note: real time since the entry before, by the writer's monotonic clock, that
`mono_delta_ms` does not count."""


def paused_ms(note: Mapping[str, Any]) -> int:
    """By an entry's note, which may have any shape."""
    told = note.get(PAUSED_MS)
    return max(0, told) if type(told) is int else 0


class Freshness:
    """The age of one log's newest applied entry; every `now_s` is of one monotonic clock."""

    def __init__(self) -> None:
        self._age_s: float | None = None
        self._at_s = 0.0
        """When it was that old."""
        self._log_time_ms = 0
        self._all_s: float | None = None
        """A moment as of which everything was read."""
        self._taken_s: float | None = None
        """A moment after which the store had taken the entry."""
        self.there_s: float | None = None
        """A moment by which the entry had been written."""

    @property
    def known(self) -> bool:
        return self._age_s is not None

    def age_s(self, now_s: float) -> float | None:
        """None before anything is known."""
        return None if self._age_s is None else self._age_s + now_s - self._at_s

    def guess(self, age_s: float, log_time_ms: int, now_s: float) -> None:
        """What wall clocks say of what is held at the start; replaced by what is seen."""
        self._age_s, self._at_s = max(0.0, age_s), now_s
        self._log_time_ms = log_time_ms
        self.there_s = now_s

    def written(self, at_s: float, log_time_ms: int) -> None:
        """The newest entry is one that was made here, then."""
        self.guess(0.0, log_time_ms, at_s)

    def applied(self, log_time_ms: int, now_s: float, *, paused_ms: int = 0) -> None:
        """Later entries were applied.

        Not to be called before `guess`.

        Args:
            log_time_ms: The newest one's.
            now_s: As ever.
            paused_ms: What they say has passed besides.
        """
        before_s = self.age_s(now_s)
        assert before_s is not None
        passed_s = (log_time_ms - self._log_time_ms + paused_ms) / 1000
        age_s = before_s - passed_s
        if self._taken_s is not None:
            made_s = self._taken_s + passed_s  # unless the entry before had waited
            age_s = min(age_s, now_s - (made_s if made_s <= now_s else self._taken_s))
        self._taken_s = self._all_s
        self.guess(age_s, log_time_ms, now_s)

    def read_all(self, as_of_s: float) -> None:
        """As of a moment, there was nothing but what has been applied."""
        self._all_s = as_of_s
