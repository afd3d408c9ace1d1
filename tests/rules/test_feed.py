"""The feed: whoever resumes from anywhere ends with the map that a snapshot shows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import put_dataplane
from tests.feeds import Client, Served, assert_same_as_snapshot, parsed
from tests.maps import MULTI_ZONE, binding, bound, multi_zone, record, service
from zonecp.feed import PART_SERVICES
from zonecp.sse import CHUNK_RECORDS
from zonemesh.model import Cursor, Position, ServiceRef

pytestmark = pytest.mark.looptime


# Snapshots


async def test_a_new_subscriber_gets_a_snapshot_of_names_and_outbounds() -> None:
    served = Served()
    served.own(service("web"), binding("web", 7), record(put_dataplane("web-1", "web", port=80)))

    client = await Client().read(served)

    assert client.kinds == ["snapshot", "heartbeat"]
    assert client.names == {
        "web.svc.mesh.local": {
            "name": "web.svc.mesh.local",
            "ips": ["241.0.0.7", "fd00:fd00::f100:7"],
            "ttl": 60,
            "service": "kri_msvc_default_west__web_",
            "zone": "west",
        }
    }
    (outbound,) = client.outbounds.values()
    assert outbound["endpoints"][0]["address"] == "10.0.0.1"


@pytest.mark.parametrize("count", [0, 1, CHUNK_RECORDS, CHUNK_RECORDS + 1, 3 * CHUNK_RECORDS])
async def test_a_snapshot_is_one_document_in_lines_of_bounded_length(count: int) -> None:
    served = Served()
    served.own(*(each for n in range(count) for each in (service(f"s{n}"), binding(f"s{n}", n))))

    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1.0)
    pieces = await anext(stream)
    (event,) = parsed(pieces)

    assert len(event.data["records"]) == len(event.data["outbounds"]) == count
    assert event.id == str(served.revision)
    assert (event.data["zone"], event.data["zoneUid"], event.data["lag_s"]) == ("west", "uid", 0.25)
    assert max(map(len, pieces)) < 300 * CHUNK_RECORDS
    assert json.loads(await served.feed.map_json("default")) == event.data


async def test_subscribers_of_one_revision_share_a_snapshot() -> None:
    served = Served()
    served.add("web", 7)

    await asyncio.gather(*(Client().read(served) for _ in range(20)))

    assert served.feed.snapshots_built == 1
    assert served.feed.subscribers == 0


async def test_a_snapshot_shows_its_own_revision_whatever_happens_while_it_is_made() -> None:
    served = Served()
    served.own(*(each for n in range(600) for each in (service(f"s{n}"), binding(f"s{n}", n))))
    stream = served.feed.events("default", None, outbounds=False, heartbeat_s=1.0)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    before = str(served.revision)

    served.add("later", 999)

    (event,) = parsed(await reading)
    assert event.id == before
    assert len(event.data["records"]) == 600
    assert [each.data["put"][0]["name"] for each in parsed(await anext(stream))] == [
        "later.svc.mesh.local"
    ]


async def test_what_a_log_says_and_the_map_does_not_show_yet_is_in_no_revision() -> None:
    """What may be lost entries is applied at once, and shown when it is known that they are not."""
    served = Served()
    served.add("web", 7)
    client = await Client().read(served)
    shown = str(served.revision)

    served.view.own.commit(service("db"), binding("db", 8))

    await client.read(served)
    fresh = await Client().read(served)
    assert client.revision == fresh.revision == shown
    assert set(client.names) == set(fresh.names) == {"web.svc.mesh.local"}
    served.feed.publish()
    await client.read(served)
    assert set(client.names) == {"web.svc.mesh.local", "db.svc.mesh.local"}
    await assert_same_as_snapshot(client, served)


async def test_a_log_that_begins_anew_and_is_not_shown_yet_leaves_the_map_at_its_revision() -> None:
    served = Served()
    served.add("web", 7)
    await Client().read(served)
    shown = str(served.revision)
    anew = served.view.own.registry.empty()
    for row in served.view.own.registry.freeze().rows():
        anew.put(*row)
    anew.stand({**anew.freeze().meta, "incarnation": "two", "position": [9, 9]})

    served.view.own.registry.become(anew)

    async with asyncio.timeout(5):
        client = await Client().read(served)
    assert client.revision == shown
    assert client.kinds == ["snapshot", "heartbeat"]


# Resuming

STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "copy", "beat", "move"]), st.integers(0, 4)),
    min_size=1,
    max_size=12,
)


def take(served: Served, step: tuple[str, int], number: int) -> None:
    kind, which = step
    if kind == "add":
        served.add(f"s{which}", 10 * number + which)
    elif kind == "remove":
        served.remove(f"s{which}")
    elif kind == "copy":
        served.copy(service(f"s{which}", "east"), binding(f"s{which}", 900 + number, "east"))
    elif kind == "move":
        served.own(record(put_dataplane("dp", f"s{which}", port=80 + number % 2)))
    else:
        served.own()


@settings(max_examples=40)
@given(STEPS, st.booleans(), st.sampled_from([1, 2_000, 1 << 20]))
def test_from_any_earlier_revision_a_client_ends_with_the_map(
    steps: list[tuple[str, int]], listens: bool, ring_bytes_max: int
) -> None:
    """`listens`: somebody follows outbounds all the time, so that the ring holds them."""

    async def scenario() -> None:
        served = Served(ring_bytes_max=ring_bytes_max)
        listener = served.feed.events("default", None, outbounds=True, heartbeat_s=1e9)
        if listens:
            await anext(listener)
        clients = [await Client().read(served)]
        for number, step in enumerate(steps):
            take(served, step, number)
            clients.append(await Client().read(served))
        for client in clients:
            await client.read(served)
            await assert_same_as_snapshot(client, served)

    _run(scenario())


def _run(coroutine: Any) -> None:
    # Virtual time: hypothesis runs each example in a loop of its own.
    import looptime

    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def test_a_client_that_was_away_shortly_gets_only_the_delta() -> None:
    served = Served()
    listener = served.feed.events("default", None, outbounds=True, heartbeat_s=1e9)
    await anext(listener)
    served.add("a", 1)
    client = await Client().read(served)
    client.kinds.clear()

    served.add("b", 2)
    served.remove("a")
    await client.read(served)

    assert client.kinds == ["delta", "delta", "heartbeat"]
    await assert_same_as_snapshot(client, served)


async def test_a_client_at_the_present_revision_gets_nothing_but_heartbeats() -> None:
    served = Served()
    served.add("a", 1)
    client = await Client().read(served)
    client.kinds.clear()
    served.own()

    await client.read(served)

    assert client.kinds == ["heartbeat"]
    assert client.revision == str(served.revision)


async def test_who_follows_names_only_is_not_sent_what_moves_behind_them() -> None:
    served = Served()
    served.add("web", 1)
    client = await Client().read(served, outbounds=False)
    client.kinds.clear()

    served.own(record(put_dataplane("web-1", "web")))
    served.add("api", 2)
    await client.read(served, outbounds=False)

    assert client.kinds == ["delta", "heartbeat"]
    assert client.names.keys() == {"web.svc.mesh.local", "api.svc.mesh.local"}
    assert not client.outbounds


async def test_who_fell_out_of_the_ring_gets_a_snapshot() -> None:
    served = Served(ring_bytes_max=1_000)
    served.add("first", 1)
    client = await Client().read(served)
    client.kinds.clear()
    for number in range(20):
        served.add(f"s{number}", 10 + number)

    await client.read(served)

    assert client.kinds == ["snapshot", "heartbeat"]
    await assert_same_as_snapshot(client, served)


async def test_who_falls_out_of_the_ring_while_connected_gets_a_snapshot() -> None:
    served = Served(ring_bytes_max=1_000)
    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1.0)
    assert parsed(await anext(stream))[0].name == "snapshot"
    for number in range(20):
        served.add(f"s{number}", 10 + number)

    (event,) = parsed(await anext(stream))

    assert event.name == "snapshot"
    assert len(event.data["records"]) == 20


@pytest.mark.parametrize("component", ["own", "copy"])
async def test_nobody_resumes_across_an_incarnation(component: str) -> None:
    served = Served()
    served.add("web", 1)
    served.copy(service("gone", "east"), binding("gone", 2, "east"))
    stream = served.feed.events("default", None, outbounds=True, heartbeat_s=1.0)
    connected = Client()
    connected.apply(parsed(await anext(stream))[0])
    chain = served.view.own if component == "own" else served.view.copy
    # An agent that another replica, already on the new incarnation, had told of more.
    ahead = Cursor("two", Position(1, 1))
    known = served.revision._replace(**{component: ahead})

    fresh = chain.registry.empty()
    fresh.stand({**chain.registry.freeze().meta, "incarnation": "two", "position": [1, 5]})
    for row in chain.registry.freeze().rows():
        if "gone" not in row[1]:
            fresh.put(*row)
    chain.incarnation = "two"
    chain.registry.become(fresh)
    served.feed.publish()
    served.add("later", 3)

    for revision in (str(known), connected.revision):
        client = Client(revision=revision, names={"ghost": 1})
        await client.read(served)
        assert client.kinds[0] == "snapshot"
        assert "ghost" not in client.names
    for event in parsed(await anext(stream)):
        connected.apply(event)
    fresh_client = await Client().read(served)
    assert connected.names == fresh_client.names


async def test_a_map_that_changes_too_much_for_one_turn_is_never_shown_by_half() -> None:
    served = Served()
    served.add("before", 1)
    client = await Client().read(served)
    client.kinds.clear()
    running = asyncio.ensure_future(served.feed.run())
    count = PART_SERVICES * 3
    served.own(*(each for n in range(count) for each in (service(f"s{n}"), binding(f"s{n}", n))))
    assert served.feed.catching_up

    held = client.hash
    await asyncio.sleep(0)
    stream = served.feed.events("default", None, outbounds=False, heartbeat_s=1.0)
    first, fresh, again = await asyncio.gather(
        anext(stream), Client().read(served), client.read(served)
    )

    assert len(parsed(first)[0].data["records"]) == count + 1
    assert len(fresh.names) == len(again.names) == count + 1
    assert fresh.hash == again.hash != held
    running.cancel()


async def test_a_selector_of_very_many_services_is_compared_with_them_in_turns() -> None:
    served = Served()
    served.own(*(service(f"s{n}", app="x") for n in range(PART_SERVICES + 1)))
    served.copy(bound(MULTI_ZONE, "all", 1))
    running = asyncio.ensure_future(served.feed.run())
    client = await Client().read(served)
    held = client.revision

    served.copy(multi_zone("all", match={"app": "x"}))
    ref = ServiceRef(MULTI_ZONE, "default///all")
    assert served.feed.catching_up
    assert 0 < len(served.view.map.outbounds.matched(ref)) <= PART_SERVICES

    await client.read(served)
    assert client.revision != held
    assert len(served.view.map.outbounds.matched(ref)) == PART_SERVICES + 1
    running.cancel()
