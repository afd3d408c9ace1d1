"""What another plane wrote into a record: refused where it comes in, alone, whatever it is."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from globalcp import merging
from tests.builders import NOW_MS
from tests.zones_up import SERVICE, VIP, Global, Stream, key_of, service
from zonemesh.errors import WireError
from zonemesh.ipam import Binding
from zonemesh.model import DEPTH_MAX, TIME_MS_MAX, Change, Record
from zonemesh.rest.document import rfc3339


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def packed(spec: Any = None, *, created_ms: int = NOW_MS, modified_ms: int = NOW_MS) -> bytes:
    payload: bytes = msgpack.packb((created_ms, modified_ms, {}, spec or {}))
    return payload


FOREIGN = {
    "a key of bytes": packed({b"kuma.io/service": "x", "kuma.io/service": "y"}),
    "an inner key of bytes": packed({"ports": [{"tags": {b"a": "x"}}]}),
    "a value of bytes": packed({"a": b"x"}),
    "an extension": packed({"a": [msgpack.ExtType(5, b"x")]}),
    "a time type": packed({"a": msgpack.Timestamp(1)}),
    "not a number": packed({"a": float("nan")}),
    "infinity": packed({"a": float("inf")}),
    "too deep": packed({"a": nested(DEPTH_MAX)}),
    "made after the year 9999": packed(created_ms=TIME_MS_MAX + 1),
    "changed after the year 9999": packed(modified_ms=1 << 62),
    "made before 1970": packed(created_ms=-1),
}


@pytest.mark.parametrize("payload", FOREIGN.values(), ids=FOREIGN)
def test_a_record_that_json_or_a_clock_cannot_show_is_refused(payload: bytes) -> None:
    record = Record.unpack(payload)

    with pytest.raises(WireError, match="malformed record"):
        record.check_foreign()


def test_whatever_json_can_say_may_come_in() -> None:
    spec = {"a": nested(DEPTH_MAX - 1), "b": [1.5, -(1 << 63), (1 << 64) - 1, None, True, {"": ""}]}

    Record.unpack(packed(spec, created_ms=0, modified_ms=TIME_MS_MAX)).check_foreign()


@pytest.mark.parametrize("payload", FOREIGN.values(), ids=FOREIGN)
def test_global_rejects_such_a_record_alone(payload: bytes) -> None:
    mesh, west = Global(), Stream()

    mesh.submit(west.merge(service("good"), Change(SERVICE, key_of("bad"), payload)))

    assert mesh.held()[SERVICE] == {key_of("good")}
    assert mesh.seen().rejected == 1


def test_a_fault_of_ours_in_looking_at_a_record_costs_that_record_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(kind: str, key: str, payload: bytes) -> None:
        if key == key_of("bad"):
            raise TypeError("nobody thought of this")

    monkeypatch.setattr(merging, "check_record", check)
    mesh, west = Global(), Stream()

    mesh.submit(west.merge(service("good"), service("bad")))

    assert mesh.held()[SERVICE] == {key_of("good")}
    assert mesh.seen().rejected == 1
    note = mesh.leader.chain.entries[-1].entry.note
    assert note["rejected"] == [["west", SERVICE, key_of("bad"), note["rejected"][0][3]]]
    assert "nobody thought of this" in note["rejected"][0][3]


def test_bindings_that_are_all_refused_fit_behind_what_others_wrote() -> None:
    mesh, west = Global(), Stream()
    others = [Stream(f"z{number}") for number in range(6)]
    mesh.submit(west.merge(), *(each.merge() for each in others), Stream("east").merge())
    foreign = mesh.blocks("east")[0].first
    payload = Binding(foreign, None, None, 1).pack()
    refused = [Change(VIP, f"m/west//{number:x}", payload) for number in range(6_000)]
    fill = [each.merge(Change("Foo", key_of("y", each.zone), bytes(99_000))) for each in others]

    mesh.submit(*fill, west.merge(*refused))

    assert mesh.seen().conflicts == 6_000


@pytest.mark.parametrize(
    "ms, text",
    [
        (-(1 << 80), "1970-01-01T00:00:00Z"),
        (1_500, "1970-01-01T00:00:01.5Z"),
        (TIME_MS_MAX, "9999-12-31T23:59:59Z"),
        (1 << 80, "9999-12-31T23:59:59Z"),
    ],
)
def test_any_time_can_be_shown(ms: int, text: str) -> None:
    assert rfc3339(ms) == text
