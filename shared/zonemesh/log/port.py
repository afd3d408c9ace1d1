"""What a log is, whatever holds it: compare-and-append, read, snapshots, trim, lease.

A log is a chain of entries with one writer at a time. Everything a reader needs in order to prove
that it missed nothing is in the entries and in the head record; nothing here interprets changes.
One contract suite (`tests/shells/test_log_contract.py`) holds every implementation to this page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from zonemesh.model import Cursor, Position
from zonemesh.wire import Place, Sealed


class Raw(NamedTuple):
    """An entry as stored: its position and the bytes that `wire.decode` reads."""

    position: Position
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest entry of a log, and whose log it is. Always changed in one step with the entry."""

    incarnation: str
    position: Position
    h: bytes
    time_ms: int
    """The newest entry's `time_ms`: with it an idle reader knows how old its own state is."""
    owner: str = ""
    """An up stream: its zone's UID. Other logs: ""."""
    format: int = 1

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.incarnation, self.position)

    @property
    def place(self) -> Place:
        return Place(self.incarnation, self.position, self.h)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who leads: for liveness and for finding the leader's REST address, never for safety."""

    writer: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """A snapshot that is complete and may be loaded."""

    incarnation: str
    position: Position
    h: bytes
    chunks: int

    @property
    def place(self) -> Place:
        return Place(self.incarnation, self.position, self.h)


class Log(Protocol):
    """One log. Every method raises `UnavailableError` where its store does not answer."""

    @property
    def name(self) -> str:
        """`global`, `zone:<name>:up` or `zone:<name>:own`; cursors in `src` are kept by it."""

    async def head(self) -> Head | None:
        """None: the log does not exist."""

    async def create(
        self, sealed: Sealed, *, owner: str = "", replacing: Head | None = None
    ) -> None:
        """Write the first entry of a log that does not exist.

        A retry of the very same bytes succeeds.

        Args:
            sealed: `1-0`, or `<term>-0` of a new incarnation whose term is above any known one.
            owner: For the head.
            replacing: The head of a log that must give way to a new incarnation, since what it
                holds cannot be continued (a fork): its entries go in the same step. Refused if the
                head is another one by now, or if the new term is not above it.

        Raises:
            RefusedError: The log exists.
            FateUnknownError: It may have happened.
        """

    async def append(self, sealed: Sealed, *, owner: str | None = None) -> None:
        """Write the entry if, and only if, the head is exactly what it follows.

        That is: same incarnation, head position == `sealed.entry.previous`, head hash ==
        `sealed.previous_h`. If the head already *is* this entry, the answer is success: a retry.
        Never creates a log, never leaves a hole. `owner` replaces the head's owner (a takeover).

        Raises:
            RefusedError: The head is another one (or there is none). The writer is deposed.
            FateUnknownError: It may have happened (time-out, OOM, READONLY, NOREPLICAS, cut):
                send the same bytes again until it is known.
        """

    async def resign(self, sealed: Sealed, lease: Lease) -> None:
        """`append` and, in the same step, give up the lease if `lease.writer` still holds it."""

    async def repair(self, newest: Sealed | None = None, *, owner: str = "") -> bool:
        """Make entries and head agree where somebody has deleted one of them.

        A head without entries goes: the log is missing then. Entries without a head get it back if
        `newest` is the newest of them, byte for byte, and a stream without any goes as well.

        Returns:
            Whether anything was changed.
        """

    async def read(
        self, after: Position, *, block_s: float = 0.0, count: int = 512
    ) -> Sequence[Raw]:
        """Entries after a position, oldest first, waiting up to `block_s` for the first one.

        An empty answer proves nothing, and neither does a full one: trimmed entries are skipped in
        silence. Callers check each entry's `previous` and the head (`zonemesh.replica`).
        """

    async def put_snapshot(self, info: SnapshotInfo, chunks: Sequence[bytes]) -> None:
        """Store a snapshot and, after all its chunks, announce it; keep the two newest.

        If this very state (incarnation, position, hash) is announced already, the answer is
        success: a retry. Announcements of another incarnation are dropped.

        Raises:
            RefusedError: One at or beyond that position is announced already, or the log has no
                such entry at that position: a deposed writer. A log that does not exist (it is
                being restored) refuses nothing.
        """

    async def snapshots(self) -> Sequence[SnapshotInfo]:
        """The announced ones, newest first; at most two."""

    async def load_snapshot(self, info: SnapshotInfo) -> Sequence[bytes]:
        """The chunks.

        Raises:
            NotFoundError: Replaced meanwhile, or a chunk is missing.
        """

    async def trim(self, before: Position) -> int:
        """Remove entries before a position, never the newest entry; answer how many went."""

    async def acquire(self, lease: Lease) -> bool:
        """Become the leader if nobody is; True also if `lease.writer` is already."""

    async def renew(self, lease: Lease) -> bool:
        """Extend the lease; False if another holds it or it is gone and was not ours to take."""

    async def release(self, lease: Lease) -> None:
        """Give up the lease if `lease.writer` holds it."""

    async def holder(self) -> Lease | None:
        """Who leads now; None if nobody."""

    async def close(self) -> None: ...


class Store(Protocol):
    """The place where several logs live: one Redis, or one simulated world."""

    def log(self, name: str) -> Log:
        """A handle; costs nothing until used."""

    async def announce(self, zone: str) -> None:
        """Make a zone's up stream known to global. Idempotent."""

    async def zones(self) -> frozenset[str]:
        """Every zone ever announced and not forgotten."""

    async def forget(self, zone: str) -> None:
        """Remove a zone's up stream, its head, snapshots and announcement."""

    async def read_many(
        self, after: Mapping[str, Position], *, block_s: float, count: int = 64
    ) -> Mapping[str, Sequence[Raw]]:
        """`Log.read` over several logs at once, by name, waiting for the first entry of any."""

    async def sizes(self, log_names: Sequence[str]) -> Mapping[str, int]:
        """Bytes that logs' entries take in the store, about; what is not there takes none."""

    async def present(self, log_name: str, writer: str, payload: bytes) -> None:
        """Say that a replica of a log lives: known for the next 5 s, under its writer's name."""

    async def replicas(self, log_name: str) -> Mapping[str, bytes]:
        """What each live replica last said, by writer."""

    async def said(self, writer: str, log_names: Sequence[str]) -> Mapping[str, bytes]:
        """What one writer has last said (`present`) of each of several logs, of those it has."""

    async def close(self) -> None: ...
