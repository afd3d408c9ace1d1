"""The checker finds in a bad history what is bad, and nothing in a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.checker import RULES, check
from tests.chaos.history import (
    NOERROR,
    NXDOMAIN,
    Answer,
    Down,
    Fed,
    Final,
    History,
    Lag,
    Logged,
    Seen,
    State,
    Write,
)

A, B = "241.0.0.1", "241.0.0.2"
AGENT = "east-agent"


def yes(at_s: float, address: str = A, service: str = "west/a") -> Answer:
    return Answer(at_s, at_s + 0.01, AGENT, service, NOERROR, address)


def no(at_s: float, rcode: int | None = NXDOMAIN, service: str = "west/a") -> Answer:
    return Answer(at_s, at_s + 0.01, AGENT, service, rcode, None)


def put(at_s: float, service: str = "west/a", *, done: bool = True) -> Write:
    return Write(at_s, at_s + 0.1, service, put=True, done=done)


def removed(at_s: float, service: str = "west/a", *, done: bool = True) -> Write:
    return Write(at_s, at_s + 0.1, service, put=False, done=done)


def seen(at_s: float, plane: str = "g1", **addresses: str) -> Seen:
    return Seen(at_s, plane, {f"west/{name}": address for name, address in addresses.items()})


def lag(asked_s: float, lag_s: float, *, origin: str = "west", took_s: float = 0.0) -> Lag:
    return Lag(asked_s, asked_s + took_s, AGENT, origin, lag_s)


def entry(
    seq: int,
    h: bytes = b"h",
    *,
    leased: dict[str, tuple[str, int, int]] | None = None,
    bound: dict[str, str] | None = None,
    parts: dict[str, str] | None = None,
) -> Logged:
    return Logged(seq, "global", ("i", (1, seq)), h, bound or {}, leased or {}, parts or {})


def rules(history: History) -> list[str]:
    return [violation.rule for violation in check(history)]


def good() -> History:
    return History(
        writes=[put(1), removed(10), put(20)],
        seen=[seen(2, a=A), seen(3, "g2", a=A), seen(22, a=A)],
        answers=[no(0.5), yes(2), yes(9), no(12), yes(21), yes(30)],
        logged=[
            entry(1, b"1", bound={"west/a": A}, leased={"x": ("west", 0, 16)}, parts={"": "one"}),
            entry(2, b"2", leased={"y": ("east", 16, 16)}),
        ],
        states=[State(3, "g1", ("i", (1, 1)), {"": "one"}, 0)],
        lags=[lag(5, 0.7), lag(25, 0.7)],
        finals=[Final(yes(31))],
    )


def test_a_good_history_has_no_violation() -> None:
    assert check(good()) == []


def test_an_address_that_changes_is_found_wherever_it_shows() -> None:
    assert rules(History(seen=[seen(1, a=A), seen(2, "east", a=B)])) == ["vip_changed"]
    assert rules(History(seen=[seen(0, a=A)], logged=[entry(1, bound={"west/a": B})])) == [
        "vip_changed"
    ]


def test_an_address_that_comes_back_another_after_a_removal_has_changed() -> None:
    assert rules(
        History(writes=[put(0), removed(2), put(4)], seen=[seen(1, a=A), seen(5, a=B)])
    ) == ["vip_changed"]


def test_an_address_of_two_services_is_found_also_one_after_the_other() -> None:
    assert rules(History(seen=[seen(1, a=A, b=A)])) == ["vip_twice"]
    assert rules(History(seen=[seen(1, a=A), seen(2, "g2", b=A)])) == ["vip_twice"]


@pytest.mark.parametrize("first", [0, 8, 15])
def test_blocks_of_two_owners_overlap(first: int) -> None:
    leases = [
        entry(1, leased={"x": ("west", 0, 16)}),
        entry(2, leased={"y": ("east", first, 16)}),
    ]

    assert rules(History(logged=leases)) == ["blocks_overlap"]


def test_a_block_leased_to_the_same_owner_again_overlaps_nothing() -> None:
    leases = [entry(n, leased={"x": ("west", 0, 16)}) for n in (1, 2)]

    assert rules(History(logged=leases)) == []


def test_an_answer_of_another_service_is_wrong() -> None:
    history = History(writes=[put(0)], seen=[seen(1, a=A)], answers=[yes(2, B)])

    assert rules(history) == ["wrong_answer"]


def test_an_answer_for_what_nobody_has_registered_is_wrong() -> None:
    assert rules(History(answers=[yes(2)])) == ["wrong_answer"]


def test_a_visible_name_is_denied() -> None:
    assert rules(History(writes=[put(0)], answers=[yes(1), no(2)])) == ["nxdomain"]
    assert rules(History(writes=[put(0)], answers=[yes(1), no(2, NOERROR)])) == ["nxdomain"]


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(History(writes=[put(0)], answers=[no(1), yes(2)]), id="not visible yet"),
        pytest.param(
            History(writes=[put(0), removed(3)], answers=[yes(1), no(4)]), id="removed by then"
        ),
        pytest.param(
            History(writes=[put(0), removed(3, done=False)], answers=[yes(1), no(4)]),
            id="perhaps removed",
        ),
        pytest.param(History(writes=[put(0, done=False)], answers=[yes(1), no(2)]), id="perhaps"),
        pytest.param(
            History(writes=[put(0), removed(3), put(5)], answers=[yes(1), no(6), yes(7)]),
            id="registered anew and not visible again",
        ),
        pytest.param(
            History(writes=[put(0), removed(2.005)], answers=[yes(1), no(2)]),
            id="removed while it was asked",
        ),
    ],
)
def test_a_name_may_be_denied(history: History) -> None:
    assert rules(history) == []


@pytest.mark.parametrize("rcode", [None, 2])
def test_an_agent_that_fell_silent_is_found_but_not_one_that_was_killed(rcode: int | None) -> None:
    answers = [yes(1), no(2, rcode), yes(3)]

    assert rules(History(writes=[put(0)], answers=answers)) == ["no_answer"]
    down = Down(AGENT, 1.5, 2.5)
    assert rules(History(writes=[put(0)], answers=answers, downs=[down])) == []
    other = Down("west-agent", 1.5, 2.5)
    assert rules(History(writes=[put(0)], answers=answers, downs=[other])) == ["no_answer"]


def test_an_agent_that_has_never_had_a_map_may_answer_servfail() -> None:
    assert rules(History(answers=[no(1, 2), no(2)])) == []


def test_a_removed_name_that_comes_back_by_itself_is_found() -> None:
    writes = [put(0), removed(2)]

    assert rules(History(writes=writes, answers=[yes(1), no(3), yes(4)])) == ["resurrected"]
    assert rules(History(writes=writes, answers=[yes(1), yes(3), no(4)])) == []
    again = [*writes, put(3.5, done=False)]
    assert rules(History(writes=again, answers=[yes(1), no(3), yes(4)])) == []
    late = [put(0), removed(2), put(2.5), removed(3)]
    assert rules(History(writes=late, answers=[yes(1), no(4), yes(5), no(6)])) == []
    assert rules(History(writes=late, answers=[yes(1), no(4), yes(5), no(6), yes(7)])) == [
        "resurrected"
    ]


def test_what_a_restarted_agent_has_on_disk_may_be_old_until_its_zone_feeds_it() -> None:
    writes, answers = [put(0), removed(2)], [yes(1), no(3), yes(7), no(8, 2)]
    down = Down(AGENT, 4, 4.5)

    on_disk = History(writes=writes, answers=answers, downs=[down], fed=[Fed(9, AGENT)])
    assert rules(on_disk) == []
    fed = History(writes=writes, answers=answers, downs=[down], fed=[Fed(4.6, AGENT)])
    assert rules(fed) == ["resurrected", "no_answer"]


def test_two_entries_at_one_position_are_found() -> None:
    assert rules(History(logged=[entry(1, b"x"), entry(1, b"y")])) == ["history_rewritten"]
    assert rules(History(logged=[entry(1, b"x"), entry(1, b"x")])) == []


def test_a_reader_that_differs_from_the_log_where_it_stands_is_found() -> None:
    log = [entry(1, parts={"": "one", "vip.MeshService/west": "v"})]
    place = ("i", (1, 1))

    differs = State(2, "g2", place, {"": "two"}, 0)
    assert rules(History(logged=log, states=[differs])) == ["undetected_gap"]
    partly = State(2, "east", place, {"vip.MeshService/west": "w"}, 1)
    assert rules(History(logged=log, states=[partly])) == ["undetected_gap"]
    behind = State(2, "g2", ("i", (1, 0)), {"": "zero"}, 0)
    assert rules(History(logged=log, states=[behind])) == []


def test_readers_that_differ_from_each_other_are_found_without_the_log() -> None:
    place = ("i", (1, 1))
    states = [State(n, f"g{n}", place, {"": str(n)}, 0) for n in (1, 2)]

    assert rules(History(states=states)) == ["undetected_gap"]


@pytest.mark.parametrize("lag_s,found", [(0.5, ["lag_too_low"]), (3.5, []), (4.5, [])])
def test_a_lag_below_the_age_of_what_is_lacking_is_found(lag_s: float, found: list[str]) -> None:
    history = History(writes=[put(0)], answers=[no(5), yes(6)], lags=[lag(4.5, lag_s)])

    assert rules(history) == found


@pytest.mark.parametrize("lag_s,found", [(0.5, []), (8.5, []), (9.5, ["lag_too_high"])])
def test_a_lag_above_the_age_of_what_has_arrived_is_found(lag_s: float, found: list[str]) -> None:
    history = History(writes=[put(0)], answers=[yes(1)], lags=[lag(8, lag_s)])

    assert rules(history) == found


def test_a_lag_is_taken_to_be_of_any_moment_while_it_was_asked_for() -> None:
    """On a loaded machine that is long: at 2.4 s what is lacking was 2.3 s old, and at 4.9 s what
    has arrived was 4.9 s old.
    """
    lacking = History(writes=[put(0)], answers=[no(5), yes(6)], lags=[lag(2.4, 1.5, took_s=2.5)])
    assert rules(lacking) == []
    arrived = History(writes=[put(0)], answers=[yes(1)], lags=[lag(2.4, 5.5, took_s=2.5)])
    assert rules(arrived) == []


def test_a_lag_of_one_zone_says_nothing_about_another() -> None:
    history = History(writes=[put(0)], answers=[no(5), yes(6)], lags=[lag(4.5, 0.0, origin="east")])

    assert rules(history) == []


def test_an_end_that_is_not_as_registered_is_found() -> None:
    assert rules(History(writes=[put(0)], finals=[Final(no(9))])) == ["not_converged"]
    gone = History(writes=[put(0), removed(1)], finals=[Final(yes(9))])
    assert rules(gone) == ["not_converged"]
    perhaps = History(writes=[put(0), removed(1, done=False)], finals=[Final(yes(9))])
    assert rules(perhaps) == []


def test_every_rule_is_found_by_some_test_here() -> None:
    text = Path(__file__).read_text()

    assert [rule for rule in RULES if f'"{rule}"' not in text] == []
