"""When another history of global's log may be shown."""

from __future__ import annotations

from zonecp.holding import SETTLE_S, Holding
from zonemesh.errors import RolledBackError
from zonemesh.log.clock import Clock
from zonemesh.model import Cursor, Position
from zonemesh.recovery import RECOVERY, Recovery
from zonemesh.registry import Registry
from zonemesh.settings import GLOBAL_KEY

LOST = Cursor("g", Position(4, 7))


class Time:
    now_s = 0.0

    def mono_s(self) -> float:
        return self.now_s


def at(cursor: Cursor, recovery: str = "") -> Registry:
    """A state there, with a recovery that began in an entry."""
    registry = Registry()
    registry.incarnation, registry.position = cursor
    if recovery:
        record = Recovery(id=recovery, reason="a test says so", since_ms=0)
        registry.put(RECOVERY, GLOBAL_KEY, record.pack())
    return registry


def held(time: Time) -> Holding:
    shown = at(LOST)
    shown.put("Mesh", "///default", b"\x80")
    holding = Holding(shown, Clock(wall_ms=lambda: 0, mono_s=time.mono_s))
    holding.begin(RolledBackError("the log ends at 3-6; 4-7 was read"))
    return holding


def test_the_map_stays_until_a_recovery_is_over() -> None:
    holding = held(Time())

    assert not holding.over(at(Cursor("g", Position(5, 1)), recovery="g.5-1"))
    assert holding.lost is None  # global knows
    assert holding.over(at(Cursor("g", Position(5, 9))))


def test_a_recovery_that_was_over_before_the_fault_is_none_while_entries_are_put_back() -> None:
    time = Time()
    holding = held(time)

    assert not holding.over(at(Cursor("g", Position(3, 6)), recovery="g.2-0"))
    assert holding.lost == LOST
    assert not holding.over(at(Cursor("g", Position(3, 8))))  # 4-7 is still to come
    time.now_s = SETTLE_S
    assert holding.over(at(Cursor("g", Position(4, 9))))


def test_entries_that_are_put_back_are_not_shown_one_by_one_however_late_they_come() -> None:
    time = Time()
    holding = held(time)
    assert not holding.over(at(Cursor("g", Position(3, 6))))
    time.now_s = 10 * SETTLE_S  # nobody has led

    assert not holding.over(at(Cursor("g", Position(3, 7))))
    assert not holding.over(at(Cursor("g", Position(5, 0))))  # global has yet to hear of 4-7
    time.now_s += SETTLE_S
    assert holding.over(at(Cursor("g", Position(5, 4))))
