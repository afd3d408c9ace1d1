"""Where the console script `zonedp` and `python -m zonecp.dataplane` begin."""

import sys

# structlog imports rich's traceback renderer wherever rich is installed: 7 MB that no server uses.
# Only here, in a process of its own: the operator's command draws with rich.
sys.modules["rich"] = None  # type: ignore[assignment]

from zonecp.dataplane.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
