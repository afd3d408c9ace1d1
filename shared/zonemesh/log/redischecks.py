"""What is wrong with a Redis for logs, and what to do about it: rules over facts.

Rules only: `redisfacts` asks the server. Settings that a rule speaks of are those of redis.conf;
names of facts are those of INFO and CONFIG GET.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from zonemesh.log.redisrights import GLOBAL, Command, Role

VERSION_MIN = (6, 2)
VERSION_RIGHTS = (7, 0)
"""From here on a user's rights tell reading (%R~) from writing (%W~), and can be asked for."""

SETTINGS = (
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "min-replicas-to-write",
    "min-replicas-max-lag",
)
"""What INFO does not tell."""

MEMORY_ALARM = 0.7
_MEMORY_FULL = 0.9
_LAG_S_MAX = 10
_SENTINELS_MIN = 3
_COMMANDS_SHOWN = 4

Severity = Literal["error", "warning", "unknown"]
"""`error`: entries are refused, or an ordinary fault loses whole logs. `unknown`: this user may not
ask."""

_ORDER: tuple[Severity, ...] = ("error", "warning", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    code: str
    """Stable: a log key, and what a document speaks of."""
    what: str
    where: str
    """host:port of the server."""
    remedy: str
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was learnt of a server; None where its user's rights do not allow to ask."""

    where: str
    user: str | None = None
    role: Role = GLOBAL
    """Whose user it should be."""
    info: Mapping[str, str] | None = None
    """INFO's server, memory, persistence and replication sections."""
    settings: Mapping[str, str] | None = None
    needed: Mapping[Command, bool] | None = None
    """Whether the user is allowed each command of `redisrights.needed`."""
    forbidden: Mapping[Command, bool] | None = None
    private: bool = True
    """TLS, a Unix socket, or loopback."""
    sentinels: int | None = None
    """How many the URL names; None: it names the server itself."""

    @property
    def version(self) -> tuple[int, ...] | None:
        text = None if self.info is None else self.info.get("redis_version")
        return None if text is None else version_of(text)

    def number(self, name: str) -> int:
        """A count of INFO; 0 if it is absent or no number."""
        text = (self.info or {}).get(name, "")
        return int(text) if text.isdecimal() else 0

    def setting(self, name: str) -> int:
        text = (self.settings or {}).get(name, "")
        return int(text) if text.isdecimal() else 0


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def weaknesses_of(facts: Facts) -> list[Weakness]:
    """All of them, errors first."""
    found = [weakness for rule in _RULES for weakness in rule(facts)]
    return sorted(found, key=lambda one: _ORDER.index(one.severity))


def _found(facts: Facts, severity: Severity, code: str, what: str, remedy: str) -> Weakness:
    return Weakness(code=code, what=what, where=facts.where, remedy=remedy, severity=severity)


def _version(facts: Facts) -> Iterator[Weakness]:
    version = facts.version
    if version is None:
        return
    text = ".".join(map(str, version))
    if version < VERSION_MIN:
        yield _found(
            facts, "error", "too_old", f"Redis {text} is too old", "install Redis 6.2 or later"
        )
    elif version < VERSION_RIGHTS:
        yield _found(
            facts,
            "warning",
            "old",
            f"Redis {text}: a user's rights cannot tell reading from writing",
            "install Redis 7.0 or later before zones get users of their own",
        )


def _persistence(facts: Facts) -> Iterator[Weakness]:
    info = facts.info or {}
    if info.get("aof_enabled") == "0":
        with_replicas = facts.number("connected_slaves") > 0
        yield _found(
            facts,
            "error",
            "not_durable",
            "appendonly is no: a restart loses what was written since the last RDB file"
            + (", on its replicas as well" if with_replicas else ""),
            "CONFIG SET appendonly yes, and the same in redis.conf",
        )
    for name, file in (
        ("aof_last_write_status", "append-only file"),
        ("aof_last_bgrewrite_status", "rewritten append-only file"),
        ("rdb_last_bgsave_status", "RDB file"),
    ):
        if info.get(name, "ok") != "ok":
            yield _found(
                facts,
                "error",
                "disk_fails",
                f"its last write of the {file} failed ({name})",
                "free its disk, look into its log",
            )


def _fsync(facts: Facts) -> Iterator[Weakness]:
    settings = facts.settings or {}
    if settings.get("appendfsync") == "no":
        yield _found(
            facts,
            "warning",
            "never_synced",
            "appendfsync is no: a power cut loses up to 30 s",
            "CONFIG SET appendfsync everysec (or always), and the same in redis.conf",
        )
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        yield _found(
            facts,
            "warning",
            "not_synced_on_rewrite",
            "no-appendfsync-on-rewrite is yes: a power cut during a rewrite loses all since then",
            "CONFIG SET no-appendfsync-on-rewrite no, and the same in redis.conf",
        )


def _memory(facts: Facts) -> Iterator[Weakness]:
    info = facts.info or {}
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield _found(
            facts,
            "error",
            "may_evict",
            f"maxmemory-policy is {policy}: a whole log may be dropped when memory is short",
            "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
        )
    most = facts.number("maxmemory")
    limit = most or facts.number("total_system_memory")
    share = facts.number("used_memory") / limit if limit else 0.0
    if share >= MEMORY_ALARM:
        of = "maxmemory" if most else "the machine's memory"
        yield _found(
            facts,
            "error" if share >= _MEMORY_FULL else "warning",
            "memory_nearly_full",
            f"{share:.0%} of {of} is used: when it is full, every append is refused",
            "raise maxmemory, or find what else is stored there",
        )


def _replication(facts: Facts) -> Iterator[Weakness]:
    if (facts.info or {}).get("role") == "slave":
        yield _found(
            facts,
            "error",
            "replica",
            "it is a replica: it takes no appends",
            f"let {facts.role.url} lead to the master (redis+sentinel:// follows it)",
        )
        return
    replicas = facts.number("connected_slaves")
    offline = sum("state=online" not in line for line in _replicas(facts))
    if offline:
        yield _found(
            facts,
            "warning",
            "replica_not_in_step",
            f"{offline} of {replicas} replicas are not in step: a failover to one loses entries",
            "look into the replica's log",
        )
    if facts.info is not None and facts.settings is not None:
        yield from _min_replicas(facts, replicas)


def _replicas(facts: Facts) -> Iterable[str]:
    info = facts.info or {}
    return (text for name, text in info.items() if name[:5] == "slave" and name[5:].isdecimal())


def _min_replicas(facts: Facts, replicas: int) -> Iterator[Weakness]:
    least, lag_s = facts.setting("min-replicas-to-write"), facts.setting("min-replicas-max-lag")
    on = least > 0 and lag_s > 0  # either at 0 switches it off
    if on and least > replicas:
        yield _found(
            facts,
            "error",
            "too_few_replicas",
            f"min-replicas-to-write is {least}, and {replicas} are connected: appends are refused",
            "start the replicas, or lower min-replicas-to-write",
        )
    if replicas and not on:
        yield _found(
            facts,
            "warning",
            "no_min_replicas",
            "min-replicas-to-write is 0: a master cut off from its replicas goes on taking entries"
            " that are lost once one of them is promoted",
            f"CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag {_LAG_S_MAX},"
            " on every server",
        )
    if on and lag_s > _LAG_S_MAX:
        yield _found(
            facts,
            "warning",
            "long_replica_lag",
            f"min-replicas-max-lag is {lag_s} s: for so long a master that was cut off goes on",
            f"CONFIG SET min-replicas-max-lag {_LAG_S_MAX}",
        )


def _sentinels(facts: Facts) -> Iterator[Weakness]:
    if facts.sentinels is not None and facts.sentinels < _SENTINELS_MIN:
        yield _found(
            facts,
            "warning",
            "few_sentinels",
            f"{facts.role.url} names {facts.sentinels} sentinels: if they are away, nobody tells"
            " who is master",
            f"name {_SENTINELS_MIN} of them, each on a machine of its own",
        )


def _transport(facts: Facts) -> Iterator[Weakness]:
    if not facts.private:
        yield _found(
            facts,
            "warning",
            "clear_text",
            "the password and all entries cross the network in clear text",
            "use rediss:// (rediss+sentinel://)",
        )


def _rights(facts: Facts) -> Iterator[Weakness]:
    user = f"user {facts.user}" if facts.user is not None else "its user"
    if missing := _named(facts.needed, allowed=False):
        yield _found(
            facts,
            "error",
            "rights_too_narrow",
            f"{user} may not do what {facts.role} needs: {missing}",
            "give it the rights that deploy/redis/users.acl has, then ACL SAVE or ACL LOAD",
        )
    if excess := _named(facts.forbidden, allowed=True):
        yield _found(
            facts,
            "warning",
            "rights_too_wide",
            f"{user} may do what {facts.role} must not: {excess}",
            "make a user with the rights that deploy/redis/users.acl has, and name it in"
            f" {facts.role.url}",
        )


def _named(answers: Mapping[Command, bool] | None, *, allowed: bool) -> str:
    found = [
        " ".join(command[:2]) for command in answers or {} if (answers or {})[command] is allowed
    ]
    more = len(found) - _COMMANDS_SHOWN
    return ", ".join(found[:_COMMANDS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _not_asked(facts: Facts) -> Iterator[Weakness]:
    if facts.info is None:
        yield _found(
            facts,
            "unknown",
            "info_refused",
            "version, persistence, memory and replicas could not be checked: INFO is refused",
            "grant +info, or check with a user who may",
        )
    if facts.settings is None:
        yield _found(
            facts,
            "unknown",
            "config_refused",
            "appendfsync and min-replicas-to-write could not be checked: CONFIG GET is refused",
            "rightly so for a control plane's user: check with an administrator's",
        )
    if facts.needed is None:
        yield _found(
            facts,
            "unknown",
            "rights_unknown",
            "the user's rights could not be checked: that needs Redis 7.0 and EVAL",
            "compare them with deploy/redis/users.acl by hand",
        )


_RULES: tuple[Callable[[Facts], Iterator[Weakness]], ...] = (
    _version,
    _persistence,
    _memory,
    _replication,
    _fsync,
    _sentinels,
    _transport,
    _rights,
    _not_asked,
)
