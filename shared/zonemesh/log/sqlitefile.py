"""Reading a log's file beside the process that writes it: nothing is made, locked or changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.log.port import Head, Raw
from zonemesh.log.sqlite import read_entries, read_head
from zonemesh.model import Position

_BUSY_S = 2.0


class SqliteFile:
    """One file, read by one thread.

    Raises:
        ConfigError: No such file, or none of ours.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError([f"{path}: no such file"])
        self._path = path
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
        try:
            (self.name,) = self._connection.execute("SELECT name FROM log").fetchone()
        except (sqlite3.Error, TypeError) as error:
            self._connection.close()
            raise ConfigError([f"{path}: not a log of Zonemesh ({error})"]) from error

    def head(self) -> Head | None:
        try:
            return read_head(self._connection)
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path}: {error}") from error

    def read(self, after: Position, count: int) -> Sequence[Raw]:
        try:
            return read_entries(self._connection, after, count)
        except sqlite3.Error as error:
            raise UnavailableError(f"{self._path}: {error}") from error

    def close(self) -> None:
        self._connection.close()
