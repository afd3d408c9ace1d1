"""What the REST layer needs from a control plane. Global and zone each implement it once."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zonemesh.agents import AgentNote
from zonemesh.deciding import Delete, Put, Written
from zonemesh.errors import MeshError, UnavailableError
from zonemesh.hostnames import Outcome
from zonemesh.model import Key, Position, Record
from zonemesh.resources.kind import Kind


class NotLeaderError(UnavailableError):
    """Nothing was written: this process does not lead any more. Ask `leader_url` and go there."""

    code = "not_leader"


@dataclass(frozen=True, slots=True)
class Found:
    """One stored resource with its key."""

    key: Key
    record: Record


class Backend(Protocol):
    """State to read from and a way to write; all but the writes is answered from memory."""

    @property
    def on_global(self) -> bool: ...

    @property
    def zone(self) -> str:
        """This zone's name; "" on global."""

    @property
    def federated(self) -> bool:
        """A zone that follows a global control plane. False on global."""

    def get(self, kind: Kind, key: Key) -> Record | None: ...

    def keys(self, kind: Kind, mesh: str | None) -> Iterable[str]:
        """Packed keys of a kind, in no order; of every mesh if None. Copy before an await."""

    async def ordered(self, kind: Kind) -> Sequence[str]:
        """All packed keys of a kind in the order of lists; never changed afterwards."""

    def version(self, kinds: Collection[str]) -> Hashable:
        """Equal as long as nothing of some kinds of records changes, `agents.AGENT` among them."""

    def origins(self, kind: Kind) -> Iterable[tuple[str, str]]:
        """The (zone, namespace) pairs that objects of this kind may have: few."""

    def unread(self) -> str | None:
        """Why some of what there is may not be known here yet, or None: until it is, nothing is
        said not to be there.
        """

    def mesh_exists(self, mesh: str) -> bool: ...

    def status(self, kind: Kind, found: Found) -> Mapping[str, Any] | None:
        """The `status` object of a resource, computed now; None for kinds without one."""

    def address(self, kind: Kind, key: Key, zone: str) -> int | None:
        """The address that data planes of a zone are given for a service; None if none."""

    def members(self, found: Found) -> Iterable[tuple[str, Record]]:
        """The Dataplanes that a MeshService selects, by packed key; some may not be shown here."""

    def insight(self, zone: str) -> Mapping[str, Any] | None:
        """A Zone's insight in Kuma's ZoneInsight shape; None on a zone or if unknown."""

    def connected(self, key: str) -> AgentNote | None:
        """The agent of the Dataplane with this packed key; None if none was ever seen."""

    def outcomes(self, kind: Kind, found: Found) -> Mapping[str, Sequence[Outcome]]:
        """What each generator did for a service, and who holds the names that it does not get.

        By zone: on global all in which it is known, on a zone this one.
        """

    async def write(self, items: Sequence[Put | Delete]) -> Sequence[Written | MeshError]:
        """Commit each item on its own, in order; one outcome each. Bounded waits inside.

        Raises:
            UnavailableError: Nobody can write now (no leader, log not reachable).
            NotLeaderError: see `leader_url`; only where `leader_url` is not None.
        """

    def leader_url(self) -> str | None:
        """None if this process writes itself; else where to proxy writes to: `http://host:port`, or
        "" if nobody leads right now.
        """

    async def wait_applied(self, position: Position, *, timeout_s: float) -> bool:
        """Until a write made elsewhere at `position` can be read here."""

    def describe(self) -> Mapping[str, Any]:
        """For `GET /_state`: cursors, hash parts, lag."""
