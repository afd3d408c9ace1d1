"""What the agent's diagnostics port and `zonedp` as its client agree on."""

from typing import Final

STATUS: Final = "/status"
LOOKUP: Final = "/lookup"
QUERY_LOG: Final = "/querylog"

QUERY_LOG_S: Final = 300
"""For how long it is on if nobody says otherwise: at 3 a.m. it is forgotten."""

QUERY_LOG_S_MAX: Final = 86_400
