"""Examples in the documentation that the code itself writes; run as a module, puts them there."""

from __future__ import annotations

from pathlib import Path

import msgpack

from zonemesh.ipam import Binding, parse_ipv4
from zonemesh.model import Change, Cursor, Position
from zonemesh.wire import Entry, decode, seal

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
MARK = "<!-- example: entry -->"
PREVIOUS_H = bytes.fromhex("0102030405060708")


def entry() -> str:
    """One sealed entry: its fields, its bytes, and its record's payload."""
    payload = Binding(parse_ipv4("241.16.32.5"), None, None, 7).pack()
    made = Entry(
        incarnation="5f1e",
        position=Position(1, 1),
        previous=Position(1, 0),
        writer="a1b2",
        time_ms=1_790_000_000_000,
        mono_delta_ms=3,
        log_time_ms=3,
        src={"zone:west:own": Cursor("77aa", Position(1, 3))},
        note={"base": [1, 0]},
        changes=[Change("vip.MeshService", "default/west//redis", payload)],
    )
    sealed = seal(made, PREVIOUS_H)
    read, chained = decode(sealed.data, PREVIOUS_H)
    assert chained
    assert (read.h, read.entry.changes) == (sealed.h, made.changes)
    _, body, h = msgpack.unpackb(sealed.data)
    return "\n".join(
        (
            f"entry   {len(sealed.data)} octets: [1, body, h]",
            f"h       {h.hex()} = BLAKE2b-8({PREVIOUS_H.hex()} + body)",
            "body    " + "\n        ".join(map(repr, msgpack.unpackb(body))),
            f"payload {payload.hex()}  {msgpack.unpackb(payload)}",
            "",
            *_dump(sealed.data),
        )
    )


def _dump(data: bytes) -> list[str]:
    return [
        f"{at:04x}  {data[at : at + 16].hex(' '):<47}  {_shown(data[at : at + 16])}"
        for at in range(0, len(data), 16)
    ]


def _shown(data: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in data)


def written(text: str) -> str:
    """A document with the example in its place."""
    before, mark, after = text.partition(MARK)
    assert mark, f"{MARK} is missing"
    after = after.lstrip("\n")
    if after.startswith("```text\n"):
        after = after[len("```text\n") :].partition("\n```\n")[2].lstrip("\n")
    return f"{before}{mark}\n\n```text\n{entry()}\n```\n\n{after}"


if __name__ == "__main__":
    PROTOCOL.write_text(written(PROTOCOL.read_text()))
