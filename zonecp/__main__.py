"""Where the console script `zonecp` and `python -m zonecp` begin."""

import sys

# structlog imports rich's traceback renderer wherever rich is installed: 7 MB that no server uses.
# Only here, in a process of its own: the operator's command draws with rich.
sys.modules["rich"] = None  # type: ignore[assignment]

from zonecp.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
