"""A format of logs that this build does not have, as a later one would bring it."""

from __future__ import annotations

from collections.abc import MutableMapping

import msgpack

from zonemesh.wire import CODECS, FORMAT, Codec, Entry

LATER = 2


def _pack(entry: Entry) -> bytes:
    body: bytes = msgpack.packb({"later": True, "was": CODECS[FORMAT].pack(entry)})
    return body


def _unpack(body: bytes) -> Entry:
    return CODECS[FORMAT].unpack(msgpack.unpackb(body)["was"])


def learn(codecs: MutableMapping[int, Codec] = CODECS) -> None:
    """Make this process one of the later build."""
    codecs[LATER] = Codec(_pack, _unpack)
