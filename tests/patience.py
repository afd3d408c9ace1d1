"""How long tests wait for what must come: no bound of theirs, and no claim about time."""

from __future__ import annotations

SLOWER = 3
"""A loaded machine of CI, than where the seconds were chosen that tests name."""
