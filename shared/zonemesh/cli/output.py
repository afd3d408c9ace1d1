"""Forms that answers are printed in: aligned tables, YAML, JSON."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

Cell = str | tuple[str, ...]
"""Several values stand below one another, or behind one another where lines may be long."""

PROSE = 80
"""Columns of text for people where nobody set a limit."""
_UNBOUNDED = 100_000


def width() -> int | None:
    """Columns that there are: the terminal's, or those of `COLUMNS`.

    None where nobody set a limit: what a program reads has a line per row, however long.
    """
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def table(titles: Sequence[str], rows: Iterable[Sequence[Cell]], width: int | None) -> str:
    """Rows under titles, without lines or colours; wider cells are folded to fit `width`."""
    from rich.console import Console  # noqa: PLC0415 -- 0.1 s that other forms need not wait for
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    separator = "," if width is None else "\n"
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        shown.add_column(title, overflow="fold")
    for row in rows:
        cells = (each if isinstance(each, str) else separator.join(each) for each in row)
        shown.add_row(*map(Text, cells))
    text = io.StringIO()
    console = Console(file=text, width=width or _UNBOUNDED, color_system=None, legacy_windows=False)
    console.print(shown)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def wrapped(line: str, columns: int, *, hanging: int | None = None) -> list[str]:
    """A line of prose folded between words, its indentation kept and deepened, or `hanging`."""
    if hanging is None:
        hanging = len(line) - len(line.lstrip()) + 2
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def pretty_json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def pretty_yaml(document: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def age(moment: str | None, now: datetime) -> str:
    """Time since an RFC 3339 time in its largest unit, as kumactl prints it; `never` if absent."""
    then = parse_time(moment)
    if then is None:
        return "never"
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((365 * 86_400, "y"), (86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; None for what is none, and for the year 1 that Kuma writes for no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None if moment.year == 1 else moment
