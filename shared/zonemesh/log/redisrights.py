"""Which Redis commands a control plane's user must be allowed, and which it must not be.

`deploy/redis/users.acl` grants these; `redischecks` compares a server's answers with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from zonemesh.log.keys import Keys, LogKeys
from zonemesh.model import Position
from zonemesh.travel import GLOBAL_LOG, copy_log, own_log, up_log

Command = tuple[str, ...]
"""A command with its arguments; only asked about, never sent."""


@dataclass(frozen=True, slots=True)
class Role:
    """Whose user it is: global's, a zone's where global's log is, or a zone's for its own log."""

    zone: str | None = None
    """None: global's."""
    own_log: bool = False

    @property
    def url(self) -> str:
        """The setting that names the user."""
        return "log.url" if self.own_log else "redis.url"

    @property
    def log(self) -> str:
        """The log that the role cannot do without."""
        return GLOBAL_LOG if self.zone is None or not self.own_log else own_log(self.zone)

    def __str__(self) -> str:
        if self.zone is None:
            return "global"
        return f"the own log of zone {self.zone}" if self.own_log else f"zone {self.zone}"


GLOBAL = Role()

_SHA = "0" * 40
_AT = Position(1, 0)

DANGEROUS: tuple[Command, ...] = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SWAPDB", "0", "1"),
    ("SHUTDOWN", "NOSAVE"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("REPLICAOF", "NO", "ONE"),
    ("ACL", "SETUSER", "x"),
    ("MONITOR",),
    ("KEYS", "*"),
    ("SCRIPT", "FLUSH"),
    ("CLIENT", "KILL", "TYPE", "normal"),
)
"""What nobody needs who reads or writes logs; FLUSHALL and SWAPDB ask for no key's permission."""


def needed(keys: Keys, role: Role) -> tuple[Command, ...]:
    """What a user must be allowed."""
    shared = keys.of(GLOBAL_LOG)
    if role.zone is not None and role.own_log:
        own = keys.of(own_log(role.zone))
        return (*_reading(own), *_writing(own), *_leading(own))
    if role.zone is not None:
        up, copy = keys.of(up_log(role.zone)), keys.of(copy_log(role.zone))
        return (
            ("SADD", keys.zones, role.zone),
            *_reading(shared),
            *(right for log in (up, copy) for right in (*_reading(log), *_writing(log))),
            ("MEMORY", "USAGE", up.log),
        )
    up = keys.of(up_log("x"))
    return (
        *_reading(shared),
        *_writing(shared),
        *_leading(shared),
        *_reading(up),
        ("XREAD", "COUNT", "1", "STREAMS", up.log, keys.of(up_log("y")).log, "0-0", "0-0"),
        ("EVALSHA", _SHA, "1", up.log),
        ("XTRIM", up.log, "MINID", "=", str(_AT)),
        ("MEMORY", "USAGE", up.log),
        ("UNLINK", up.log, up.head),
        ("SMEMBERS", keys.zones),
        ("SREM", keys.zones, "x"),
    )


def forbidden(keys: Keys, role: Role) -> tuple[Command, ...]:
    """What a user must not be allowed, since it would harm others."""
    foreign = ("XADD", "another application's key", "*", "e", "")
    if role.zone is None:
        return (*DANGEROUS, foreign)
    others = [keys.of(name(f"not-{role.zone}")) for name in (up_log, own_log)]
    return (
        *DANGEROUS,
        *_changing(keys.of(GLOBAL_LOG)),
        *(right for log in others for right in (*_changing(log), *_reading(log))),
        ("SMEMBERS", keys.zones),
        ("SREM", keys.zones, role.zone),
        ("UNLINK", keys.zones),
        foreign,
    )


def _reading(log: LogKeys) -> tuple[Command, ...]:
    return (
        ("HMGET", log.head, "incarnation"),
        ("XREAD", "COUNT", "1", "STREAMS", log.log, "0-0"),
        ("XREVRANGE", log.snapshots, "+", "-", "COUNT", "3"),
        ("MGET", log.chunk(_AT, "token", 0)),
    )


def _writing(log: LogKeys) -> tuple[Command, ...]:
    return (
        ("EVALSHA", _SHA, "2", log.log, log.head),
        ("EVAL", "return 1", "2", log.log, log.head),
        ("EXISTS", log.log, log.head),
        ("HGET", log.head, "incarnation"),
        ("XRANGE", log.log, "-", "+"),
        ("PERSIST", log.chunk(_AT, "token", 0)),
        *_changing(log),
    )


def _changing(log: LogKeys) -> tuple[Command, ...]:
    chunk = log.chunk(_AT, "token", 0)
    return (
        ("XADD", log.log, "NOMKSTREAM", str(_AT), "e", ""),
        ("HSET", log.head, "position", str(_AT)),
        ("DEL", log.head),
        ("XTRIM", log.log, "MINID", "=", str(_AT)),
        ("SET", chunk, "", "EX", "3600"),
        ("UNLINK", chunk),
    )


def _leading(log: LogKeys) -> tuple[Command, ...]:
    return (
        ("GET", log.leader),
        ("SET", log.leader, "", "PX", "2000"),
        ("DEL", log.leader),
        ("SET", log.replica("x"), "", "PX", "5000"),
        ("SCAN", "0", "MATCH", f"{log.base}*", "COUNT", "1000"),
    )
