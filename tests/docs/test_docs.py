"""The documentation says what the code does: lists are complete, examples are the code's own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from globalcp.cli import cli as globalcp
from tests.docs import examples, inventory
from tests.docs.documents import (
    DOCUMENTS,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    links,
    rows,
    section,
)
from zonecp.cli import cli as zonecp
from zonecp.dataplane.cli import cli as zonedp
from zonecp.unproven import MARK
from zonemesh.agents import AGENT
from zonemesh.cli.main import cli as zonemesh
from zonemesh.ipam import BLOCK, vip_kind
from zonemesh.legacypool import LEGACY_VIP
from zonemesh.log.keys import PREFIX, Keys
from zonemesh.model import Position
from zonemesh.resources.catalogue import KINDS
from zonemesh.rest import document as documents
from zonemesh.travel import CANARY, INTERNAL

OPERATIONS = ROOT / "docs" / "operations.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
RESOURCES = ROOT / "docs" / "resources.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
PROGRAMS = {"globalcp": globalcp, "zonecp": zonecp, "zonedp": zonedp, "zonemesh": zonemesh}
RUN_ELSEWHERE = {"curl", "dig", "printf", "redis-cli"}
"""By `test_examples.py`, in a mesh."""


def by_name(document: Path) -> str:
    return str(document.relative_to(ROOT))


# Metrics that runbooks name


def test_every_metric_that_a_runbook_names_is_described() -> None:
    text = OPERATIONS.read_text()
    named = set(re.findall(r"`(zone(?:mesh|dp)_[a-z_]+)`", text.partition("## Ports")[0]))
    described = set(re.findall(r"^\| `(zone(?:mesh|dp)_[a-z_]+)`", text, re.MULTILINE))

    assert named
    assert named <= described


# Links


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in links(document):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("document", [ARCHITECTURE, RELIABILITY], ids=by_name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", document.read_text())

    assert named
    for path, test in named:
        assert re.search(rf"def {test}\(", (ROOT / path).read_text()), f"{path}::{test}"


def test_every_module_of_the_rules_is_on_the_map() -> None:
    listed = set(re.findall(r"`(\w+)`", section(ARCHITECTURE, "## Direction of imports")))
    library = ROOT / "shared" / "zonemesh"
    rules = {path.stem for path in library.glob("[a-z]*.py")} | {"resources"}

    assert rules - listed == set()
    assert {each for each in listed if not (library / f"{each}.py").exists()} <= {"resources"}


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("0*.md")}

    assert set(links(folder / "README.md")) == records
    for record in records:
        assert len((folder / record).read_text().splitlines()) <= 25


# Commands


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_commands_exist(block: Block) -> None:
    for command in commands(block):
        check_command(shlex.split(command))


def check_command(words: list[str]) -> None:
    program, *arguments = words
    if program == "make":
        check_make(arguments)
    elif program in PROGRAMS:
        check_program(program, arguments)
    else:
        assert program in RUN_ELSEWHERE, words


def check_make(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    target, *variables = arguments
    assert target in targets
    for variable in variables:
        name, _, value = variable.partition("=")
        assert name == "ARGS"
        if target == "demo":
            check_program("zonemesh", ["demo", *shlex.split(value)])
        elif target == "bench":
            source = (ROOT / "tests" / "bench" / "__main__.py").read_text()
            for flag in re.findall(r"--[a-z]+", value):
                assert f'"{flag}"' in source


def check_program(program: str, arguments: list[str]) -> None:
    """Parse as the program would; nothing is run."""
    command: click.Command = PROGRAMS[program]
    context = click.Context(command, info_name=program)
    while isinstance(command, click.Group):
        name, *arguments = arguments
        found = command.get_command(context, name)
        assert found is not None, f"{program} {name}"
        command = found
    if "--help" not in arguments:
        command.make_context(program, arguments)


# Complete lists


@pytest.mark.parametrize("program", inventory.CONFIGS)
def test_every_setting_is_described_with_its_default(program: str) -> None:
    described = rows(section(OPERATIONS, f"### {program}"))
    expected = inventory.settings(program)
    if program == "zonedp":
        expected["dataplane.name"] = None

    assert list(described) == list(expected)
    for key, default in expected.items():
        assert described[key][0].strip("`") == shown(default), key


def shown(default: Any) -> str:
    match default:
        case None | "":
            return ""
        case bool():
            return str(default).lower()
        case list():
            return ", ".join(map(str, default))
        case _:
            return str(default)


def test_every_metric_is_described() -> None:
    described = rows(section(OPERATIONS, "## Metrics"))

    assert set(described) == set(inventory.metrics())


def test_log_events_that_are_described_exist() -> None:
    described = rows(section(OPERATIONS, "## Log events"))
    mentioned = set(re.findall(r"log `([a-z_]+)`", OPERATIONS.read_text()))

    assert (set(described) | mentioned) - inventory.log_events() == set()


def test_every_redis_key_is_described() -> None:
    log = Keys().of("zone:<name>:up")
    made = {log.log, log.head, log.snapshots, log.leader, log.replica("<writer>")}
    made.add(log.chunk(Position(7, 3), "<token>", 5))
    expected = {
        key.replace("zone:<name>:up", "<log>").replace("7-3", "<position>").replace(":5", ":<i>")
        for key in made
    }

    assert set(rows(section(PROTOCOL, "## Redis keys"))) == expected | {f"{{{PREFIX}}}:zones"}


def test_every_kind_of_record_is_described() -> None:
    described = set(rows(section(PROTOCOL, "## Records")))
    bindings = {vip_kind(name) for name, kind in KINDS.items() if kind.pool} | {LEGACY_VIP}

    stored = {name for name, kind in KINDS.items() if not kind.read_only}
    assert described == stored | bindings | INTERNAL | {AGENT, CANARY, f"{MARK}<kind>"}
    assert BLOCK in described


def test_the_entry_in_the_protocol_is_what_the_code_makes() -> None:
    text = PROTOCOL.read_text()

    assert examples.written(text) == text, "run python -m tests.docs.examples"


# Resources


def test_every_kind_has_an_example() -> None:
    kinds = [yaml.safe_load(block.text)["type"] for block in blocks("yaml")]

    assert set(kinds) == {name for name, kind in KINDS.items() if not kind.read_only}


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_examples_of_resources_are_valid(block: Block) -> None:
    document = documents.from_yaml(block.text.encode())
    kind = KINDS[document["type"]]

    kind.validate(documents.spec_of(kind, document), document["name"])


def test_where_each_kind_is_written_is_right() -> None:
    table = section(RESOURCES, "# Resources")
    for name, kind in KINDS.items():
        if kind.read_only:
            continue
        row = re.search(rf"^\| {name} \|.*$", table, re.MULTILINE)
        assert row is not None, name
        _, path, _, planes, _ = [cell.strip() for cell in row[0].strip("|").split("|")]
        assert f"/{kind.path}/" in path
        assert set(planes.split(", ")) == {
            plane for plane, may in (("global", kind.by_global), ("zone", kind.by_zone)) if may
        }
