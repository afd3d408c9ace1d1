"""Resources in files: YAML with several documents, JSON one after another or in lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from zonemesh.errors import InputError

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
"""What is read of a directory."""

# YAML 1.2 §9.1.2: these begin a line nowhere else, not even in a block of text.
_BOUNDARY = re.compile(r"^(?:---|\.\.\.)(?=\s|$)", re.MULTILINE)
_NOTHING = re.compile(r"\s*(?:#[^\n]*(?:\n|$)\s*)*")


class Source(NamedTuple):
    """One document, and where it stands."""

    where: str
    body: dict[str, Any]


class Fault(NamedTuple):
    """What could not be read."""

    where: str
    reason: str


def read(arguments: Sequence[str], stdin: BinaryIO) -> Iterator[Source | Fault]:
    """Every document of files, of directories (not of those within), and of `-`.

    Raises:
        InputError: A file or directory that is not there, named with all others.
    """
    missing = [each for each in arguments if each != STDIN and not Path(each).exists()]
    if missing:
        raise InputError("; ".join(f"{each}: no such file or directory" for each in missing))
    for argument in arguments:
        if argument == STDIN:
            yield from parse("stdin", stdin.read())
            continue
        for path in _files(Path(argument)):
            try:
                data = path.read_bytes()
            except OSError as error:
                yield Fault(str(path), str(error.strerror))
            else:
                yield from parse(str(path), data)


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())


def parse(where: str, data: bytes) -> Iterator[Source | Fault]:
    """The documents of one file. One that cannot be read does not hide the others."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Fault(where, f"not UTF-8: {error.reason} at byte {error.start}")
        return
    found = list(_json(text) if text.lstrip().startswith(("{", "[")) else _yaml(text))
    for number, each in enumerate(found, 1):
        place = f"{where}, document {number}" if len(found) > 1 else where
        yield Fault(place, each) if isinstance(each, str) else Source(place, each)


def _yaml(text: str) -> Iterator[dict[str, Any] | str]:
    from zonemesh.rest.document import from_yaml  # noqa: PLC0415 -- brings aiohttp along: 0.2 s

    for part in _BOUNDARY.split(text):
        if _NOTHING.fullmatch(part) or part.lstrip().startswith("%YAML"):
            continue
        try:
            yield from_yaml(part.encode())
        except InputError as error:
            yield str(error)


def _json(text: str) -> Iterator[dict[str, Any] | str]:
    """Objects, arrays of them, and lists as the API answers them (`items`)."""
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            # JSON is YAML, and YAML in one line may begin like JSON.
            yield from _yaml(text)
            return
        text = text[end:].lstrip()
        for each in _elements(value):
            yield each if isinstance(each, dict) else "a resource is a JSON object"


def _elements(value: Any) -> list[Any]:
    if isinstance(value, dict) and "type" not in value and isinstance(value.get("items"), list):
        return list(value["items"])
    return value if isinstance(value, list) else [value]
