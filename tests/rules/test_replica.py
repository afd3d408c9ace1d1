"""The table at the top of `zonemesh.replica`, row by row."""

from __future__ import annotations

import pytest

from tests.builders import Chain
from zonemesh.errors import (
    ForkError,
    GapError,
    LogFaultError,
    RolledBackError,
    StoreLostError,
)
from zonemesh.model import START, Position
from zonemesh.replica import RESTORED, SAME_FAULT_MAX, Patience, check_head, follows
from zonemesh.wire import NO_HASH, NOWHERE, Entry, Place, Sealed, decode, seal

H = b"12345678"
AT_3 = Place("one", Position(1, 3), H)


def five() -> list[Sealed]:
    chain = Chain()
    for _ in range(5):
        chain.commit()
    return chain.entries


def place_after(sealed: Sealed) -> Place:
    return Place(sealed.entry.incarnation, sealed.entry.position, sealed.h)


def read(place: Place, sealed: Sealed) -> bool:
    decoded, chained = decode(sealed.data, place.h)
    return follows(place, decoded, chained=chained)


def test_the_next_entry_is_applied() -> None:
    entries = five()

    assert read(place_after(entries[2]), entries[3])


def test_the_first_entry_of_any_incarnation_is_applied_by_who_has_read_nothing() -> None:
    assert read(NOWHERE, five()[0])


def test_a_log_that_was_founded_again_is_not_begun_without_its_snapshot() -> None:
    first = Chain().commit(note={RESTORED: "one.1-9"})

    with pytest.raises(GapError):
        read(NOWHERE, first)


@pytest.mark.parametrize("again", [0, 1, 2])
def test_an_entry_at_or_before_my_position_is_dropped(again: int) -> None:
    entries = five()

    assert not read(place_after(entries[2]), entries[again])


def test_an_entry_of_another_incarnation_means_that_the_store_was_lost() -> None:
    foreign = Chain(incarnation="two").commit()

    with pytest.raises(StoreLostError):
        read(place_after(five()[2]), foreign)


def test_an_entry_that_follows_another_than_mine_is_a_gap() -> None:
    entries = five()

    with pytest.raises(GapError):
        read(place_after(entries[1]), entries[3])


def test_who_has_read_nothing_and_meets_a_later_entry_has_a_gap() -> None:
    with pytest.raises(GapError):
        read(NOWHERE, five()[1])


def test_an_entry_that_chains_to_another_hash_is_a_fork() -> None:
    entries = five()

    with pytest.raises(ForkError):
        read(place_after(entries[2])._replace(h=H), entries[3])


def test_a_first_entry_that_chains_to_something_is_a_fork() -> None:
    with pytest.raises(ForkError):
        read(Place("", START, H), five()[0])


@pytest.mark.parametrize(
    "head, fault",
    [
        (None, StoreLostError),
        (AT_3._replace(incarnation="two"), StoreLostError),
        (AT_3._replace(incarnation="two", position=Position(9, 9)), StoreLostError),
        (AT_3._replace(position=Position(1, 2)), RolledBackError),
        (AT_3._replace(position=Position(0, 9)), RolledBackError),
        (AT_3._replace(h=NO_HASH), ForkError),
        (AT_3._replace(position=Position(1, 4)), GapError),
    ],
)
def test_a_head_that_does_not_fit_my_place_is_a_fault(
    head: Place | None, fault: type[LogFaultError]
) -> None:
    with pytest.raises(fault):
        check_head(AT_3, head, read_nothing=True)


@pytest.mark.parametrize("read_nothing", [True, False])
def test_a_head_where_i_am_is_none(read_nothing: bool) -> None:
    check_head(AT_3, AT_3, read_nothing=read_nothing)


def test_a_head_beyond_me_is_none_while_there_is_something_to_read() -> None:
    check_head(AT_3, AT_3._replace(position=Position(2, 0), h=NO_HASH), read_nothing=False)


def test_no_log_is_none_for_who_has_read_nothing() -> None:
    check_head(NOWHERE, None, read_nothing=True)


def test_who_has_read_nothing_of_a_log_that_has_entries_has_a_gap() -> None:
    with pytest.raises(GapError):
        check_head(NOWHERE, AT_3, read_nothing=True)


def test_patience_ends_with_the_same_fault_in_a_row() -> None:
    patience = Patience()

    found = [patience.met(GapError()) for _ in range(SAME_FAULT_MAX + 1)]

    assert found == [True, True, False, False]


def test_patience_starts_anew_with_another_fault() -> None:
    patience = Patience()
    patience.met(GapError())
    patience.met(GapError())

    assert patience.met(ForkError())
    assert patience.met(GapError())


def test_patience_starts_anew_with_progress() -> None:
    patience = Patience()
    patience.met(GapError())
    patience.met(GapError())
    patience.progressed()

    assert patience.met(GapError())
    assert patience.met(GapError())


def test_a_blank_reader_does_not_take_a_restored_logs_first_entry_for_its_beginning() -> None:
    first = Entry(
        incarnation="a" * 16,
        position=Position(3, 0),
        previous=START,
        writer="w",
        time_ms=0,
        mono_delta_ms=0,
        log_time_ms=0,
        note={RESTORED: "b.2-7"},
    )

    with pytest.raises(GapError, match="snapshot"):
        follows(NOWHERE, seal(first, NO_HASH), chained=True)
