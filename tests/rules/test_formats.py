"""Which format a log is written in: none that somebody cannot read, and never an earlier one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import Chain
from tests.formats import LATER, learn
from zonemesh import wire
from zonemesh.errors import NewerFormatError, WireError
from zonemesh.formats import Formats, Verdict, agreed, said
from zonemesh.log import snapshot
from zonemesh.registry import Registry
from zonemesh.wire import FORMAT, decode, seal

known = st.sets(st.integers(1, 6), min_size=1)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> int:
    codecs = dict(wire.CODECS)
    learn(codecs)
    monkeypatch.setitem(wire.CODECS, LATER, codecs[LATER])
    return LATER


@pytest.mark.parametrize(
    "mine, readers, verdict",
    [
        ((1,), {}, Verdict(1, ())),
        ((1, 2), {}, Verdict(2, ())),
        ((1, 2), {"a": (1, 2), "b": (1, 2)}, Verdict(2, ())),
        ((1, 2), {"a": (1, 2), "b": (1,)}, Verdict(1, ("b",))),
        ((1, 2, 3), {"a": (1, 2), "b": (1, 2, 3)}, Verdict(2, ("a",))),
        ((1,), {"a": (1, 2)}, Verdict(1, ())),
    ],
)
def test_a_log_is_raised_as_far_as_everybody_reads(
    mine: Collection[int], readers: dict[str, Collection[int]], verdict: Verdict
) -> None:
    assert agreed(1, mine, readers) == verdict


def test_what_is_raised_stays_whoever_comes() -> None:
    assert agreed(2, (1, 2), {"an old one": (1,)}) == Verdict(2, ())


@given(present=st.integers(1, 6), mine=known, readers=st.dictionaries(st.text(), known))
def test_a_format_that_is_taken_is_read_by_all_and_later(
    present: int, mine: set[int], readers: dict[str, Collection[int]]
) -> None:
    verdict = agreed(present, mine, readers)

    assert verdict.format >= present
    if verdict.format > present:
        assert all(verdict.format in each for each in (mine, *readers.values()))


def test_a_zone_follows_global_as_far_as_it_can() -> None:
    assert Formats((1, 2), lambda: 1).followed(1) == 1
    assert Formats((1, 2), lambda: 2).followed(1) == 2
    assert Formats((1, 2), lambda: 3).followed(1) == 2
    assert Formats((1, 2), lambda: 1).followed(2) == 2


def test_a_zone_reads_what_all_its_control_planes_read() -> None:
    formats = Formats((1, 2), lambda: 2)
    formats.heard([(1, 2), (1,)])
    assert formats.readable == (1,)
    assert formats.followed(1) == 1
    formats.heard([(1, 2)])
    assert formats.followed(1) == 2


@pytest.mark.parametrize("value", [None, 7, "12", [], [True], ["2"], [0], [-1], [1 << 20], {}])
def test_who_does_not_say_what_it_reads_reads_the_first(value: Any) -> None:
    assert said(value) == (FORMAT,)


def test_what_is_said_is_taken_as_far_as_it_is_sound() -> None:
    assert said([2, 1, "x", 2]) == (1, 2)


def test_an_entry_of_a_later_format_continues_the_chain(later: int) -> None:
    chain = Chain()
    first = chain.commit()
    entry = chain.commit().entry
    sealed = seal(entry, first.h, version=later)

    again, chained = decode(sealed.data, first.h)
    assert chained
    assert (again.data, again.h, again.entry.position) == (sealed.data, sealed.h, entry.position)
    assert again.format == later
    with pytest.raises(NewerFormatError, match=r"format 2.*reads up to 1: upgrade it"):
        decode(sealed.data, first.h, formats=(1,))


def test_a_registry_knows_what_its_log_is_written_in(later: int) -> None:
    chain = Chain()
    first = chain.commit()
    registry = Registry()
    registry.apply(first)
    assert registry.format == FORMAT
    registry.apply(seal(chain.commit().entry, first.h, version=later))
    frozen = registry.freeze()
    chunks = snapshot.encode(frozen.meta, frozen.rows())

    loaded = Registry()
    meta, rows = snapshot.decode(chunks)
    for row in rows:
        loaded.put(*row)
    loaded.verify(meta)
    assert loaded.format == later
    with pytest.raises(NewerFormatError, match="a snapshot of format 2"):
        snapshot.decode(chunks, (1,))


@pytest.mark.parametrize("version", [0, -1, True, None, "1", 1.0])
def test_what_is_no_format_is_no_later_one(version: Any) -> None:
    with pytest.raises(WireError) as raised:
        wire.check_format("an entry", version)

    assert not isinstance(raised.value, NewerFormatError)
