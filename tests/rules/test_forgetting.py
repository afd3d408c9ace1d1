"""Registries that ever new names go through do not grow for ever."""

from __future__ import annotations

import pytest

from tests.builders import put_service
from tests.zones import SERVICE, VIP, Zone, key_of
from zonecp.inputs import Begin
from zonemesh import forgetting
from zonemesh.deciding import Delete
from zonemesh.draft import Draft
from zonemesh.forgetting import KEPT_MS, Forgetting
from zonemesh.ipam import Binding, Ledger
from zonemesh.model import Change, Key
from zonemesh.registry import Registry
from zonemesh.settings import Settings

QUARANTINE_MS = 60_000
POOL = 241 << 24


def resting(count: int, *, released_ms: int = 0, live: int = 0) -> tuple[Registry, Ledger]:
    registry, ledger = Registry(), Ledger(SERVICE)
    registry.add_index(ledger)
    for number in range(count + live):
        released = released_ms if number < count else None
        packed = Binding(POOL + number, 1, released, 1).pack()
        registry.put(VIP, Key("default", "west", "", f"s{number}").packed, packed)
    return registry, ledger


def forget(rounds: Forgetting, draft: Draft, ledger: Ledger, at_ms: int) -> None:
    rounds.forget(
        draft,
        [(ledger, "west", None)],
        log_time_ms=at_ms,
        quarantine_ms=QUARANTINE_MS,
        full=lambda: False,
    )


def forget_all(registry: Registry, ledger: Ledger, at_ms: int) -> int:
    """As heartbeats do, one after the other; how many bindings are left."""
    rounds = Forgetting()
    for _ in range(100):
        draft = Draft(registry)
        forget(rounds, draft, ledger, at_ms)
        changes = draft.changes()
        assert len(changes) <= 500
        for change in changes:
            registry.put(*change)
    return len(registry.table(VIP))


def test_nothing_is_forgotten_within_the_quarantine_however_much_rests() -> None:
    registry, ledger = resting(12_000, released_ms=1_000)

    assert forget_all(registry, ledger, 1_000 + QUARANTINE_MS - 1) == 12_000


def test_former_addresses_are_remembered_for_a_month_after_it() -> None:
    registry, ledger = resting(50)

    assert forget_all(registry, ledger, QUARANTINE_MS + KEPT_MS - 1) == 50
    assert forget_all(registry, ledger, QUARANTINE_MS + KEPT_MS) == 0


def test_of_too_many_only_as_many_are_remembered_as_is_allowed() -> None:
    registry, ledger = resting(12_500)

    assert forget_all(registry, ledger, QUARANTINE_MS) == forgetting.KEPT_MAX


def test_what_is_in_use_is_never_forgotten() -> None:
    registry, ledger = resting(10, live=20)

    assert forget_all(registry, ledger, 10 * KEPT_MS) == 20
    assert ledger.live("west") == 20


def test_what_comes_back_in_the_very_entry_keeps_its_address() -> None:
    registry, ledger = resting(1)
    draft = Draft(registry)
    back = Change(VIP, Key("default", "west", "", "s0").packed, Binding(POOL, 1, None, 1).pack())
    draft.set(*back)

    forget(Forgetting(), draft, ledger, 10 * KEPT_MS)

    assert draft.changes() == [back]


@pytest.mark.timeout(120)
def test_fifty_thousand_names_through_a_zone_leave_it_as_large_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "KEPT_MAX", 200)
    zone = Zone()
    settings = Settings(quarantine_ms=QUARANTINE_MS, grace_ms=0)
    zone.submit(Begin("uid", settings, adopted=True))
    largest = 0

    for first in range(0, 50_000, 1_000):
        names = [f"once-{number}" for number in range(first, first + 1_000)]
        zone.submit(*(put_service(name) for name in names))
        zone.submit(*(Delete(SERVICE, key_of(name)) for name in names))
        for _ in range(4):
            zone.tick(QUARANTINE_MS)
        largest = max(largest, len(zone.state.registry))

    assert largest < 3_000
    assert len(zone.state.registry.table(VIP)) <= 1_200
    held = zone.state.ledgers[SERVICE]
    assert held.live("west") == 0
