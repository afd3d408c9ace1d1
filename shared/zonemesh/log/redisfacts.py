"""Asking a Redis for the facts that `redischecks` judges; changes nothing there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from zonemesh.errors import UnavailableError
from zonemesh.log.connections import Connections, Reply
from zonemesh.log.keys import Keys
from zonemesh.log.redischecks import SETTINGS, Facts
from zonemesh.log.redisrights import Command, Role, forbidden, needed
from zonemesh.log.scripts import MAY

_SECTIONS = ("server", "memory", "persistence", "replication")  # several at once only from 7.0 on


async def facts_of(connections: Connections, keys: Keys, role: Role) -> Facts:
    """Ask a server.

    Raises:
        UnavailableError: It does not answer.
    """
    await connections.call("ECHO", "zonemesh")
    # Of a cluster's nodes the one that has our keys is meant; INFO by itself goes to any.
    await _asked(connections, "HMGET", keys.of(role.log).head, "incarnation")
    user = await _asked(connections, "ACL", "WHOAMI")
    return Facts(
        where=connections.where,
        user=None if user is None else user.decode(errors="replace"),
        role=role,
        info=await _info(connections),
        settings=await _settings(connections),
        needed=await _allowed(connections, needed(keys, role)),
        forbidden=await _allowed(connections, forbidden(keys, role)),
        private=connections.private,
        sentinels=connections.sentinels,
    )


async def _info(connections: Connections) -> Mapping[str, str] | None:
    found: dict[str, str] = {}
    for section in _SECTIONS:
        text = await _asked(connections, "INFO", section)
        if text is None:
            return None
        lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
        found |= {name: value for name, colon, value in lines if colon}
    return found


async def _settings(connections: Connections) -> Mapping[str, str] | None:
    found: dict[str, str] = {}
    for name in SETTINGS:  # several at once only from 7.0 on
        pair = await _asked(connections, "CONFIG", "GET", name)
        if pair is None:
            return None
        if pair:  # empty: a setting of a later Redis
            found[name] = pair[1].decode()
    return found


async def _allowed(
    connections: Connections, commands: Sequence[Command]
) -> Mapping[Command, bool] | None:
    """Whether this user may do each; the server judges, and does nothing.

    Not ACL DRYRUN: that is an administrator's command, and a script may ask for its own user.
    """
    words = [word for command in commands for word in (str(len(command)), *command)]
    answers = await _asked(connections, "EVAL", MAY, "0", *words)
    if answers is None or len(answers) != len(commands):
        return None
    return {command: bool(answer) for command, answer in zip(commands, answers, strict=True)}


async def _asked(connections: Connections, *command: str) -> Reply:
    """A reply; None if the server refuses to say."""
    try:
        return await connections.call(*command)
    except UnavailableError as error:
        if isinstance(error.__cause__, ResponseError):
            return None
        raise
