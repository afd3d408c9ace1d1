"""Labels that generated MeshServices take over from their Dataplanes, if a zone is told to.

As in Kuma: of each label the value that most Dataplanes have; of equally many the one on the newest
Dataplane, then the lesser. Which labels came this way is noted in labels of their own, so that one
that no Dataplane has any more goes, and one that a user has set stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from zonemesh.labels import RESERVED_PREFIXES
from zonemesh.model import Record
from zonemesh.names import fnv1a64

_NOTE = "kuma.io/pkey-"


def propagated(
    labels: Mapping[str, str], members: Sequence[tuple[str, Record]], keys: Sequence[str] | None
) -> dict[str, str]:
    """A service's labels with those of its Dataplanes (packed key, record).

    `keys`: the only ones to take over; empty for all, None for none, which also takes back what was
    taken over before.
    """
    notes = {label for label in labels if label.startswith(_NOTE)}
    own = {
        label: value
        for label, value in labels.items()
        if label not in notes and _note(label) not in notes
    }
    if keys is None:
        return own
    found = {
        label: value
        for label, value in _majority(members).items()
        if label not in own and (not keys or label in keys)
    }
    return {**own, **found, **{_note(label): "" for label in found}}


def _majority(members: Sequence[tuple[str, Record]]) -> dict[str, str]:
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], int] = {}
    for _, record in members:
        for pair in record.labels.items():
            if not pair[0].startswith(RESERVED_PREFIXES):
                counts[pair] += 1
                newest[pair] = max(newest.get(pair, 0), record.created_ms)
    # The strongest last: it stays in the dict.
    ranked = sorted(counts, key=lambda pair: (counts[pair], newest[pair], _falling(pair[1])))
    return dict(ranked)


def _falling(text: str) -> tuple[int, ...]:
    """Sorts texts the other way round; a longer one before its own beginning."""
    return (*(-ord(character) for character in text), 1)


def _note(label: str) -> str:
    return f"{_NOTE}{fnv1a64(label.encode()):016x}"
