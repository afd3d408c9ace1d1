"""Notes of agents, and what a zone decides of Dataplanes that have lost theirs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, Chain, Leader, put_dataplane, replayed
from tests.zones import SERVICE, SETTINGS_HERE, gone, key_of
from zonecp.deciding import decide
from zonecp.inputs import Adopt, Begin, Heard, Tick
from zonecp.liveness import RETURN_S, Liveness, Subscriber
from zonecp.state import ZoneState
from zonemesh.agents import AGENT, AgentNote, Agents
from zonemesh.errors import RefusedError, WireError
from zonemesh.log.clock import Clock
from zonemesh.log.writer import Writer
from zonemesh.model import Change
from zonemesh.wire import UP_ENTRY_BYTES_MAX

CLEANUP_MS = 60_000
WEB = key_of("web-1").packed
THERE = {WEB: ("agent", "1.0")}
GONE: dict[str, tuple[str, str] | None] = {WEB: None}


class Zone:
    """A zone that leads itself and cleans up after `CLEANUP_MS`."""

    def __init__(self, cleanup_ms: int | None = CLEANUP_MS) -> None:
        self.state = ZoneState("west", federated=False)
        self.leader = Leader(
            self.state.registry, partial(decide, self.state), bytes_max=UP_ENTRY_BYTES_MAX
        )
        self.cleanup_ms = cleanup_ms
        self.begin()
        self.submit(put_dataplane("web-1", "web"))

    def begin(self) -> None:
        """A leader's term begins."""
        begin = Begin("uid", SETTINGS_HERE, adopted=True, cleanup_ms=self.cleanup_ms)
        self.submit(begin, Tick({}))

    def submit(self, *inputs: Any) -> list[Any]:
        return self.leader.submit(*inputs)

    def tick(self, ms: int) -> None:
        self.leader.wait(ms)
        self.submit(Tick({"beat": 1}))

    @property
    def note(self) -> AgentNote | None:
        packed = self.state.registry.get(AGENT, WEB)
        return None if packed is None else AgentNote.unpack(packed)

    def is_there(self) -> bool:
        return self.state.registry.get("Dataplane", WEB) is not None


# Notes

TIMES = st.integers(0, 1 << 50)


@given(st.builds(AgentNote, TIMES, st.none() | TIMES, TIMES, st.text(max_size=100), st.just("1")))
def test_a_note_is_read_as_it_was_written(note: AgentNote) -> None:
    assert AgentNote.unpack(note.pack()) == note


def test_a_note_of_a_newer_build_is_read_as_far_as_it_is_known() -> None:
    packed: bytes = msgpack.packb((1, None, 0, "a" * 500, "1", "more"))

    assert AgentNote.unpack(packed) == AgentNote(1, None, 0, "a" * 100, "1")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgpack.packb(5),
        msgpack.packb((1, None)),
        msgpack.packb(("1", None, 0, "", "")),
        msgpack.packb((1, True, 0, "", "")),
        msgpack.packb((1, None, 0, "", ""))[:-1],
    ],
    ids=["empty", "not msgpack", "a number", "short", "text", "a flag", "cut"],
)
def test_what_is_no_note_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        AgentNote.unpack(payload)


def test_the_index_follows_notes_that_come_change_and_go() -> None:
    agents, chain = Agents(), Chain()
    chain.registry.add_index(agents)

    chain.commit(Change(AGENT, "m/w//a", AgentNote(1).pack()))
    chain.commit(Change(AGENT, "m/w//b", AgentNote(1, 2, 7).pack()))
    assert (agents.online, agents.offline) == ({"m/w//a"}, {"m/w//b": 7})

    chain.commit(Change(AGENT, "m/w//a", AgentNote(1, 3, 9).pack()))
    chain.commit(Change(AGENT, "m/w//b", AgentNote(4).pack()))
    assert (agents.online, agents.offline) == ({"m/w//b"}, {"m/w//a": 9})

    chain.commit(Change(AGENT, "m/w//a", None), Change(AGENT, "m/w//b", None))
    assert (agents.online, agents.offline) == (set(), {})


# Subscriptions


class Refusing:
    """A writer whose term is over, and then another whose is not."""

    def __init__(self) -> None:
        self.over = True
        self.heard: list[Any] = []

    async def submit(self, item: Heard) -> None:
        if self.over:
            raise RefusedError("another leads")
        self.heard.append(item)


@pytest.mark.looptime
async def test_what_one_term_could_not_write_the_next_one_does() -> None:
    zone, writer = Zone(), Refusing()
    clock = Clock(wall_ms=lambda: NOW_MS, mono_s=asyncio.get_running_loop().time)
    liveness = Liveness(zone.state, clock)
    with liveness.following(WEB, Subscriber("agent", "1.0")):
        with pytest.raises(RefusedError):
            await liveness.run(cast("Writer", writer))
        writer.over = False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(RETURN_S):
                await liveness.run(cast("Writer", writer))

    assert writer.heard == [Heard(THERE)]


# Decisions


def test_an_agent_that_comes_is_noted_with_when_and_who() -> None:
    zone = Zone()
    zone.leader.wait(500)

    zone.submit(Heard(THERE))

    assert zone.note == AgentNote(NOW_MS + 500, None, 0, "agent", "1.0")
    assert zone.state.agents.online == {WEB}


def test_an_agent_that_is_heard_of_again_changes_nothing() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))
    before = zone.state.registry.position

    zone.submit(Heard(THERE), Heard({WEB: ("other", "2.0")}))

    assert zone.state.registry.position == before


def test_an_agent_that_goes_keeps_when_it_came() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))
    zone.leader.wait(2_000)

    zone.submit(Heard(GONE))

    assert zone.note == AgentNote(NOW_MS, NOW_MS + 2_000, 2_000, "agent", "1.0")
    assert zone.state.agents.offline == {WEB: 2_000}


def test_the_agent_of_a_dataplane_that_is_not_there_is_not_noted() -> None:
    zone = Zone()

    zone.submit(Heard({key_of("other").packed: ("agent", "1.0")}), Heard(GONE))

    assert zone.state.registry.table(AGENT) == {}


def test_a_dataplane_takes_its_note_with_it() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))

    zone.submit(gone("web-1"))
    assert zone.state.registry.table(AGENT) == {}

    zone.submit(put_dataplane("web-1", "web"))
    assert zone.note is None


def test_a_dataplane_goes_once_its_agent_has_been_gone_for_long_enough() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))
    zone.tick(10 * CLEANUP_MS)
    zone.submit(Heard(GONE))

    zone.tick(CLEANUP_MS - 1)
    assert zone.is_there()
    zone.tick(1)

    assert not zone.is_there()
    assert zone.note is None
    service = zone.state.registry.get(SERVICE, key_of("web").packed)
    assert service is not None, "its service has its grace period yet"


def test_a_dataplane_that_never_had_an_agent_stays() -> None:
    zone = Zone()

    zone.tick(100 * CLEANUP_MS)

    assert zone.is_there()


def test_an_agent_that_is_back_in_time_saves_its_dataplane() -> None:
    zone = Zone()
    zone.submit(Heard(THERE), Heard(GONE))
    zone.tick(CLEANUP_MS - 1)
    zone.submit(Heard(THERE))

    zone.tick(100 * CLEANUP_MS)

    assert zone.is_there()
    assert zone.note is not None
    assert zone.note.online


@pytest.mark.parametrize("first", ["tick", "agent"])
def test_an_agent_that_is_back_in_the_very_entry_saves_its_dataplane(first: str) -> None:
    zone = Zone()
    zone.submit(Heard(THERE), Heard(GONE))
    zone.leader.wait(CLEANUP_MS)
    inputs = [Tick({}), Heard(THERE)]

    zone.submit(*(inputs if first == "tick" else reversed(inputs)))

    assert zone.is_there()


def test_a_leader_that_begins_starts_the_clock_anew() -> None:
    zone = Zone()
    zone.submit(Heard(THERE), Heard(GONE))
    zone.leader.wait(10 * CLEANUP_MS)

    zone.begin()
    zone.tick(CLEANUP_MS - 1)
    assert zone.is_there()
    zone.tick(1)

    assert not zone.is_there()


def test_without_a_limit_every_dataplane_stays() -> None:
    zone = Zone(cleanup_ms=None)
    zone.submit(Heard(THERE), Heard(GONE))

    zone.tick(1_000 * CLEANUP_MS)

    assert zone.is_there()


def test_many_lost_dataplanes_go_in_entries_of_bounded_size() -> None:
    zone = Zone()
    keys = [key_of(f"dp-{number}").packed for number in range(2_000)]
    zone.submit(*(put_dataplane(f"dp-{number}", f"svc-{number}") for number in range(2_000)))
    for start in range(0, len(keys), 500):
        zone.submit(Heard(dict.fromkeys(keys[start : start + 500], ("agent", "1"))))
        zone.submit(Heard(dict.fromkeys(keys[start : start + 500])))
    entries = len(zone.leader.chain.entries)

    zone.tick(CLEANUP_MS)

    assert zone.state.registry.table("Dataplane").keys() == {WEB}
    assert zone.state.registry.table(AGENT) == {}
    assert len(zone.leader.chain.entries) > entries + 3
    assert all(len(each.data) <= UP_ENTRY_BYTES_MAX for each in zone.leader.chain.entries)


def test_a_zone_that_reads_its_log_again_knows_the_same_of_agents() -> None:
    zone = Zone()
    zone.submit(Heard(THERE), put_dataplane("web-2", "web"))
    zone.submit(Heard({key_of("web-2").packed: ("agent", "1")}), Heard(GONE))
    again = ZoneState("west", federated=False)

    replayed(zone.leader.chain.entries, again.registry)

    assert again.agents.online == zone.state.agents.online
    assert again.agents.offline == zone.state.agents.offline == {WEB: 0}


def adopted_after(zone: Zone, note: AgentNote) -> None:
    """Take over a Dataplane and its note, as global has them."""
    packed = Zone().state.registry.get("Dataplane", WEB)
    changes = [Change("Dataplane", WEB, packed), Change(AGENT, WEB, note.pack())]
    (outcome,) = zone.submit(Adopt(changes, last=True))
    assert outcome is None


def test_an_adopted_note_counts_in_the_time_of_the_new_log() -> None:
    zone = Zone()
    zone.submit(gone("web-1"))
    zone.leader.wait(1_000)

    adopted_after(zone, AgentNote(NOW_MS, NOW_MS, until_log_ms=10**9))
    zone.tick(CLEANUP_MS - 1)
    assert zone.is_there()
    zone.tick(1)

    assert not zone.is_there()


def test_an_old_log_that_adopts_keeps_what_it_says_of_agents_itself() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))

    adopted_after(zone, AgentNote(NOW_MS, NOW_MS, until_log_ms=10**9))

    assert zone.state.agents.online == {WEB}


def test_a_dataplane_that_was_deleted_elsewhere_takes_its_note_with_it() -> None:
    zone = Zone()
    zone.submit(Heard(THERE))

    zone.submit(Adopt([Change("Dataplane", WEB, None)], last=True))

    assert not zone.is_there()
    assert zone.state.registry.table(AGENT) == {}
