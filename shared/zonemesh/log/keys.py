"""What the keys of a Redis are called: every one begins with the prefix in braces.

The braces are a hash tag: all keys of a mesh share one slot, so that a script may touch several of
them, and one XREAD may follow every zone, on Redis Cluster too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from zonemesh.errors import ConfigError, InputError
from zonemesh.model import Position

PREFIX = "zm"

_LOG_NAME = re.compile(r"global(?::copy)?|zone:[^\s:{}]+:(?:up|own|copy)")
_PREFIX = re.compile(r"[^\s{}]+")
_GLOB = re.compile(r"([*?\[\]\\])")


class LogKeys(NamedTuple):
    """The keys of one log."""

    base: str

    @property
    def log(self) -> str:
        """Stream; an entry's ID is its position, its one field `e` its bytes."""
        return f"{self.base}:log"

    @property
    def head(self) -> str:
        """Hash {incarnation, position, h, time, owner, format}."""
        return f"{self.base}:head"

    @property
    def snapshots(self) -> str:
        """Stream of announcements; an entry's ID is the snapshot's position."""
        return f"{self.base}:snapshots"

    @property
    def leader(self) -> str:
        """String; expires."""
        return f"{self.base}:leader"

    def chunk(self, position: Position, token: str, index: int) -> str:
        """String; one chunk of a snapshot.

        `token` is random per attempt. Without it a deposed leader that wakes in the middle of its
        snapshot would write into the chunks of an announced one of the same position.
        """
        return f"{self.base}:snapshot:{position}:{token}:{index}"

    def replica(self, writer: str) -> str:
        """String; expires."""
        return f"{self.base}:replica:{writer}"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix."""

    prefix: str = PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(
                [f"redis.keyPrefix: {self.prefix!r} is empty or has braces or spaces"]
            )

    @property
    def zones(self) -> str:
        """Set of every announced zone."""
        return f"{{{self.prefix}}}:zones"

    def of(self, log_name: str) -> LogKeys:
        """The keys of a log.

        Raises:
            InputError: Not the name of a log; a colon in a zone's name would reach other keys.
        """
        if not _LOG_NAME.fullmatch(log_name):
            raise InputError(
                f"{log_name!r} is not global, zone:<name>:up or zone:<name>:own, or a copy"
            )
        return LogKeys(f"{{{self.prefix}}}:{log_name}")


def beginning_with(text: str) -> str:
    """A SCAN pattern for the keys that begin with `text`."""
    return _GLOB.sub(r"\\\1", text) + "*"
