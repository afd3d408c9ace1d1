"""A feed that holds no more than its data plane may reach, whatever changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import NOW_MS
from tests.feeds import Client, Event, Served, assert_same_as_snapshot, parsed
from tests.maps import (
    EXTERNAL,
    MULTI_ZONE,
    SERVICE,
    binding,
    bound,
    external,
    key_of,
    multi_zone,
    record,
    service,
    zone_record,
)
from zonemesh.deciding import Put
from zonemesh.model import Change, Key, Record, ServiceRef
from zonemesh.reach import Reach, Reaching

pytestmark = pytest.mark.looptime

AGENT = key_of("agent-1")
EVERYTHING = None


def by_name(*names: str, kind: str = SERVICE) -> list[Mapping[str, Any]]:
    return [{"kind": kind, "name": name} for name in names]


def by_labels(**labels: str) -> list[Mapping[str, Any]]:
    return [{"kind": SERVICE, "labels": labels}]


def reach(refs: Sequence[Mapping[str, Any]]) -> Reach:
    return Reach("west", refs, None)


def dataplane(refs: Sequence[Mapping[str, Any]] | None) -> Change:
    """The Dataplane of the agent, which may reach what is referred to, or (None) everything."""
    proxying = {} if refs is None else {"reachableBackends": {"refs": refs}}
    networking = {"address": "10.0.0.1", "transparentProxying": proxying}
    packed = Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec={"networking": networking}).pack()
    return Change("Dataplane", AGENT, packed)


def expected(served: Served, allowed: Reach | None) -> tuple[set[str], set[str]]:
    """Names, and ids of outbounds, that a data plane is to have."""
    vipmap = served.view.map
    names: set[str] = set()
    outbounds: set[str] = set()
    for name, named in vipmap.published["default"].items():
        ref = ServiceRef(named.kind, named.key)

        def labels(kind: str, key: str) -> Mapping[str, str]:
            return vipmap.labels(ServiceRef(kind, key))

        if allowed is not None and not allowed.allows(*ref, labels):
            continue
        names.add(name)
        for each in vipmap.outbounds.of(ref):
            if allowed is None or allowed.allows(*ref, labels, each["port"]):
                outbounds.add(each["id"])
    return names, outbounds


class Subscriber:
    """An agent that stays subscribed, under its Dataplane's name."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.reaching = Reaching("west", served.view.own.registry, AGENT)
        self.client = Client()
        self.stream = served.feed.events(
            "default", None, outbounds=True, heartbeat_s=1.0, reach=self.reaching
        )

    async def catch_up(self) -> list[Event]:
        """Apply everything up to the next heartbeat."""
        found: list[Event] = []
        async for pieces in self.stream:
            found += parsed(pieces)
            if found and found[-1].name == "heartbeat":
                break
        for event in found:
            self.client.apply(event)
        return found[:-1]

    def check(self) -> None:
        names, outbounds = expected(self.served, self.reaching())
        assert self.client.names.keys() == names
        assert self.client.outbounds.keys() == outbounds


@asynccontextmanager
async def subscribed(served: Served) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(served)
    async with aclosing(subscriber.stream):
        await subscriber.catch_up()
        yield subscriber


def serving(refs: Sequence[Mapping[str, Any]] | None) -> Served:
    served = Served()
    served.own(
        dataplane(refs),
        *(each for n, name in enumerate(("a", "b")) for each in (service(name), binding(name, n))),
    )
    served.copy(
        external("api", ("192.0.2.1", 443)),
        bound(EXTERNAL, "api", 8, order=8),
        multi_zone("a"),
        bound(MULTI_ZONE, "a", 9, order=9),
    )
    return served


@pytest.mark.parametrize(
    "refs, names",
    [
        (
            EVERYTHING,
            {"a.svc.mesh.local", "b.svc.mesh.local", "api.extsvc.mesh.local", "a.mzsvc.mesh.local"},
        ),
        ([], set()),
        (by_name("a"), {"a.svc.mesh.local"}),
        (by_name("a", kind=MULTI_ZONE), {"a.mzsvc.mesh.local"}),
        (by_name("api", kind=EXTERNAL), {"api.extsvc.mesh.local"}),
    ],
    ids=["everything", "nothing", "a service", "a multi-zone service", "an external service"],
)
async def test_a_map_holds_names_and_outbounds_that_may_be_reached(
    refs: Sequence[Mapping[str, Any]] | None, names: set[str]
) -> None:
    served = serving(refs)

    async with subscribed(served) as subscriber:
        assert subscriber.client.kinds == ["snapshot", "heartbeat"]
        assert subscriber.client.names.keys() == names
        subscriber.check()


async def test_one_port_of_a_service_may_be_all_that_is_reached() -> None:
    ports = [{"port": 80, "targetPort": 80}, {"port": 81, "targetPort": 81}]
    served = Served()
    put = Put(SERVICE, Key("default", "west", "", "a"), {}, {"ports": ports})
    served.own(dataplane([{"kind": SERVICE, "name": "a", "port": 81}]))
    served.own(record(put), binding("a", 1))

    async with subscribed(served) as subscriber:
        assert [each["port"] for each in subscriber.client.outbounds.values()] == [81]

        served.own(binding("a", 2))
        await subscriber.catch_up()
        assert [each["port"] for each in subscriber.client.outbounds.values()] == [81]
        assert subscriber.client.names["a.svc.mesh.local"]["ips"][0] == "241.0.0.2"


async def test_changes_of_what_may_not_be_reached_are_not_sent() -> None:
    served = serving(by_name("a"))
    async with subscribed(served) as subscriber:
        served.own(binding("b", 5), service("c"), binding("c", 6))
        served.remove("b")

        assert await subscriber.catch_up() == []


async def test_each_delta_follows_the_one_that_the_subscriber_was_sent_before() -> None:
    served = serving(by_name("a"))
    async with subscribed(served) as subscriber:
        at = subscriber.client.revision
        events = []
        for address in (11, 12):
            served.own(binding("b", address))
            served.own(binding("a", address + 10))
            events += await subscriber.catch_up()
            served.own(binding("b", address + 20))

        assert [event.name for event in events] == ["delta", "delta"]
        first, second = (event.data for event in events)
        assert first["from"] == at
        assert second["from"] == first["to"]


async def test_a_service_that_gains_or_loses_a_label_comes_or_goes() -> None:
    served = serving(by_labels(tier="front"))
    async with subscribed(served) as subscriber:
        assert subscriber.client.names == {}

        served.own(service("a", tier="front"))
        await subscriber.catch_up()
        assert subscriber.client.names.keys() == {"a.svc.mesh.local"}
        subscriber.check()

        served.own(service("a", tier="back"))
        (delta,) = await subscriber.catch_up()
        assert delta.data["remove"] == ["a.svc.mesh.local"]
        assert len(delta.data["removeOutbounds"]) == 1
        subscriber.check()


async def test_a_name_that_passes_to_a_service_beyond_reach_is_removed() -> None:
    served = serving(by_name("a"))
    async with subscribed(served) as subscriber:
        assert "a.svc.mesh.local" in subscriber.client.names
        selector: dict[str, Any] = {"meshExternalService": {"matchLabels": {}}}
        spec = {"selector": selector, "template": "a.svc.mesh.local"}
        served.copy(record(Put("HostnameGenerator", Key("", "", "", "shadow"), {}, spec)))

        await subscriber.catch_up()

        assert served.view.map.published["default"]["a.svc.mesh.local"].kind == EXTERNAL
        assert subscriber.client.names == {}


@pytest.mark.parametrize(
    "before, after",
    [
        (EVERYTHING, by_name("a")),
        (by_name("a"), EVERYTHING),
        (by_name("a"), by_name("b")),
        (by_name("a"), []),
    ],
    ids=["less", "all again", "another", "none"],
)
async def test_a_dataplane_that_changes_its_reach_gets_a_new_map(
    before: Sequence[Mapping[str, Any]] | None, after: Sequence[Mapping[str, Any]] | None
) -> None:
    served = serving(before)
    async with subscribed(served) as subscriber:
        served.own(dataplane(after))
        events = await subscriber.catch_up()

        assert [event.name for event in events] == ["snapshot"]
        subscriber.check()

        served.own(binding("a", 21), binding("b", 22))
        await subscriber.catch_up()
        subscriber.check()


async def test_a_dataplane_that_changes_in_another_way_gets_no_new_map() -> None:
    served = serving(by_name("a"))
    async with subscribed(served) as subscriber:
        again = Record.unpack(dataplane(by_name("a")).payload or b"")
        packed = Record(created_ms=1, modified_ms=2, labels={"x": "y"}, spec=again.spec).pack()
        served.own(Change("Dataplane", AGENT, packed))

        events = await subscriber.catch_up()
        assert "snapshot" not in {event.name for event in events}


async def test_a_trimmed_subscriber_that_comes_back_begins_with_a_snapshot() -> None:
    served = serving(EVERYTHING)
    client = await Client().read(served)
    allowed = reach(by_name("a"))

    client.kinds.clear()
    await client.read(served, reach=lambda: allowed)

    assert client.kinds == ["snapshot", "heartbeat"]
    assert client.names.keys() == {"a.svc.mesh.local"}


async def test_trimming_one_subscriber_takes_nothing_from_another() -> None:
    served = serving(by_name("a"))
    async with subscribed(served) as subscriber:
        whole = await Client().read(served)
        served.own(binding("b", 31))
        await subscriber.catch_up()
        await whole.read(served)

    assert whole.names.keys() == served.view.map.published["default"].keys()
    assert whole.names["b.svc.mesh.local"]["ips"][0] == "241.0.0.31"


async def test_a_zone_taken_out_and_back_leaves_subscribers_with_what_a_snapshot_shows() -> None:
    served = serving(by_labels(tier="front"))
    served.copy(service("a", "east", tier="front"), binding("a", 7, "east", order=7))
    async with subscribed(served) as subscriber:
        whole = await Client().read(served)
        for enabled in (False, True):
            served.copy(zone_record("east", enabled=enabled))
            await subscriber.catch_up()
            await whole.read(served)

            subscriber.check()
            assert ("a.svc.east.mesh.local" in subscriber.client.names) is enabled
            await assert_same_as_snapshot(whole, served)

    assert whole.kinds.count("snapshot") == 1


async def test_names_alone_are_trimmed_as_well() -> None:
    served = serving(by_labels(tier="front"))
    allowed = reach(by_labels(tier="front"))
    stream = served.feed.events(
        "default", None, outbounds=False, heartbeat_s=1.0, reach=lambda: allowed
    )
    client = Client()
    async with aclosing(stream):
        for changes in ([], [service("a", tier="front")], [service("a")]):
            if changes:
                served.own(*changes)
            async for pieces in stream:
                events = parsed(pieces)
                for event in events:
                    client.apply(event)
                if events and events[-1].name == "heartbeat":
                    break
            assert client.names.keys() == expected(served, allowed)[0]

    assert client.kinds.count("delta") == 2


REFS = st.sampled_from(
    [None, [], by_name("a"), by_labels(tier="front"), by_name("a", kind=MULTI_ZONE)]
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    name = draw(st.sampled_from("ab"))
    found = draw(
        st.sampled_from(
            [
                service(name),
                service(name, tier="front"),
                Change(SERVICE, key_of(name), None),
                binding(name, 40 + ord(name)),
                binding(name, None),
                dataplane(draw(REFS)),
            ]
        )
    )
    assert isinstance(found, Change)
    return found


@settings(max_examples=60)
@given(st.lists(st.lists(changes(), min_size=1, max_size=3), max_size=6))
def test_whatever_changes_a_subscriber_holds_exactly_what_it_may_reach(
    steps: list[list[Change]],
) -> None:
    async def follow() -> None:
        served = serving(by_name("a"))
        async with subscribed(served) as subscriber:
            for step in steps:
                for change in step:
                    served.own(change)
                await asyncio.sleep(0)
                await subscriber.catch_up()
                subscriber.check()

    import looptime

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(follow())
