"""What must hold in every history, whatever failed: a pure function from history to violations.

vip_changed        a service had two addresses
vip_twice          an address had two services
blocks_overlap     addresses were leased to two owners
wrong_answer       an agent answered an address that is not the service's
nxdomain           an agent denied a name that it had answered and nobody had removed
no_answer          an agent that runs said nothing, or SERVFAIL after it had once answered; a
                   restarted one may say so of what it does not have on disk
resurrected        a name was answered again after it had gone, and no registration is left that
                   it could be; not what a restarted agent has on disk, until its zone feeds it
history_rewritten  one position of one incarnation held two entries
undetected_gap     a reader's state differs from the log's at the reader's position
lag_too_low        what is exported is younger than what an agent demonstrably lacks
lag_too_high       what is exported is older than what an agent demonstrably has
not_converged      after everything had ended, an agent answered otherwise than was registered
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.chaos.history import NOERROR, NXDOMAIN, Answer, Cursor, Down, History, Lag, Write

RULES = (
    "vip_changed",
    "vip_twice",
    "blocks_overlap",
    "wrong_answer",
    "nxdomain",
    "no_answer",
    "resurrected",
    "history_rewritten",
    "undetected_gap",
    "lag_too_low",
    "lag_too_high",
    "not_converged",
)

LAG_WITHIN_S = 1.0
"""Between what is exported and the truth."""
SAMPLED_S = 0.5
"""From an answer until what is exported has it: a heartbeat of the feed follows news, and processes
and threads of a loaded machine wait for their turns.
"""

FIRST_BEAT_S = 1.5
"""A feed begins with what has changed; that this was all is said by its first heartbeat."""


class Violation(NamedTuple):
    at_s: float
    rule: str
    subject: str
    what: str


class Life(NamedTuple):
    """A stretch in which a service exists beyond doubt."""

    put_s: float
    """Its registration was first sent."""
    from_s: float
    """It was acknowledged."""
    to_s: float
    """A removal was sent."""


def check(history: History, *, lag_within_s: float = LAG_WITHIN_S) -> list[Violation]:
    """Everything that is wrong with a history, in order of time."""
    found = [
        *_addresses(history),
        *_blocks(history),
        *_answers(history),
        *_logs(history),
        *_lags(history, lag_within_s),
        *_finals(history),
    ]
    return sorted(found)


def lives(writes: Iterable[Write]) -> dict[str, list[Life]]:
    """By service, in order. A removal that may not have happened ends a life as well."""
    found: defaultdict[str, list[Life]] = defaultdict(list)
    for service, own in _by_service(writes).items():
        sent_s: float | None = None
        current: Life | None = None
        for write in own:
            if not write.put:
                if current is not None:
                    found[service].append(current._replace(to_s=write.start_s))
                sent_s, current = None, None
                continue
            sent_s = write.start_s if sent_s is None else sent_s
            if write.done and current is None:
                current = Life(sent_s, write.end_s, float("inf"))
        if current is not None:
            found[service].append(current)
    return found


# Addresses


def _sightings(history: History) -> Iterator[tuple[float, str, str, str]]:
    """When, where, service, address."""
    for seen in history.seen:
        for service, address in seen.addresses.items():
            yield seen.at_s, seen.plane, service, address
    for entry in history.logged:
        for service, address in entry.bound.items():
            yield entry.at_s, f"{entry.log} {entry.cursor[1]}", service, address


def _addresses(history: History) -> Iterator[Violation]:
    of: dict[str, str] = {}
    owner: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for at_s, where, service, address in sorted(_sightings(history)):
        first = of.setdefault(service, address)
        if first != address and (service, address) not in told:
            told.add((service, address))
            yield Violation(at_s, "vip_changed", service, f"{first}, then {address} at {where}")
        holder = owner.setdefault(address, service)
        if holder != service and (service, address) not in told:
            told.add((service, address))
            what = f"{holder}'s, and {service}'s at {where}"
            yield Violation(at_s, "vip_twice", address, what)


def _blocks(history: History) -> Iterator[Violation]:
    """Also over roll-backs: an owner may have used what a lost entry leased to it."""
    leased: list[tuple[int, int, str]] = []
    for entry in history.logged:
        for owner, first, size in entry.leased.values():
            block = (first, first + size, owner)
            if block in leased:
                continue
            for start, end, other in leased:
                if start < first + size and first < end and other != owner:
                    what = f"{first}+{size} leased to {owner!r} and to {other!r}"
                    yield Violation(entry.at_s, "blocks_overlap", f"{entry.cursor[1]}", what)
            leased.append(block)


# Answers


def _answers(history: History) -> Iterator[Violation]:
    of: dict[str, str] = {}
    for _, _, service, address in sorted(_sightings(history)):
        of.setdefault(service, address)
    lived = lives(history.writes)
    written = _by_service(history.writes)
    downs = _by_name(history.downs)
    unfed = {agent: [_until_fed(history, down) for down in own] for agent, own in downs.items()}
    streams: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in history.answers:
        streams[answer.agent, answer.service].append(answer)
    for (agent, service), answers in streams.items():
        answers.sort()
        writes = written.get(service, [])
        yield from _wrong(answers, of.get(service), ever=any(write.put for write in writes))
        yield from _denied(answers, lived.get(service, []))
        fed = [each for each in answers if not _within(each, unfed.get(agent, []))]
        yield from _resurrected(fed, writes)
        yield from _silent(answers, downs.get(agent, []), unfed.get(agent, []))


def _positive(answer: Answer) -> bool:
    return answer.rcode == NOERROR and answer.address is not None


def _wrong(answers: Iterable[Answer], address: str | None, *, ever: bool) -> Iterator[Violation]:
    for answer in answers:
        if not _positive(answer):
            continue
        if not ever or (address is not None and answer.address != address):
            what = f"{answer.address} in answer to {answer.service}, not {address}"
            yield Violation(answer.got_s, "wrong_answer", answer.agent, what)


def _denied(answers: list[Answer], lived: Iterable[Life]) -> Iterator[Violation]:
    for life in lived:
        during = [a for a in answers if a.asked_s >= life.put_s and a.got_s <= life.to_s]
        visible_s = next((answer.got_s for answer in during if _positive(answer)), None)
        if visible_s is None:
            continue
        for answer in during:
            denies = answer.rcode in (NXDOMAIN, NOERROR) and not _positive(answer)
            if denies and answer.asked_s >= max(visible_s, life.from_s):
                what = (
                    f"{answer.service} denied {answer.asked_s - life.from_s:.2f} s after it was"
                    f" registered, {answer.asked_s - visible_s:.2f} s after it was visible"
                )
                yield Violation(answer.got_s, "nxdomain", answer.agent, what)
                break


def _by_service(writes: Iterable[Write]) -> dict[str, list[Write]]:
    found: defaultdict[str, list[Write]] = defaultdict(list)
    for write in sorted(writes):
        found[write.service].append(write)
    return found


def _resurrected(answers: list[Answer], writes: list[Write]) -> Iterator[Violation]:
    """What is answered goes on along the writes, each taken to have come as early as it can have.

    A registration may come late, after a removal was sent: it is back only if no write is left that
    it could be.
    """
    at = -1  # before all of them: not there
    for answer in answers:
        there = _positive(answer)
        if not (there or answer.rcode == NXDOMAIN) or there == (at >= 0 and writes[at].put):
            continue
        later = (
            number
            for number in range(at + 1, len(writes))
            if writes[number].put == there and writes[number].start_s <= answer.got_s
        )
        found = next(later, None)
        if found is not None:
            at = found
        elif there and at >= 0:
            since_s = answer.got_s - writes[at].start_s
            what = f"{answer.service} is back {since_s:.2f} s after removal"
            yield Violation(answer.got_s, "resurrected", answer.agent, what)
            return


def _until_fed(history: History, down: Down) -> Down:
    """From an agent's end until its zone has told it how the map is now."""
    fed = (each.at_s + FIRST_BEAT_S for each in history.fed if each.agent == down.name)
    return down._replace(
        to_s=next((at_s for at_s in fed if at_s > down.to_s + FIRST_BEAT_S), float("inf"))
    )


def _within(answer: Answer, downs: Iterable[Down]) -> bool:
    return any(answer.asked_s <= down.to_s and answer.got_s >= down.from_s for down in downs)


def _silent(answers: list[Answer], downs: list[Down], unfed: list[Down]) -> Iterator[Violation]:
    answered = False
    for answer in answers:
        if answer.rcode in (NOERROR, NXDOMAIN):
            answered = True
        elif answered and not _within(answer, downs if answer.rcode is None else unfed):
            said = "nothing" if answer.rcode is None else f"rcode {answer.rcode}"
            what = f"{said} in answer to {answer.service}"
            yield Violation(answer.got_s, "no_answer", answer.agent, what)
            return


def _by_name(downs: Iterable[Down]) -> dict[str, list[Down]]:
    found: defaultdict[str, list[Down]] = defaultdict(list)
    for down in downs:
        found[down.name].append(down)
    return found


# Logs


def _logs(history: History) -> Iterator[Violation]:
    entries: dict[tuple[str, Cursor], bytes] = {}
    states: dict[Cursor, dict[str, str]] = {}
    for entry in history.logged:
        held = entries.setdefault((entry.log, entry.cursor), entry.h)
        if held != entry.h:
            what = f"{held.hex()} and {entry.h.hex()}"
            yield Violation(entry.at_s, "history_rewritten", f"{entry.log} {entry.cursor[1]}", what)
        if entry.log == "global" and entry.parts:
            states.setdefault(entry.cursor, dict(entry.parts))
    for state in sorted(history.states):
        # Readers are compared with one another where the log itself was not read.
        known = states.setdefault(state.cursor, {})
        for part, value in state.parts.items():
            if known.setdefault(part, value) != value:
                what = (
                    f"part {part!r} at {state.cursor[1]} is {value}, not {known[part]}, after"
                    f" {state.resyncs} resynchronisations"
                )
                yield Violation(state.at_s, "undetected_gap", state.reader, what)
                break


# Lag


class _Arrival(NamedTuple):
    """A registration's way to an agent."""

    sent_s: float
    acknowledged_s: float
    lacked_until_s: float
    """The agent was last seen without it."""
    had_from_s: float


def _lags(history: History, within_s: float) -> Iterator[Violation]:
    arrivals = _arrivals(history)
    samples: defaultdict[tuple[str, str], list[Lag]] = defaultdict(list)
    for lag in history.lags:
        samples[lag.agent, lag.origin].append(lag)
    for (agent, origin), lags in samples.items():
        lags.sort()
        yield from _too_low(agent, lags, arrivals[agent, origin], within_s)
        if not agent.startswith(f"{origin}-"):  # a map's age is that of what it has of other zones
            yield from _too_high(agent, lags, arrivals[agent, origin], within_s)


def _arrivals(history: History) -> defaultdict[tuple[str, str], list[_Arrival]]:
    """Of what was registered while it did not exist, by agent and origin zone."""
    # Only of a first life: later ones may be answered from a removal that is still on its way.
    firsts = {service: lived[0] for service, lived in lives(history.writes).items()}
    answers: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in sorted(history.answers):
        life = firsts.get(answer.service)
        if life is not None and answer.asked_s >= life.from_s and answer.got_s <= life.to_s:
            answers[answer.agent, answer.service].append(answer)
    found: defaultdict[tuple[str, str], list[_Arrival]] = defaultdict(list)
    for (agent, service), given in answers.items():
        had_s = next((answer.got_s for answer in given if _positive(answer)), float("inf"))
        lacked = [a.asked_s for a in given if a.rcode == NXDOMAIN and a.got_s <= had_s]
        life = firsts[service]
        arrival = _Arrival(life.put_s, life.from_s, max(lacked, default=0.0), had_s)
        found[agent, service.partition("/")[0]].append(arrival)
    return found


def _too_low(
    agent: str, lags: list[Lag], arrivals: list[_Arrival], within_s: float
) -> Iterator[Violation]:
    """At most once a stretch in which something was lacking."""
    asked = [lag.asked_s for lag in lags]
    got = [lag.got_s for lag in lags]
    for arrival in sorted(arrivals, key=lambda one: one.acknowledged_s):
        start = bisect_right(asked, arrival.acknowledged_s + within_s)
        end = bisect_right(got, arrival.lacked_until_s)
        for lag in lags[start:end]:
            truth_s = lag.asked_s - arrival.acknowledged_s  # at least
            if lag.lag_s < truth_s - within_s:
                what = f"{lag.lag_s:.2f} s of {lag.origin}, but lacks what is {truth_s:.2f} s old"
                yield Violation(lag.got_s, "lag_too_low", agent, what)
                return


def _too_high(
    agent: str, lags: list[Lag], arrivals: list[_Arrival], within_s: float
) -> Iterator[Violation]:
    """A registration that has arrived bounds the age from above, until lag is sampled again."""
    had = sorted(
        (arrival.had_from_s, arrival.sent_s)
        for arrival in arrivals
        if arrival.had_from_s != float("inf")
    )
    newest: list[tuple[float, float]] = []
    for had_s, sent_s in had:
        newest.append((had_s, max(sent_s, newest[-1][1] if newest else sent_s)))
    for lag in lags:
        place = bisect_right(newest, (lag.asked_s - SAMPLED_S, float("inf")))
        if place == 0:
            continue
        truth_s = lag.got_s - newest[place - 1][1]  # at most
        if lag.lag_s > truth_s + within_s:
            what = f"{lag.lag_s:.2f} s of {lag.origin}, but has what is {truth_s:.2f} s old"
            yield Violation(lag.got_s, "lag_too_high", agent, what)
            return


# The end


def _finals(history: History) -> Iterator[Violation]:
    by_service = _by_service(history.writes)
    for (answer,) in history.finals:
        own = by_service.get(answer.service, [])
        before = [write for write in own if write.end_s <= answer.asked_s]
        if not before or not before[-1].done:
            continue
        if before[-1].put != _positive(answer):
            wanted = "registered" if before[-1].put else "removed"
            what = f"{answer.service} was {wanted}, and the answer is {answer.address or 'no'}"
            yield Violation(answer.got_s, "not_converged", answer.agent, what)
