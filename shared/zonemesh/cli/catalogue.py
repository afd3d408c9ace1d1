"""The kinds that a control plane has, and what a person may call them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from zonemesh.cli.client import Client
from zonemesh.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """A kind as `GET /_resources` has it."""

    name: str
    """`MeshService`."""
    path: str
    """`meshservices`."""
    short: str
    """`msvc`; "" if it has none."""
    in_mesh: bool
    display: str
    """`Mesh Service`."""
    read_only: bool = False
    """Whether this control plane takes no writes of it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be called, in lower case."""
        one = self.name.lower()
        dashed = self.display.lower().replace(" ", "-")
        plain = self.path.replace("-", "")
        found = (self.path, one, f"{one}s", plain, dashed, f"{dashed}s", self.short)
        return tuple(dict.fromkeys(filter(None, found)))

    def mesh_of(self, mesh: str) -> str | None:
        """The mesh that its paths need: None for kinds outside meshes."""
        return mesh if self.in_mesh else None


class Catalogue:
    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)

    @classmethod
    def fetch(cls, client: Client) -> Catalogue:
        return cls(map(_row, client.get("/_resources").get("resources") or ()))

    def find(self, word: str) -> Row:
        """The kind that a word means: its path, name (one or several) or short name.

        Raises:
            InputError: None; says which is near, or which there are.
        """
        wanted = word.lower()
        for row in self.rows:
            if wanted in row.names:
                return row
        known = [name for row in self.rows for name in row.names]
        near = get_close_matches(wanted, known, n=1)
        if near:
            raise InputError(f"there is no kind {word!r}; did you mean {near[0]}?")
        paths = ", ".join(sorted(row.path for row in self.rows))
        raise InputError(f"there is no kind {word!r}; there are {paths}")

    def named(self, name: str) -> Row | None:
        """The kind whose documents say `type: <name>`."""
        return next((row for row in self.rows if row.name == name), None)


def _row(document: Mapping[str, Any]) -> Row:
    return Row(
        name=str(document.get("name", "")),
        path=str(document.get("path", "")),
        short=str(document.get("shortName") or ""),
        in_mesh=document.get("scope") == "Mesh",
        display=str(document.get("singularDisplayName") or ""),
        read_only=document.get("readOnly") is True,
    )
