"""How much one entry of a zone's log takes, and one record with what follows from it."""

from __future__ import annotations

from zonecp import generator
from zonemesh.errors import TooLargeError
from zonemesh.members import DATAPLANE, generated, inbounds
from zonemesh.model import Record
from zonemesh.wire import UP_ENTRY_BYTES_MAX

RECORD_BYTES_MAX = 64 << 10
"""What one record may take, with the services that follow from it."""
ENTRY_BYTES = 96 << 10
"""When it is filled so far, a decision takes no further input."""
ENTRY_BYTES_MAX = UP_ENTRY_BYTES_MAX - RECORD_BYTES_MAX - (16 << 10)
"""When it is filled so far, nothing is looked at again: the last thing looked at, and the envelope,
still fit into one up entry."""
SERVICE_BYTES = 600
"""What a generated service without ports takes: itself, its binding, a note of its grace period."""
PORT_BYTES = 64


def follow_bytes(key: str, dataplane: Record) -> int:
    """What the services generated from a Dataplane may add to an entry."""
    ports = len(inbounds(dataplane))
    return SERVICE_BYTES * len(generator.groups(key, dataplane)) + PORT_BYTES * ports


def check_size(kind: str, key: str, record: Record) -> None:
    """Raises TooLargeError: no entry could hold a record and what follows from it."""
    size = len(record.pack())
    if kind == DATAPLANE:
        size += follow_bytes(key, record)
    if size > RECORD_BYTES_MAX and not generated(record):
        name = key.rpartition("/")[2]
        raise TooLargeError(
            f"{kind} {name} takes {size} bytes with the services that follow from it;"
            f" at most {RECORD_BYTES_MAX}"
        )
