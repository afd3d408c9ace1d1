"""What import-linter cannot say: outside its shells the library has no I/O, clock or randomness."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "shared" / "zonemesh"

SHELLS = {"cli", "log", "rest", "runtime"}
"""Everything else in the library is a rule, also what is added later: same input, same output."""

IMPURE = {
    "aiohttp", "asyncio", "logging", "multiprocessing", "os", "random", "redis", "secrets",
    "select", "selectors", "shutil", "signal", "socket", "sqlite3", "structlog", "subprocess",
    "tempfile", "threading", "time", "uvloop",
}  # fmt: skip


RULES = sorted(
    (
        {path.stem for path in LIBRARY.glob("*.py")}
        | {path.parent.name for path in LIBRARY.glob("*/*.py")}
    )
    - SHELLS
    - {"__init__"}
)


@pytest.mark.parametrize("name", RULES)
def test_rules_import_no_clock_no_randomness_and_no_io(name: str) -> None:
    found = {
        f"{path.relative_to(LIBRARY)}:{line} imports {module}"
        for path in _files(name)
        for line, module in _imports(path)
        if not _allowed(module)
    }

    assert not found


def _allowed(module: str) -> bool:
    top, _, rest = module.partition(".")
    if top == "zonemesh":
        return rest.partition(".")[0] not in SHELLS
    return top not in IMPURE and top not in {"globalcp", "zonecp"}


def _files(name: str) -> list[Path]:
    package = sorted((LIBRARY / name).rglob("*.py"))
    module = LIBRARY / f"{name}.py"
    return [*package, module] if module.exists() else package


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_bytes(), path)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(module="zonemesh", names=names):
                for alias in names:
                    yield node.lineno, f"zonemesh.{alias.name}"
            case ast.ImportFrom(module=str(module)):
                yield node.lineno, module
            case _:
                pass
