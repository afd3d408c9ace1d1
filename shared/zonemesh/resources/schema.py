"""A kind's JSON Schema, made of what its check asks a document for.

A check is run on stand-ins for documents, which differ in what can lead it another way, and what it
asked in all of the runs is put together: no second description that could differ. What a check
decides on values (formats, fields that exclude each other) is not in a schema, and what it asks for
in some documents only is described for all.

As `Node` reads them, absent, null and, of strings, "" are the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

from zonemesh.resources.kind import Kind
from zonemesh.resources.validation import PROTOCOLS, Node, Violations

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "array", "items": _STRING}
_CHOICES_MAX = 8
"""No field that a check goes on from has more values than this."""


@lru_cache(maxsize=64)
def schema_of(kind: Kind) -> Schema:
    """The schema of a kind's spec (JSON Schema 2020-12); any object for kinds that are computed."""
    if kind.read_only:
        return {"type": "object"}
    shape = _Shape()
    objects: set[str] = set()
    for has, choice in product((True, False), range(_CHOICES_MAX)):
        kind.check(_Asked(shape, _Run(objects, has=has, choice=choice)), "name")
    # Where a check asks for other fields if an object is not there.
    tried: set[str] = set()
    while left := sorted(objects - tried):
        for path in left:
            kind.check(_Asked(shape, _Run(objects, lacks=path)), "name")
        tried.update(left)
    return shape.schema()


@dataclass(frozen=True, slots=True)
class _Run:
    """How a stand-in answers, all through one run of a check."""

    objects: set[str]
    """Paths of the objects that were asked for, in this and other runs."""
    lacks: str = ""
    """The path of the one object that is not there."""
    has: bool = True
    """Whether a field is there, where only that is asked."""
    choice: int = 0
    """Which of the allowed values a field has."""


@dataclass(slots=True)
class _Field:
    schema: Schema = field(default_factory=dict)
    shape: _Shape | None = None
    """Of an object, or of each element of a list of such."""
    required: int = 0
    """How often it was asked for as something that must be there."""

    def shown(self, *, required: bool) -> Schema:
        schema = dict(self.schema)
        if self.shape is not None and schema["type"] == "array":
            schema["items"] = self.shape.schema()
        elif self.shape is not None:
            schema |= self.shape.schema()
        return schema if required else _or_null(schema)


@dataclass(slots=True)
class _Shape:
    """One object, of all runs."""

    visits: int = 0
    fields: dict[str, _Field] = field(default_factory=dict)
    entries: Schema | None = None
    """Of an object whose keys are not field names: what its values are."""

    def schema(self) -> Schema:
        # Asked for as required each time: not only where another field has some value.
        required = [name for name, each in self.fields.items() if each.required == self.visits]
        found: Schema = {"type": "object"}
        if self.fields:
            found["properties"] = {
                name: each.shown(required=name in required) for name, each in self.fields.items()
            }
        if required:
            found["required"] = required
        if self.entries is not None:
            found["additionalProperties"] = self.entries
        return found


def _or_null(schema: Schema) -> Schema:
    found = dict(schema)
    if "enum" in found:
        found["enum"] = [*found["enum"], "", None]
    if "type" in found:
        types = found["type"] if isinstance(found["type"], list) else [found["type"]]
        found["type"] = [*types, "null"]
    return found


class _Asked(Node):
    """Takes down what it is asked for."""

    __slots__ = ("_run", "_shape")

    def __init__(self, shape: _Shape, run: _Run, path: str = "") -> None:
        super().__init__({}, path, Violations())
        self._shape = shape
        self._run = run
        shape.visits += 1

    @property
    def empty(self) -> bool:
        return False

    def has(self, name: str) -> bool:
        return self._run.has

    def string(self, name: str, *, required: bool = False) -> str | None:
        self._note(name, _STRING | ({"minLength": 1} if required else {}), required=required)
        return None

    def integer(
        self,
        name: str,
        low: int | None,
        high: int | None,
        *,
        reason: str = "",
        required: bool = False,
    ) -> int | None:
        bounds = {"minimum": low, "maximum": high}
        found = {bound: value for bound, value in bounds.items() if value is not None}
        self._note(name, {"type": "integer", **found}, required=required)
        return None

    def integer_or_string(self, name: str) -> int | str | None:
        self._note(name, {"type": ["integer", "string"], "minLength": 1})
        return None

    def boolean(self, name: str) -> bool | None:
        self._note(name, {"type": "boolean"})
        return None

    def choice(self, name: str, allowed: Collection[str], *, required: bool = False) -> str | None:
        self._note(name, {"enum": list(allowed)}, required=required)
        assert len(allowed) <= _CHOICES_MAX
        return list(allowed)[self._run.choice % len(allowed)]

    def protocol(self, name: str, allowed: Collection[str] = PROTOCOLS) -> str | None:
        # JSON Schema's regular expressions (ECMA-262) cannot be told to ignore case.
        words = "|".join("".join(map(_either_case, word)) for word in allowed)
        self._note(name, _STRING | {"pattern": f"^({words})?$"})
        return None

    def node(self, name: str, *, required: bool = False) -> Node | None:
        shape = self._shape_of(name, {"type": "object"}, required=required)
        path = self.at(name)
        self._run.objects.add(path)
        return None if path == self._run.lacks else _Asked(shape, self._run, path)

    def nodes(self, name: str, *, empty: str = "") -> list[Node]:
        least = {"minItems": 1} if empty else {}
        shape = self._shape_of(name, {"type": "array", **least}, required=bool(empty))
        return [_Asked(shape, self._run, self.at(name))]

    def strings(self, name: str) -> list[str]:
        self._note(name, _STRINGS)
        return []

    def string_map(self, name: str) -> dict[str, str] | None:
        self._shape_of(name, {"type": "object"}, required=False).entries = _STRING
        return {}

    def entries(self) -> dict[str, str]:
        self._shape.entries = _STRING
        return {}

    def _note(self, name: str, schema: Schema, *, required: bool = False) -> _Field:
        found = self._shape.fields.setdefault(name, _Field(schema))
        found.required += required
        return found

    def _shape_of(self, name: str, schema: Schema, *, required: bool) -> _Shape:
        found = self._note(name, schema, required=required)
        if found.shape is None:
            found.shape = _Shape()
        return found.shape


def _either_case(character: str) -> str:
    upper = character.upper()
    return character if upper == character else f"[{upper}{character}]"
