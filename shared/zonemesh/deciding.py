"""Deciding an entry: inputs and state in, changes out. What both planes' decisions have alike.

A decision is made by one `Deciding` object: it handles inputs one by one on a draft, says how far
it came, and is thrown away. No clock, no I/O: whatever it depends on is state or in `Now`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zonemesh.draft import Draft
from zonemesh.errors import MeshError, NotFoundError
from zonemesh.model import Change, Cursor, Key, Position, Record
from zonemesh.registry import Registry


@dataclass(frozen=True, slots=True)
class Put:
    """A validated write: labels without computed ones, spec with defaults."""

    kind: str
    key: Key
    labels: Mapping[str, str]
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    kind: str
    key: Key


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `position`: the log position that holds it (or already held it)."""

    created: bool
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The clocks a decision may depend on, read once per entry."""

    wall_ms: int
    log_time_ms: int
    mono_s: float
    """Of the leader's process: for how long an input has waited."""


@dataclass(slots=True, kw_only=True)
class Decision:
    """What to append for the first `consumed` inputs, and what to answer each of them."""

    changes: list[Change] = field(default_factory=list)
    src: dict[str, Cursor] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Any] = field(default_factory=list)
    """One per consumed input: a result, or a MeshError that its submitter gets raised."""
    consumed: int = 0
    more: bool = False
    """Decide again with no further input: not everything fitted into one entry."""

    @property
    def empty(self) -> bool:
        return not (self.changes or self.src or self.note)


Decide = Callable[[Sequence[Any], Now], Decision]


class Deciding:
    """One decision in the making. Subclasses say what each type of input does.

    There are some for every entry: nothing in them may refer back to them, or all that an entry was
    made of would wait for the garbage collector.
    """

    def __init__(self, registry: Registry, now: Now) -> None:
        self._registry = registry
        self._now = now
        self._draft = Draft(registry)
        self._decision = Decision()

    def _handle(self, item: Any) -> Any:
        """Put what an input says into the draft; answers its outcome, or raises a MeshError."""
        raise NotImplementedError

    def _consume(
        self,
        inputs: Sequence[Any],
        *,
        alone: type | tuple[type, ...],
        full: Callable[[], bool],
    ) -> None:
        """Handle inputs until the entry is full. An `alone` one begins an entry and ends it."""
        decision = self._decision
        for item in inputs:
            if isinstance(item, alone) and decision.consumed:
                break
            try:
                outcome: Any = self._handle(item)
            except MeshError as error:
                outcome = error.with_traceback(None)  # which refers back to this very frame
            decision.outcomes.append(outcome)
            decision.consumed += 1
            if isinstance(item, alone) or full():
                break

    def _revised(self, item: Put) -> tuple[Record | None, Record] | None:
        return revision(self._draft, item, self._now)

    def _existing(self, item: Delete) -> Record:
        """Raises NotFoundError."""
        packed = self._draft.get(item.kind, item.key.packed)
        if packed is None:
            raise NotFoundError(f"{item.kind} {item.key.name} does not exist")
        return Record.unpack(packed)

    def _unchanged(self) -> Written:
        return Written(created=False, position=self._registry.position)

    def _written(self, *, created: bool) -> Written:
        term, seq = self._registry.position
        return Written(created, Position(term, seq + 1))  # the entry being decided

    def _put_default(
        self, kind: str, key: Key, labels: Mapping[str, str], spec: Mapping[str, Any]
    ) -> None:
        """Put what a plane begins with, unless there is one: an operator's edit stays."""
        if self._draft.get(kind, key.packed) is None:
            now_ms = self._now.wall_ms
            record = Record(created_ms=now_ms, modified_ms=now_ms, labels=labels, spec=spec)
            self._draft.set(kind, key.packed, record.pack())


def revision(draft: Draft, item: Put, now: Now) -> tuple[Record | None, Record] | None:
    """The record that is there and the one to put; None if nothing would change."""
    packed = draft.get(item.kind, item.key.packed)
    old = None if packed is None else Record.unpack(packed)
    if old is not None and old.labels == item.labels and old.spec == item.spec:
        return None
    return old, Record(
        created_ms=now.wall_ms if old is None else old.created_ms,
        modified_ms=now.wall_ms,
        labels=item.labels,
        spec=item.spec,
    )
