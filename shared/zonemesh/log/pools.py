"""Where connections lead: a server, a master that sentinels name, or a cluster; TLS or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from zonemesh.errors import ConfigError

SENTINEL_PORT = 26379

SENTINEL_TIMEOUT_S = 0.5
"""Per sentinel: a dead one must leave time, within a call's deadline, to ask the next."""

# `legacy_responses` and such are the client's; at this level the protocol alone fixes the shape.
# driver_info: redis-py reads its version from disk on each new connection, within the event loop.
_OPTIONS: dict[str, Any] = {"protocol": 2, "decode_responses": False, "driver_info": None}

_SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")

_CLUSTER_SCHEMES = {"redis+cluster://": "redis://", "rediss+cluster://": "rediss://"}
_PORT = 6379

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class Named(NamedTuple):
    """What an operator calls what is given here, for errors."""

    url: str = "redis.url"
    password_path: str = "redis.passwordPath"  # noqa: S105 -- a key of the configuration


IN_CONFIG = Named()


class ClusterPool(ConnectionPool):
    """Makes connections to any of a cluster's nodes; a redirection tells where the keys are."""

    seeds: tuple[tuple[str, int], ...] = ()


class _PasswordFile(CredentialProvider):
    """A password read from its file for each new connection: it may be changed while we run."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(errors="replace").strip()
        return (password,) if self._username is None else (self._username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return await asyncio.to_thread(self.get_credentials)


def pool_of(
    url: str, password_path: Path | None = None, named: Named = IN_CONFIG
) -> ConnectionPool:
    """What makes the connections: redis://, rediss://, unix://,
    redis+sentinel://[user:password@]host[:port][,host[:port]]/service[/db] or
    redis+cluster://[user:password@]host[:port][,host[:port]].

    A sentinel's own credentials are its `sentinel_username` and `sentinel_password` parameters.
    rediss://, rediss+cluster:// and rediss+sentinel:// (sentinels as well) are TLS and take
    redis-py's `ssl_…` parameters: `ssl_ca_certs`, and `ssl_certfile` and `ssl_keyfile` where the
    server asks for them. These files, and the password's (instead of one in the URL), are read for
    each new connection.

    Raises:
        ConfigError: Not such a URL.
    """
    try:
        if url.startswith(_SENTINEL_SCHEMES):
            pool: ConnectionPool = _sentinel_pool(url)
        elif url.startswith(tuple(_CLUSTER_SCHEMES)):
            pool = _cluster_pool(url)
        else:
            # The URL's parameters first, so that none of them changes what this module relies on.
            pool = ConnectionPool(**{**parse_url(url), **_options()})
        options = pool.connection_kwargs
        if password_path is not None:
            options.pop("password", None)
            username = options.pop("username", None)
            options["credential_provider"] = _PasswordFile(username, password_path)
            if not password_path.is_file():
                raise ConfigError([f"{named.password_path}: there is no file {password_path}"])
        for name in _FILES:
            if options.get(name) and not Path(options[name]).is_file():
                raise ValueError(f"{name}: there is no file {options[name]}")
        new_connection(pool)  # connects nothing; an unknown parameter shows only here
    except (ValueError, TypeError, RedisError) as error:
        raise ConfigError([f"{named.url}: {error}"]) from error
    return pool


def _options() -> dict[str, Any]:
    # No timeouts of its own: `exchange` has one around the whole. wait_for, which redis-py would
    # use for each write, costs a task each time on Python 3.11.
    return {**_OPTIONS, "socket_timeout": None, "retry": Retry(NoBackoff(), 0)}


def _sentinel_pool(url: str) -> SentinelConnectionPool:
    parts = urlsplit(url)
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("redis+sentinel:// needs the service's name: …/service[/db]")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    tls = _tls(query) if parts.scheme == "rediss+sentinel" else {}
    theirs = {
        **tls,
        "username": query.pop("sentinel_username", None),
        "password": query.pop("sentinel_password", None),
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
    }
    if query:
        raise ValueError(f"{parts.scheme}:// has no parameter {', '.join(sorted(query))}")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py annotates it in part
        [_address(one, SENTINEL_PORT) for one in addresses.split(",")], sentinel_kwargs=theirs
    )
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]  # as above
        service,
        sentinel,
        db=int(db or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        **tls,
        **_options(),
    )


def _cluster_pool(url: str) -> ClusterPool:
    parts = urlsplit(url)
    credentials, at, addresses = parts.netloc.rpartition("@")
    if parts.path.strip("/"):
        raise ValueError(f"{parts.scheme}:// has no path: a cluster has one database")
    seeds = tuple(_address(one, _PORT) for one in addresses.split(","))
    first = addresses.partition(",")[0]
    scheme = _CLUSTER_SCHEMES[f"{parts.scheme}://"]
    pool = ClusterPool(
        **{**parse_url(f"{scheme}{credentials}{at}{first}?{parts.query}"), **_options()}
    )
    pool.seeds = seeds
    return pool


def _tls(query: dict[str, str]) -> dict[str, Any]:
    """Take the `ssl_…` parameters out of a query."""
    taken = {name: query.pop(name) for name in list(query) if name.startswith("ssl_")}
    found: dict[str, Any] = {**parse_url(f"rediss://host?{urlencode(taken)}")}
    return {"ssl": True, **{name: found[name] for name in taken}}


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is not host[:port]")
    return parts.hostname, parts.port or port


def new_connection(pool: ConnectionPool) -> AbstractConnection:
    connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
    return cast("AbstractConnection", connection)
