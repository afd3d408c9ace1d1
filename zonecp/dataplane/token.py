"""The agent's token, sent to the control plane with each request."""

from __future__ import annotations

from pathlib import Path

import structlog

from zonecp.dataplane.config import DataplaneRuntime
from zonemesh.errors import ConfigError

log = structlog.get_logger(__name__)

TOKEN_BYTES_MAX = 64 << 10


class Token:
    """Read anew for each request where it is in a file: tokens are replaced while agents run."""

    def __init__(self, runtime: DataplaneRuntime) -> None:
        """Raises ConfigError: The file cannot be read, or is empty."""
        self._path = runtime.token_path
        self._token = runtime.token or ""
        self._unreadable = False
        if self._path is not None:
            try:
                self._token = _read(self._path)
            except (OSError, ValueError) as error:
                raise ConfigError([f"dataplaneRuntime.tokenPath: {_why(error)}"]) from error

    def headers(self) -> dict[str, str]:
        if self._path is not None:
            try:
                self._token, self._unreadable = _read(self._path), False
            except (OSError, ValueError) as error:
                if not self._unreadable:
                    log.warning("token_unreadable", error=_why(error), goes_on_with="the last one")
                self._unreadable = True
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _read(path: Path) -> str:
    """Raises OSError; ValueError: not one line of text that a header can hold."""
    with path.open("rb") as file:
        token = file.read(TOKEN_BYTES_MAX + 1).decode("ascii").strip()
    if not token or len(token) > TOKEN_BYTES_MAX or not token.isprintable():
        raise ValueError(f"{path}: is not a token")
    return token


def _why(error: OSError | ValueError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
