"""The state of a log: equal after any replay, comparable, and told to indexes change by change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import Chain, replayed
from zonemesh.draft import Draft
from zonemesh.errors import WireError
from zonemesh.model import Change, Cursor, Position
from zonemesh.registry import Registry, difference
from zonemesh.travel import kept_by

KINDS = ("MeshService", "vip.MeshService", "Dataplane", "unknown")
KEYS = ("default/west//a", "default/west//b", "default/east//a", "default///a")
PAYLOADS = st.none() | st.sampled_from([b"", b"1", b"2"])
CHANGES = st.lists(
    st.builds(Change, st.sampled_from(KINDS), st.sampled_from(KEYS), PAYLOADS), max_size=8
)
HISTORIES = st.lists(CHANGES, max_size=8)
TABLES = st.dictionaries(
    st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), st.sampled_from([b"1", b"2"]))
)


def rows(registry: Registry) -> dict[tuple[str, str], bytes]:
    return {(kind, key): payload for kind, key, payload in registry.freeze().rows()}


class Recorder:
    """An index that keeps what it was told, and checks that it fits what it was told before."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}
        self.told = 0

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        self.told += 1
        assert old != new
        assert self.rows.get((kind, key)) == old
        if new is None:
            del self.rows[kind, key]
        else:
            self.rows[kind, key] = new


class Peeking:
    """An index that looks at the registry while it is told, as the VIP map does."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.rows = rows(registry)

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if new is None:
            del self.rows[kind, key]
        else:
            self.rows[kind, key] = new
        assert rows(self.registry) == self.rows


def written(history: Sequence[Sequence[Change]]) -> Chain:
    chain = Chain()
    for number, changes in enumerate(history):
        net = {change[:2]: change for change in changes}
        cursor = Cursor("up", Position(1, number))
        chain.commit(*net.values(), src={f"zone:{number % 2}:up": cursor}, after_ms=number)
    return chain


def assert_same(one: Registry, other: Registry) -> None:
    assert rows(one) == rows(other)
    assert one.digest == other.digest
    assert one.parts() == other.parts()
    assert one.freeze().meta == other.freeze().meta


@given(HISTORIES)
def test_replaying_a_log_gives_the_same_state_and_digest(
    history: list[list[Change]],
) -> None:
    chain = written(history)

    assert_same(replayed(chain.entries), chain.registry)


@given(HISTORIES, st.data())
def test_entries_read_again_change_nothing(
    history: list[list[Change]], data: st.DataObject
) -> None:
    chain = written(history)
    start = data.draw(st.integers(0, len(chain.entries)))

    again = replayed(chain.entries[start:], into=replayed(chain.entries))

    assert_same(again, chain.registry)


@given(HISTORIES)
def test_the_digest_is_that_of_the_records_whatever_their_history(
    history: list[list[Change]],
) -> None:
    registry = written(history).registry
    afresh = Registry()

    for (kind, key), payload in sorted(rows(registry).items(), reverse=True):
        afresh.put(kind, key, payload)

    assert afresh.digest == registry.digest
    assert afresh.parts() == registry.parts()


def test_the_digest_is_the_same_in_every_process_and_build() -> None:
    registry = Registry()
    registry.put("MeshService", "default/west//redis", b"payload")
    registry.put("Mesh", "///default", b"")

    assert registry.digest == "0e36e44ed39f0b2af9be019138aec060"


def test_a_record_counts_with_its_kind_its_key_and_its_payload() -> None:
    digests = set()
    for row in [("k", "a/b//c", b"x"), ("l", "a/b//c", b"x"), ("k", "a/b//d", b"x"),
                ("k", "a/b//c", b"y")]:  # fmt: skip
        registry = Registry()
        registry.put(*row)
        digests.add(registry.digest)

    assert len(digests) == 4


def test_parts_are_by_kind_and_zone() -> None:
    registry = Registry()
    registry.put("MeshService", "default/west//a", b"1")
    registry.put("MeshService", "default/east//a", b"1")
    registry.put("Mesh", "///default", b"1")
    registry.put("Mesh", "///default", None)

    assert set(registry.parts()) == {("MeshService", "east"), ("MeshService", "west")}


@given(HISTORIES)
def test_a_snapshot_is_the_state_that_it_was_taken_of(history: list[list[Change]]) -> None:
    chain = written([*history, []])
    frozen = chain.registry.freeze()
    chain.commit(Change("unknown", "default/west//later", b"1"))

    loaded = Registry()
    for row in frozen.rows():
        loaded.put(*row)
    loaded.verify(frozen.meta)

    assert_same(loaded, replayed(chain.entries[:-1]))
    assert len(loaded) == len(frozen)


def test_a_snapshot_that_lacks_a_row_is_noticed() -> None:
    chain = Chain()
    chain.commit(Change("Mesh", "///default", b"1"), Change("Zone", "///west", b"1"))
    frozen = chain.registry.freeze()
    loaded = Registry()
    loaded.put("Mesh", "///default", b"1")

    with pytest.raises(WireError):
        loaded.verify(frozen.meta)


@pytest.mark.parametrize(
    "changed",
    [
        {"incarnation": 7},
        {"position": [1]},
        {"position": [1, "2"]},
        {"position": [True, 2]},
        {"h": 8},
        {"h": "text"},
        {"log_time_ms": "1"},
        {"time_ms": None},
        {"cursors": []},
        {"cursors": {"a": 1}},
        {"cursors": {"a": ["one", [1, 2, 3]]}},
    ],
)
def test_a_snapshot_with_a_malformed_head_is_refused(changed: Mapping[str, Any]) -> None:
    meta = {**Registry().freeze().meta, **changed}

    with pytest.raises(WireError):
        Registry().verify(meta)


def test_a_snapshot_without_a_field_is_refused() -> None:
    for name in ("incarnation", "position", "h", "log_time_ms", "time_ms", "cursors"):
        meta = {key: value for key, value in Registry().freeze().meta.items() if key != name}
        with pytest.raises(WireError):
            Registry().verify(meta)


@given(HISTORIES)
def test_indexes_hear_of_every_change_that_is_one(history: list[list[Change]]) -> None:
    recorder = Recorder()
    chain = Chain(Registry(indexes=[recorder]))
    for changes in history:
        chain.commit(*changes)

    late = Recorder()
    chain.registry.add_index(late)

    assert recorder.rows == late.rows == rows(chain.registry)


@given(HISTORIES, HISTORIES)
def test_becoming_another_state_tells_indexes_exactly_the_difference(
    here: list[list[Change]], there: list[list[Change]]
) -> None:
    registry, fresh = written(here).registry, written(there).registry
    before, after = rows(registry), rows(fresh)
    recorder = Recorder()
    registry.add_index(recorder)
    registry.add_index(Peeking(registry))
    recorder.told = 0

    registry.become(fresh)

    assert recorder.rows == after
    assert recorder.told == sum(
        before.get(row) != after.get(row) for row in before.keys() | after.keys()
    )
    assert_same(registry, written(there).registry)


@given(TABLES, TABLES)
def test_a_difference_leads_from_one_state_to_the_other_puts_first(
    old: dict[str, dict[str, bytes]], new: dict[str, dict[str, bytes]]
) -> None:
    changes = difference(old, new)

    found = {kind: dict(table) for kind, table in old.items()}
    for kind, key, payload in changes:
        if payload is None:
            del found[kind][key]
        else:
            assert found.setdefault(kind, {}).get(key) != payload
            found[kind][key] = payload
    assert _filled(found) == _filled(new)
    assert [each.payload is None for each in changes] == sorted(
        each.payload is None for each in changes
    )


def _filled(tables: Mapping[str, Mapping[str, bytes]]) -> dict[str, Any]:
    return {kind: table for kind, table in tables.items() if table}


@given(HISTORIES)
def test_a_copy_holds_what_its_filter_keeps_and_compares_by_parts(
    history: list[list[Change]],
) -> None:
    chain = written(history)
    keeps = kept_by("west")

    copy = replayed(chain.entries, into=Registry(keeps=keeps))

    assert rows(copy) == {
        row: payload for row, payload in rows(chain.registry).items() if keeps(*row)
    }
    whole = chain.registry.parts()
    bindings = {part: value for part, value in copy.parts().items() if part[0].startswith("vip")}
    assert bindings.items() <= whole.items()
    assert copy.cursor == chain.registry.cursor


def test_an_emptied_copy_keeps_its_filter_only() -> None:
    recorder = Recorder()
    copy = Registry(keeps=kept_by("west"), indexes=[recorder])
    copy.put("MeshService", "default/east//a", b"1")

    fresh = copy.empty()
    fresh.put("MeshService", "default/west//a", b"1")
    fresh.put("MeshService", "default/east//b", b"1")

    assert list(rows(fresh)) == [("MeshService", "default/east//b")]
    assert recorder.told == 1


# Drafts


@given(HISTORIES, CHANGES)
def test_a_draft_is_the_net_change(history: list[list[Change]], drafted: list[Change]) -> None:
    chain = written(history)
    draft = Draft(chain.registry)
    expected = rows(chain.registry)

    for kind, key, payload in drafted:
        changed = draft.set(kind, key, payload)
        assert changed == (expected.get((kind, key)) != payload)
        if payload is None:
            expected.pop((kind, key), None)
        else:
            expected[kind, key] = payload
        assert draft.get(kind, key) == payload

    changes = draft.changes()
    for change in changes:
        assert chain.registry.get(change.kind, change.key) != change.payload
    size = sum(len(kind) + len(key) + len(payload or b"") for kind, key, payload in changes)
    assert size <= draft.bytes
    chain.commit(*changes)
    assert rows(chain.registry) == expected


def test_numbers_are_drawn_once_and_never_twice() -> None:
    chain = Chain()
    draft = Draft(chain.registry)
    first = [draft.draw("order"), draft.draw("order", 3), draft.draw("order"), draft.draw("birth")]
    chain.commit(*draft.changes())
    later = Draft(chain.registry)
    later.skip("order", 3)

    assert first == [1, 2, 5, 1]
    assert later.draw("order") == 6
    later.skip("order", 9)
    assert later.draw("order") == 10
