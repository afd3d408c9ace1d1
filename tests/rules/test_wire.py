"""Entries as bytes: what is written is read, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonemesh.errors import InputError, NewerFormatError, WireError
from zonemesh.model import SEQ_MAX, START, Change, Cursor, Key, Position, Record, zone_of
from zonemesh.wire import (
    ENTRY_BYTES_MAX,
    FORMAT,
    NO_HASH,
    UP_ENTRY_BYTES_MAX,
    Entry,
    chain,
    decode,
    seal,
)

ENTRY = Entry(
    incarnation="6f1d",
    position=Position(2, 7),
    previous=Position(2, 6),
    writer="a1b2",
    time_ms=1_790_000_000_000,
    mono_delta_ms=1000,
    log_time_ms=86_400_000,
    src={"zone:west:up": Cursor("77aa", Position(1, 41))},
    note={"hash": "00ff"},
    changes=[
        Change("MeshService", "default/west//redis", b"\x01\x02"),
        Change("vip.MeshService", "default/west//redis", None),
    ],
)
GOLDEN = bytes.fromhex(
    "9301c4909aa436663164920207920206a461316232cf000001a0c4506c00cd03e8ce05265c0081ac7a6f6e65"
    "3a776573743a757092a43737616192012981a468617368a4303066669293ab4d65736853657276696365b364"
    "656661756c742f776573742f2f7265646973c402010293af7669702e4d65736853657276696365b364656661"
    "756c742f776573742f2f7265646973c0c408f899740f97d4c1bf"
)

NATURALS = st.integers(0, SEQ_MAX)
POSITIONS = st.builds(Position, NATURALS, NATURALS)
SCALARS = st.none() | st.booleans() | st.integers(-(1 << 63), SEQ_MAX) | st.text() | st.binary()
ENTRIES = st.builds(
    Entry,
    incarnation=st.text(),
    position=POSITIONS,
    previous=POSITIONS,
    writer=st.text(),
    time_ms=NATURALS,
    mono_delta_ms=NATURALS,
    log_time_ms=NATURALS,
    src=st.dictionaries(st.text(), st.builds(Cursor, st.text(), POSITIONS), max_size=3),
    note=st.dictionaries(st.text(), SCALARS, max_size=3),
    changes=st.lists(st.builds(Change, st.text(), st.text(), st.none() | st.binary()), max_size=4),
)


def packed(**changed: Any) -> bytes:
    """The golden entry with some of its fields replaced by anything."""
    names = ("incarnation", "position", "previous", "writer", "time_ms", "mono_delta_ms")
    fields: dict[str, Any] = {name: getattr(ENTRY, name) for name in names}
    fields |= {"log_time_ms": 1, "src": {}, "note": {}, "changes": []}
    body = msgpack.packb([*(fields | changed).values()])
    return bytes(msgpack.packb([FORMAT, body, chain(NO_HASH, body)]))


@given(ENTRIES)
def test_what_is_sealed_is_decoded(entry: Entry) -> None:
    sealed = seal(entry, b"previous")

    decoded, chained = decode(sealed.data, b"previous")

    assert chained
    assert decoded == sealed


def test_the_bytes_of_an_entry_are_those_of_every_build() -> None:
    sealed = seal(ENTRY, NO_HASH)

    assert sealed.data == GOLDEN
    assert decode(GOLDEN, NO_HASH) == (sealed, True)


def test_the_chain_is_reported_broken_and_not_raised() -> None:
    sealed = seal(ENTRY, b"previous")

    decoded, chained = decode(sealed.data, b"another.")

    assert not chained
    assert decoded.entry == ENTRY


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_changed_octet_breaks_the_chain_or_the_entry(at: int) -> None:
    data = bytearray(seal(ENTRY, NO_HASH).data)
    data[at % len(data)] ^= 1

    try:
        _, chained = decode(bytes(data), NO_HASH)
    except WireError:
        return
    assert not chained


@given(st.binary(max_size=200))
def test_garbage_raises_only_wire_errors(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data, NO_HASH)


@given(
    st.sampled_from(
        ["incarnation", "position", "previous", "writer", "time_ms", "log_time_ms", "src", "note"]
    ),
    st.recursive(
        SCALARS,
        lambda each: (
            st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=2)
        ),
        max_leaves=5,
    ),
)
def test_a_field_of_any_shape_is_read_or_raises_a_wire_error(name: str, value: Any) -> None:
    data = packed(**{name: value})

    try:
        sealed, chained = decode(data, NO_HASH)
    except WireError:
        return
    assert chained
    assert type(sealed.entry.position.term) is int


@pytest.mark.parametrize(
    "field, value",
    [
        ("incarnation", 1),
        ("incarnation", b"x"),
        ("position", [1]),
        ("position", [1, 2, 3]),
        ("position", [1, True]),
        ("position", [1, -1]),
        ("position", [1, SEQ_MAX + 1]),
        ("previous", "12"),
        ("writer", None),
        ("time_ms", 1.0),
        ("mono_delta_ms", False),
        ("log_time_ms", True),
        ("src", []),
        ("src", {"a": ["b"]}),
        ("src", {"a": [1, [1, 1]]}),
        ("note", None),
        ("changes", 7),
        ("changes", ["kxp"]),
        ("changes", [["kind", "key"]]),
        ("changes", [["kind", "key", "text"]]),
        ("changes", [["kind", b"key", b""]]),
        ("changes", [[1, "key", b""]]),
    ],
)
def test_a_field_of_the_wrong_shape_is_refused(field: str, value: Any) -> None:
    with pytest.raises(WireError):
        decode(packed(**{field: value}), NO_HASH)


def test_fields_that_a_later_build_appends_are_ignored() -> None:
    body = msgpack.packb(
        ["one", [1, 0], [0, 0], "w", 1, 0, 0, {}, {}, [], {"later": "field"}, None]
    )
    data = msgpack.packb([FORMAT, body, chain(NO_HASH, body)])

    sealed, chained = decode(data, NO_HASH)

    assert chained
    assert sealed.entry.previous == START


@pytest.mark.parametrize("rest", [[b"", b""], [], ["any", {"thing": 1}, 2, 3]])
def test_a_later_format_is_told_apart_whatever_its_shape(rest: list[Any]) -> None:
    with pytest.raises(NewerFormatError):
        decode(msgpack.packb([FORMAT + 1, *rest]), NO_HASH)


@pytest.mark.parametrize("version", [True, 1.0, 0, -1, "1", None])
def test_what_is_no_format_is_refused(version: Any) -> None:
    _, body, h = msgpack.unpackb(seal(ENTRY, NO_HASH).data)

    with pytest.raises(WireError) as caught:
        decode(msgpack.packb([version, body, h]), NO_HASH)
    assert not isinstance(caught.value, NewerFormatError)


@pytest.mark.parametrize("bytes_max", [ENTRY_BYTES_MAX, UP_ENTRY_BYTES_MAX])
def test_an_entry_may_be_as_large_as_the_limit_and_no_larger(bytes_max: int) -> None:
    def entry(size: int) -> Entry:
        return Entry(
            incarnation="one", position=Position(1, 0), previous=START, writer="w", time_ms=0,
            mono_delta_ms=0, log_time_ms=0, changes=[Change("k", "k", bytes(size))],
        )  # fmt: skip

    spare = bytes_max - len(seal(entry(bytes_max - 200), NO_HASH, bytes_max=bytes_max).data)
    largest = entry(bytes_max - 200 + spare)

    assert len(seal(largest, NO_HASH, bytes_max=bytes_max).data) == bytes_max
    with pytest.raises(WireError, match=f"at most {bytes_max}"):
        seal(entry(bytes_max - 199 + spare), NO_HASH, bytes_max=bytes_max)


def test_an_entry_over_the_limit_is_not_even_parsed() -> None:
    with pytest.raises(WireError, match="at most"):
        decode(bytes(ENTRY_BYTES_MAX + 1), NO_HASH)


@given(POSITIONS)
def test_a_position_is_read_from_its_text(position: Position) -> None:
    assert Position.parse(str(position)) == position
    assert Cursor.parse(f"a1.{position}") == Cursor("a1", position)


@pytest.mark.parametrize(
    "text", ["", "1", "-1", "1-", "a-1", "1-1-1", "+1-1", "1-٣", "1_0-1", f"{SEQ_MAX + 1}-0",
             "9" * 5000 + "-0"]
)  # fmt: skip
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Position.parse(text)


@given(POSITIONS)
def test_a_read_after_the_position_before_begins_with_the_position(position: Position) -> None:
    before = position.before()

    assert before < position or position == START
    assert before.seq in (position.seq - 1, SEQ_MAX) or position == START


NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]))


@given(NAMES, NAMES, NAMES, NAMES)
def test_a_key_is_read_from_its_packed_form(
    mesh: str, zone: str, namespace: str, name: str
) -> None:
    key = Key(mesh, zone, namespace, name)

    assert Key.parse(key.packed) == key
    assert zone_of(key.packed) == zone


@pytest.mark.parametrize("packed_key", ["", "a", "a/b/c", "a/b/c/d/e"])
def test_what_is_no_key_is_refused(packed_key: str) -> None:
    with pytest.raises(WireError):
        Key.parse(packed_key)


def test_a_record_is_read_as_it_was_packed_and_later_fields_are_ignored() -> None:
    record = Record(created_ms=1, modified_ms=2, labels={"a": "b"}, spec={"c": [1, {"d": None}]})

    assert Record.unpack(record.pack()) == record
    assert Record.unpack(msgpack.packb([1, 2, {}, {}, "later"])).modified_ms == 2


@pytest.mark.parametrize(
    "fields", [[], [1, 2, {}], [True, 2, {}, {}], [1, 2.0, {}, {}], [1, 2, [], {}], [1, 2, {}, 3]]
)
def test_a_malformed_record_is_refused(fields: list[Any]) -> None:
    with pytest.raises(WireError):
        Record.unpack(msgpack.packb(fields))
