"""How old the newest thing applied of a log is, without trusting that two clocks agree.

A reader cannot know when an entry was written, only that it was neither before a moment when it had
read all there was, nor less long after the entry before than that log's own time has advanced. The
age told is the least that both allow, so it may be told too old by a second, never too young: a
writer that died while the link was cut is as old as it is when the link is back.
"""

from __future__ import annotations


class Freshness:
    """The age of one log's newest applied entry; every `now_s` is of one monotonic clock."""

    def __init__(self) -> None:
        self._age_s: float | None = None
        self._at_s = 0.0
        """When it was that old."""
        self._log_time_ms = 0
        self._all_s: float | None = None
        """A moment as of which everything was read."""

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

    def applied(self, log_time_ms: int, now_s: float) -> None:
        """A later entry was applied; `log_time_ms` is its own.

        Not to be called before `guess`.
        """
        before_s = self.age_s(now_s)
        assert before_s is not None
        age_s = before_s - (log_time_ms - self._log_time_ms) / 1000
        if self._all_s is not None:
            age_s = min(age_s, now_s - self._all_s)
        self.guess(age_s, log_time_ms, now_s)

    def read_all(self, as_of_s: float) -> None:
        """As of a moment, there was nothing but what has been applied."""
        self._all_s = as_of_s
