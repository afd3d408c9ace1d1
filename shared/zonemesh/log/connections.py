"""Connections to one Redis: a deadline, no retries, and no unread reply left behind.

redis-py's client would do more than is wanted: it re-sends a timed-out command ten times (an XADD
too), cuts a blocking read after 5 s in silence, and hands a cancelled read's connection to the next
caller, who then gets the wrong reply (redis-py #2624, #2665). So its connections are used, and its
client and pool are not. This is also the one place that turns redis-py's errors into ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
)
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.exceptions import (
    AskError,
    DataError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from zonemesh.errors import UnavailableError, WrongKeyError
from zonemesh.log.pools import IN_CONFIG, SENTINEL_TIMEOUT_S, ClusterPool, Named, new_connection
from zonemesh.log.scripts import Script

Command = Sequence[str | bytes | int]
Reply = Any
"""What RESP2 knows: bytes, int, None and lists of them."""

_MASTER_EVERY_S = 1.0
"""A master that was failed over takes writes until it is demoted, up to 11 s later (measured): all
of them are lost. Asking the sentinels again bounds how long we are a party to that."""

_MASTER_RETRY_S = 10.0
"""After no sentinel answered: the master may be well, and must not be slowed down by asking."""

_CLOSED = "the handler is closed"

_ADVICE = (
    ("NOAUTH", "it wants a password: give one in {0.url}"),
    ("WRONGPASS", "it refuses the user or password in {0.url} (or {0.password_path})"),
    ("NOPERM", "its ACL denies this user a command or key that is needed"),
    ("executing the script can't", "its ACL denies this user a command that a script needs"),  # 6.2
    ("ACL failure", "its ACL denies this user a command that a script needs"),  # 7.0
    ("WRONGTYPE", "a key is not ours: give this mesh another redis.keyPrefix"),
    ("OOM", "its memory is full: raise maxmemory"),
    ("READONLY", "it is a replica now: {0.url} must lead to the master"),
    ("MISCONF", "it cannot write to its disk"),
    ("NOREPLICAS", "too few of its replicas are connected (min-replicas-to-write)"),
    ("CLUSTERDOWN", "its cluster is down: look at CLUSTER INFO"),
    ("LOADING", "it is still loading its data"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not what {0.url} expects (ssl_ca_certs)"),
    ("CERTIFICATE_REQUIRED", "it wants a certificate: ssl_certfile and ssl_keyfile in {0.url}"),
    ("UNKNOWN_CA", "it does not know the CA of our certificate (ssl_certfile in {0.url})"),
    ("unknown command", "it is too old or the command is disabled: Redis 6.2 or later is needed"),
)


_ENDED = ("reset by peer", "Connection closed by server")
"""How a server that refuses our certificate may look: by TLS 1.3 it says so when we are done."""


class Connections:
    """Lends a connection to one exchange at a time; keeps the idle ones.

    Args:
        pool: Makes the connections.
        timeout_s: For a whole exchange: waiting for a connection, connecting, writing, reading.
        limit: How many exchanges may be under way; more wait. Bounds the sockets.
        named: What errors call the URL that the pool was made of.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        timeout_s: float,
        limit: int,
        named: Named = IN_CONFIG,
    ) -> None:
        self._pool = pool
        self._named = named
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[AbstractConnection] = []
        self._node: tuple[str, int] | None = None
        """Where a cluster's redirection or the sentinels say that all our keys are."""
        self._seed = 0
        """Which of a cluster's known nodes to ask where our keys are."""
        self._ask_master_s = 0.0
        self._closed = False
        self._tls = issubclass(pool.connection_class, SSLConnection)
        self.fault: str | None = None
        """Why the newest exchange failed; None if it did not."""

    @property
    def where(self) -> str:
        """Address of the server that the newest connection leads to, or was to lead to."""
        if (node := self._known_node()) is not None:
            return _address_text(*node)
        options = self._pool.connection_kwargs
        return str(options.get("path") or _address_text(options.get("host"), options.get("port")))

    @property
    def private(self) -> bool:
        """Whether nobody on a network can listen: TLS, loopback or a Unix socket."""
        connection = new_connection(self._pool)
        if self._node is None and isinstance(self._pool, SentinelConnectionPool):
            return True  # nobody has told yet where the master is
        if isinstance(connection, SSLConnection) or not isinstance(connection, Connection):
            return True
        host = connection.host if self._node is None else self._node[0]
        return host == "localhost" or _is_loopback(host)

    @property
    def sentinels(self) -> int | None:
        """How many sentinels were given; None: the server itself was."""
        if not isinstance(self._pool, SentinelConnectionPool):
            return None
        return len(self._pool.sentinel_manager.sentinels)

    async def call(self, *command: str | bytes | int, extra_s: float = 0.0) -> Reply:
        """Send one command.

        Args:
            command: Name and arguments.
            extra_s: How much longer than other commands it may take: it blocks.

        Raises:
            UnavailableError: No answer within the deadline, or an error reply.
        """
        (reply,) = await self._exchange((command,), extra_s)
        if isinstance(reply, ResponseError):
            raise self._unavailable(reply) from reply
        return reply

    async def calls(self, commands: Sequence[Command]) -> list[Reply]:
        """Send several commands at once; not a transaction.

        Raises:
            UnavailableError: As `call`; any of them may have been done.
        """
        replies = await self._exchange(commands, 0.0)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise self._unavailable(reply) from reply
        return replies

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Reply:
        """Run a script, sending its text only to a server that does not have it (any more)."""
        (reply,) = await self.run_then(script, keys, arguments)
        return reply

    async def run_then(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int],
        *then: Command,
    ) -> list[Reply]:
        """Run a script and, behind it on the same connection, further commands.

        Raises:
            UnavailableError: The script failed; it may have been run. An error reply to one of the
                others is not raised: it comes in that one's place.
        """
        rest = (len(keys), *keys, *arguments)
        replies = await self._exchange((("EVALSHA", script.sha, *rest), *then), 0.0)
        if isinstance(replies[0], NoScriptError):
            replies = await self._exchange((("EVAL", script.text, *rest), *then), 0.0)
        if isinstance(replies[0], ResponseError):
            raise self._unavailable(replies[0]) from replies[0]
        return replies

    async def close(self) -> None:
        """Disconnect; exchanges under way end, later ones fail."""
        self._closed = True
        await self._forget()
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                with suppress(RedisError, OSError):  # a dead one says no farewell
                    await sentinel.aclose()

    async def _exchange(self, commands: Sequence[Command], extra_s: float) -> list[Reply]:
        if self._closed:
            raise UnavailableError("redis: closed")
        try:
            async with asyncio.timeout(self._timeout_s + extra_s), self._slots:
                replies = await self._exchange_now(commands)
                if any(isinstance(reply, MovedError) for reply in replies):  # none was done
                    replies = await self._exchange_now(commands)
                self.fault = self._fault_of(replies)
                return replies
        except DataError:
            raise  # not a string, bytes or int: our own mistake
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._seed += 1
            await self._forget()  # most likely the idle ones lead to the same dead end
            found = self._unavailable(error)
            if self._tls and any(mark in str(error) for mark in _ENDED):
                found = UnavailableError(
                    f"{found}: perhaps for our ssl_certfile in {self._named.url}"
                )
            self.fault = str(found)
            raise found from error

    async def _exchange_now(self, commands: Sequence[Command]) -> list[Reply]:
        if isinstance(self._pool, SentinelConnectionPool):
            await self._ask_sentinels(self._pool)
        connection = await self._idle_connection() or self._new_connection()
        try:
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]  # as in `_new`
            packed = [part for command in commands for part in connection.pack_command(*command)]
            await _send(connection, packed)
            replies = [await _reply(connection) for _ in commands]
        except BaseException:
            # Cancelled or not: what is still to come must never be read as another's reply.
            # redis-py 8.1 disconnects by itself here; it did not always.
            await _cut(connection)
            raise
        self._idle.append(connection)
        for reply in replies:
            if isinstance(reply, MovedError):
                here = _address_of(connection)
                await self._forget()
                self._node = (reply.host or (here[0] if here else ""), reply.port)
            elif isinstance(reply, ResponseError) and _is_readonly(reply):
                await self._forget()  # demoted: find out anew who is master
        if self._closed:
            await self._forget()
        return replies

    async def _idle_connection(self) -> AbstractConnection | None:
        while self._idle:
            connection = self._idle.pop()  # the latest used: the others may be closed by time-out
            moved = self._node is not None and _address_of(connection) != self._node
            # Readable while idle: the server closed it, or it holds a reply that nobody waits for.
            if connection.is_connected and not moved and not await connection.can_read():
                return connection
            await _cut(connection)
        return None

    def _new_connection(self) -> AbstractConnection:
        connection = new_connection(self._pool)
        if (node := self._known_node()) is not None:
            vars(connection).update(host=node[0], port=node[1])
        return connection

    def _known_node(self) -> tuple[str, int] | None:
        """None: the URL's, or a sentinel's connection asks by itself where to go."""
        if self._node is None and isinstance(self._pool, ClusterPool):
            return self._pool.seeds[self._seed % len(self._pool.seeds)]
        return self._node

    async def _ask_sentinels(self, pool: SentinelConnectionPool) -> None:
        clock = asyncio.get_running_loop().time
        if clock() < self._ask_master_s:
            return
        self._ask_master_s = clock() + _MASTER_RETRY_S
        with suppress(RedisError, OSError):
            async with asyncio.timeout(SENTINEL_TIMEOUT_S):
                self._node = await pool.get_master_address()  # type: ignore[no-untyped-call]  # as in `_new`
            self._ask_master_s = clock() + _MASTER_EVERY_S

    def _fault_of(self, replies: Sequence[Reply]) -> str | None:
        for reply in replies:
            if isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError):
                return str(self._unavailable(reply))
        return None

    def _unavailable(self, error: Exception) -> UnavailableError:
        return unavailable(error, self._named)

    async def _forget(self) -> None:
        """Drop what is known: idle connections, and where they lead."""
        self._node = None
        self._ask_master_s = 0.0
        idle, self._idle = self._idle, []
        for connection in idle:
            await _cut(connection)


def _address_of(connection: AbstractConnection) -> tuple[str, int] | None:
    """None: a unix socket."""
    return (connection.host, connection.port) if isinstance(connection, Connection) else None


def _address_text(host: str | None, port: int | None) -> str:
    host = host or "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _cut(connection: AbstractConnection) -> None:
    """Disconnect at once."""
    writer = getattr(connection, "_writer", None)
    if isinstance(connection, SSLConnection) and writer is not None:
        # Closed, it would wait for the other side's farewell: of a dead one up to 30 s.
        writer.transport.abort()
    await connection.disconnect(nowait=True)


async def _send(connection: AbstractConnection, packed: Sequence[bytes]) -> None:
    try:
        await connection.send_packed_command(packed, check_health=False)
    except RuntimeError as error:
        # uvloop's word for a transport that its peer has reset a moment ago.
        if _CLOSED not in str(error):
            raise
        raise ConnectionResetError("the server has reset the connection") from error


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:  # an answer; the replies to later commands follow it
        return error


def _is_readonly(error: ResponseError) -> bool:
    # Before 7.0 a script's error is wrapped: "ERR Error running script …: -READONLY You can't …".
    return isinstance(error, ReadOnlyError) or "-READONLY" in str(error)


def unavailable(error: Exception, named: Named) -> UnavailableError:
    """Ours for redis-py's or the system's, saying what an operator can do.

    A refusal (password, ACL, foreign key) is no exception: it is cured at the server, without us,
    and until then a plane must go on with what it holds rather than end.
    """
    if isinstance(error, (AskError, TryAgainError)):
        return UnavailableError("redis: our slot of its cluster is being moved: wait until it is")
    if isinstance(error, TimeoutError):
        return UnavailableError("redis: no answer in time")
    if isinstance(error, MasterNotFoundError):  # its text goes on with every sentinel's client
        return UnavailableError(f"redis: {str(error).partition(' : ')[0]} by any sentinel")
    # redis-py takes the code off an error reply that it has a class for.
    text = f"{getattr(error, 'status_code', None) or ''} {error}".strip() or type(error).__name__
    for mark, advice in _ADVICE:
        if mark in text:
            kind = WrongKeyError if mark == "WRONGTYPE" else UnavailableError
            return kind(f"redis: {advice.format(named)} ({text})")
    return UnavailableError(f"redis: {text}")
