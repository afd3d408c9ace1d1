"""What the mesh's addresses lead to: the feed's outbounds by id, for who asks and who listens."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """Where one outbound can be reached; priority 0 is this zone."""

    address: str
    port: int
    zone: str = ""
    priority: int = 0
    ready: bool = True


class Outbound(msgspec.Struct, frozen=True, gc=False):
    """One port of a service that has an address."""

    id: str
    """The service's KRI with the port's name, or its number if it has none, as section."""

    kind: str
    vips: tuple[str, ...]
    port: int
    name: str
    """The service's."""

    protocol: str = "tcp"
    zone: str = ""
    endpoints: tuple[Endpoint, ...] = ()


class Change(NamedTuple):
    """What became different, never both for one id."""

    put: Sequence[Outbound]
    removed: Sequence[Outbound]
    """As they were."""


Listener = Callable[[Change], None]


class Outbounds:
    """Kept by the feed's follower; one writer, many readers.

    A listener is told of each change once it is in here, in the same turn of the loop, and of
    nothing that is equal to what was there. It is told of small changes (the follower's slices)
    while a snapshot is applied; `whole` says that one has been.
    """

    def __init__(self, *, endpoints: bool = True) -> None:
        """Without `endpoints` none are kept, and their changes are none."""
        self._endpoints = endpoints
        self.whole = False
        """All of a map's are here: what is absent is absent from the mesh."""

        self._by_id: dict[str, Outbound] = {}
        self._ids: list[str] = []
        """Sorted: a delta removes by what ids begin with."""

        self._seen: set[str] | None = None
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Outbound]:
        return iter(self._by_id.values())

    def get(self, outbound_id: str) -> Outbound | None:
        return self._by_id.get(outbound_id)

    def listen(self, listener: Listener) -> None:
        """Call it with each change from now on; what is here already it reads itself."""
        self._listeners.append(listener)

    # For the follower

    def begin(self) -> None:
        """A snapshot begins: what is not put until `absent` is asked is not in it."""
        self._seen = set()

    def put(self, outbounds: Sequence[Outbound]) -> None:
        if self._seen is not None:
            self._seen.update(outbound.id for outbound in outbounds)
        if not self._endpoints:
            outbounds = [_without_endpoints(each) for each in outbounds]
        changed = [each for each in outbounds if self._by_id.get(each.id) != each]
        for outbound in changed:
            if outbound.id not in self._by_id:
                insort(self._ids, outbound.id)
            self._by_id[outbound.id] = outbound
        self._tell(Change(changed, ()))

    def beginning_with(self, beginnings: Iterable[str]) -> list[str]:
        """The ids that begin with one of these texts, none of which begins with another."""
        found: list[str] = []
        for beginning in beginnings:
            start = end = bisect_left(self._ids, beginning)
            while end < len(self._ids) and self._ids[end].startswith(beginning):
                end += 1
            found += self._ids[start:end]
        return found

    def absent(self) -> list[str]:
        """The ids that the snapshot lacks."""
        seen = self._seen or set()
        return [outbound_id for outbound_id in self._ids if outbound_id not in seen]

    def remove(self, outbound_ids: Iterable[str]) -> None:
        self._tell(Change((), [self._remove(outbound_id) for outbound_id in outbound_ids]))

    def end(self) -> None:
        """The snapshot has been applied."""
        self._seen = None
        self.whole = True

    def _remove(self, outbound_id: str) -> Outbound:
        del self._ids[bisect_left(self._ids, outbound_id)]
        return self._by_id.pop(outbound_id)

    def _tell(self, change: Change) -> None:
        if change.put or change.removed:
            for listener in self._listeners:
                listener(change)


def _without_endpoints(outbound: Outbound) -> Outbound:
    return msgspec.structs.replace(outbound, endpoints=())
