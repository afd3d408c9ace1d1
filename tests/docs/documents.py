"""The documentation as data: files, fenced blocks, headings, links, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    document: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.name}: {self.text.splitlines()[0][:60]}"


def blocks(language: str) -> list[Block]:
    return [
        Block(document, *match.groups())
        for document in DOCUMENTS
        for match in _FENCE.finditer(document.read_text())
        if match[1] == language
    ]


def commands(block: Block) -> Iterator[str]:
    """Commands of a shell block, one by one: what a line or a quotation continues is one."""
    pending = ""
    for line in block.text.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if pending.endswith("\\") or pending.count("'") % 2:
            continue
        if pending.strip():
            yield pending
        pending = ""
    assert not pending, f"{block} ends within a command"


def links(document: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", document.read_text()))


def anchors(document: Path) -> set[str]:
    """What GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(document: Path, heading: str) -> str:
    """The text under a heading, to the next one of its level or above."""
    lines = document.read_text().splitlines()
    start = lines.index(heading)
    level = heading.partition(" ")[0]
    for end in range(start + 1, len(lines)):
        marks = re.match(r"#+(?= )", lines[end])
        if marks is not None and len(marks[0]) <= len(level):
            break
    else:
        end = len(lines)
    return "\n".join(lines[start + 1 : end])


def rows(text: str) -> dict[str, list[str]]:
    """Table rows by the code in their first cell; every further cell as text."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", first):
                assert name not in found, f"{name} twice"
                found[name] = rest
    return found
