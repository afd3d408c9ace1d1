"""A zone's feed under test, and agents that read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from tests.maps import SERVICE, VIP, View, binding, key_of, service, started
from zonecp.admission import Admission
from zonecp.feed import Feed, query_revision
from zonecp.revision import Revision
from zonecp.trimming import Viewer
from zonemesh.model import Change


class Served:
    """A zone's map, and its feed."""

    def __init__(
        self, *, ring_bytes_max: int = 1 << 20, admission: Admission | None = None
    ) -> None:
        self.view: View = started()
        self.lag_s: Callable[[], float] = lambda: 0.25
        own, copy = self.view.own.registry, self.view.copy.registry
        self.feed = Feed(
            self.view.map,
            lambda: Revision(own.cursor, copy.cursor),
            uid=lambda: "uid",
            lag_s=lambda: self.lag_s(),  # noqa: PLW0108 -- tests set it
            ready=lambda: None,
            ring_bytes_max=ring_bytes_max,
            admission=admission,
        )
        self.feed.publish()

    @property
    def revision(self) -> Revision:
        return Revision(self.view.own.registry.cursor, self.view.copy.registry.cursor)

    def own(self, *changes: Change) -> None:
        self.view.own.commit(*changes)
        self.feed.publish()

    def copy(self, *changes: Change) -> None:
        self.view.copy.commit(*changes)
        self.feed.publish()

    def add(self, name: str, address: int) -> None:
        self.own(service(name), binding(name, address))

    def remove(self, name: str) -> None:
        self.own(Change(SERVICE, key_of(name), None), Change(VIP, key_of(name), None))


@dataclass
class Event:
    id: str
    name: str
    data: dict[str, Any]


def parsed(pieces: Sequence[bytes]) -> list[Event]:
    """Server-Sent Events, as WHATWG HTML 9.2.6 has them read."""
    found = []
    for block in b"".join(pieces).decode().split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n")]
        fields = {name: value for name, _, value in lines if name != "data"}
        data = "\n".join(value for name, _, value in lines if name == "data")
        found.append(Event(fields["id"], fields["event"], json.loads(data)))
    return found


@dataclass
class Client:
    """An agent that holds what it was sent."""

    revision: str | None = None
    names: dict[str, Any] = field(default_factory=dict)
    outbounds: dict[str, Any] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    hash: str = ""

    async def read(
        self, served: Served, *, outbounds: bool = True, reach: Viewer = lambda: None
    ) -> Client:
        """Subscribe and apply everything up to the first heartbeat."""
        known = query_revision(self.revision)
        stream = served.feed.events(
            "default", known, outbounds=outbounds, heartbeat_s=1.0, reach=reach
        )
        async with aclosing(stream):
            async for pieces in stream:
                for event in parsed(pieces):
                    self.apply(event)
                if self.kinds[-1:] == ["heartbeat"]:
                    return self
        raise AssertionError("the stream ended")

    def apply(self, event: Event) -> None:
        self.kinds.append(event.name)
        self.revision = event.id
        data = event.data
        self.hash = data.get("hash", self.hash)
        if event.name == "snapshot":
            self.names = {each["name"]: each for each in data["records"]}
            self.outbounds = {each["id"]: each for each in data["outbounds"]}
        elif event.name == "delta":
            assert data["to"] == event.id
            for name in data["remove"]:
                self.names.pop(name, None)
            self.names |= {each["name"]: each for each in data["put"]}
            for start in data.get("removeOutbounds", ()):
                self.outbounds = {
                    key: each for key, each in self.outbounds.items() if not key.startswith(start)
                }
            self.outbounds |= {each["id"]: each for each in data.get("putOutbounds", ())}


async def assert_same_as_snapshot(client: Client, served: Served) -> None:
    fresh = await Client().read(served)
    assert client.names == fresh.names
    assert client.outbounds == fresh.outbounds
    assert client.hash == fresh.hash
    assert Revision.parse(client.revision or "") == served.revision
