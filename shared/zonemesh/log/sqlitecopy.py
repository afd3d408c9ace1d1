"""A consistent copy of a log's SQLite file, also of one that a process writes to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from zonemesh.errors import ConfigError, NotFoundError, UnavailableError
from zonemesh.log.sqlite import APPLICATION_ID, SCHEMA

_BUSY_S = 5.0


def copy_of(path: Path, to: Path) -> str:
    """Copy a file by SQLite's own backup, in one read transaction; answers the log's name.

    The file is only read. Blocks: to be run in a thread of its own.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is no log of ours, or damaged.
        UnavailableError: It is locked, or the copy cannot be written.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            (application,) = source.execute("PRAGMA application_id").fetchone()
            (version,) = source.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise ConfigError([f"{path}: not a log of Zonemesh"])
            if version > SCHEMA:
                raise ConfigError(
                    [f"{path}: schema {version}, this build knows {SCHEMA}; use a newer zonemesh"]
                )
            source.backup(target)
            (name,) = target.execute("SELECT name FROM log").fetchone()
            return str(name)
    except (sqlite3.OperationalError, OSError) as error:
        raise UnavailableError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise ConfigError([f"{path}: {error}; use another copy of the file"]) from error
