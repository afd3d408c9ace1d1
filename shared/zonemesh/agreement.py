"""Whether a copy of a state is the one that others have, and how often it is tried to mend it."""

from __future__ import annotations

TRIES_MAX = 3
"""Reloads in a row without an agreement in between. Beyond that the fault is not in this copy: the
writer's, or of a build that makes another state of the same log."""


class Agreement:
    """Counts comparisons that failed; decides whether to load the state anew."""

    def __init__(self) -> None:
        self.comparisons = 0
        self.mismatches = 0
        self.unmended: str | None = None
        """What does not agree and was given up; None while all is well or still being mended."""
        self._tries = 0

    def found(self, *, equal: bool, what: str) -> bool:
        """Note a comparison; True if the copy is to be loaded anew because of it."""
        self.comparisons += 1
        if equal:
            self._tries, self.unmended = 0, None
            return False
        self.mismatches += 1
        if self._tries < TRIES_MAX:
            self._tries += 1
            return True
        self.unmended = what
        return False
