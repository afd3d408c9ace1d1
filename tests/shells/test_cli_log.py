"""`zonemesh log` on a log's file: what is in it, and what is wrong with it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from zonemesh.cli.main import cli
from zonemesh.ipam import Binding, parse_ipv4
from zonemesh.log.sqlite import SqliteLog
from zonemesh.model import START, Change, Position, Record
from zonemesh.wire import NO_HASH, Entry, Sealed, seal

NAME = "zone:west:own"
KEY = "default/west//redis"


def entry(seq: int, before: Sealed | None, *changes: Change) -> Sealed:
    made = Entry(
        incarnation="5f1e",
        position=Position(1, seq),
        previous=before.entry.position if before else START,
        writer="a1b2",
        time_ms=1_790_000_000_000 + seq,
        mono_delta_ms=1,
        log_time_ms=seq,
        note={"hash": "00"} if not changes else {},
        changes=changes,
    )
    return seal(made, before.h if before else NO_HASH)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Seven entries: the log's beginning, a service with its address, five heartbeats."""
    found = tmp_path / "own.db"
    log = SqliteLog(found, NAME)
    binding = Binding(parse_ipv4("241.0.0.9"), 3, None, 1)
    record = Record(created_ms=1, modified_ms=2, labels={"a": "b"}, spec={"state": "Available"})
    sealed = entry(0, None)
    await log.create(sealed)
    for seq in range(1, 7):
        changes = (
            (
                Change("MeshService", KEY, record.pack()),
                Change("vip.MeshService", KEY, binding.pack()),
            )
            if seq == 1
            else ()
        )
        sealed = entry(seq, sealed, *changes)
        await log.append(sealed)
    await log.close()
    return found


def run(*arguments: str) -> Result:
    return CliRunner(env={"ZONEMESH_REDIS_URL": ""}).invoke(
        cli, ["log", *arguments], catch_exceptions=False
    )


def documents(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_entries_are_shown_with_their_payloads_in_the_terms_of_their_kinds(path: Path) -> None:
    result = run("--file", str(path), "--after", "0-0", "-o", "json")

    assert result.exit_code == 0
    found = documents(result)
    assert [each["position"] for each in found] == [f"1-{seq}" for seq in range(7)]
    service, binding = found[1]["changes"]
    assert service["value"]["spec"] == {"state": "Available"}
    assert binding["value"]["address"] == "241.0.0.9"


def test_the_newest_entries_are_shown_unless_told_where_to_begin(path: Path) -> None:
    assert len(documents(run("--file", str(path), "--last", "2", "-o", "json"))) == 2


def test_a_kind_and_changes_choose_among_entries(path: Path) -> None:
    of_kind = run("--file", str(path), "--after", "0-0", "--kind", "vip.meshservice")
    changing = run("--file", str(path), "--after", "0-0", "--changes", "-o", "json")

    assert "vip.MeshService default/west//redis" in of_kind.stdout
    assert "put    MeshService" not in of_kind.stdout
    assert [each["position"] for each in documents(changing)] == ["1-1"]


def test_a_missing_entry_is_told_where_it_is_missing(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM entries WHERE seq = 3")
    connection.close()

    result = run("--file", str(path), "--after", "0-0")

    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("!!")]
    assert line == "!! gap at 1-4: after 1-2 came 1-4, following 1-3"


def test_another_history_and_what_is_no_entry_are_told(path: Path) -> None:
    other = entry(4, entry(3, None))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET data = ? WHERE seq = 4", (other.data,))
        connection.execute("UPDATE entries SET data = x'00' WHERE seq = 6")
    connection.close()

    faults = [each for each in documents(run("--file", str(path), "--after", "1-0", "-o", "json"))
              if "fault" in each]  # fmt: skip

    assert [each["fault"] for each in faults] == ["fork", "fork", "bad_entry"]


def test_a_trimmed_beginning_is_no_fault(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM entries WHERE seq < 3")
    connection.close()

    result = run("--file", str(path), "--after", "0-0")

    assert result.exit_code == 0
    assert result.stdout.startswith("!! trimmed at 1-3")


@pytest.mark.parametrize(
    "arguments, told",
    [
        ((), "say where the log is: --redis URL or --file PATH"),
        (("--file", "nowhere.db"), "nowhere.db: no such file"),
        (("zone:a:b:up", "--redis", "redis://127.0.0.1:1"), "is not global, zone:<name>:up"),
        (("--redis", "http://x"), "--redis: Redis URL must specify"),
        (
            ("--redis", "redis://127.0.0.1:1", "--password-path", "nowhere"),
            "--password-path: there is no file nowhere",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    arguments: tuple[str, ...], told: str
) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert told in result.stderr


def test_reading_changes_nothing_and_makes_no_file(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no database")

    result = run("--file", str(other))

    assert (result.exit_code, "not a log of Zonemesh" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [other]
