"""What `zonemesh apply` and `delete` write, and what they say of what they did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.builders import FakeBackend, dataplane, with_mesh
from tests.commands import add_dataplane, add_service, run, serving
from zonemesh.cli import documents
from zonemesh.cli.apply import BULK_MIN

# apply


DATAPLANES = """
# two of them
---
type: Dataplane
name: a
networking: {address: 10.0.0.1, inbound: [{port: 80}]}
--- # the next
type: Dataplane
name: b
networking:
  address: 10.0.0.2
  inbound: [{port: 80}] # --- not here
...
"""


def dump(*names: str, **fields: Any) -> str:
    return yaml.safe_dump_all([dataplane(name) | fields for name in names])


def test_documents_are_created_and_one_that_fails_stops_no_other(
    backend: FakeBackend, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(
        dump("a") + "---\n" + dump("b", networking={"address": 7}) + "---\n" + dump("c")
    )

    result = run(url, "apply", "-f", str(path))

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "resource type=Dataplane mesh=default name=a Created",
        "resource type=Dataplane mesh=default name=c Created",
    ]
    title, problem, fault, *_ = result.stderr.splitlines()
    assert title == (f"resource type=Dataplane mesh=default name=b Failed ({path}, document 2)")
    assert problem == "  Could not process a resource (Resource is not valid)"
    assert fault.startswith("  * networking.address: ")
    assert sum(kind == "Dataplane" for kind, _ in backend.records) == 2


@pytest.mark.parametrize("count", [1, BULK_MIN], ids=["one-by-one", "bulk"])
def test_what_is_there_is_updated(backend: FakeBackend, url: str, count: int) -> None:
    names = [f"d{number:02}" for number in range(count)]
    add_dataplane(backend, names[-1])

    result = run(url, "apply", "-f", "-", stdin=dump(*names))

    whats = [line.split()[-1] for line in result.stdout.splitlines()]
    assert whats == ["Created"] * (count - 1) + ["Updated"]
    assert (len(backend.batches) == 1) is (count == 1 or count >= BULK_MIN)


def test_many_documents_go_together_and_each_failure_is_told(
    backend: FakeBackend, url: str
) -> None:
    names = [f"d{number:02}" for number in range(BULK_MIN)]
    text = dump(*names) + "---\n" + dump("bad", networking={"address": "10.0.0.1", "inbound": 1})

    result = run(url, "apply", "-f", "-", stdin=text)

    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == BULK_MIN
    assert "name=bad Failed (stdin, document 21)" in result.stderr
    assert "  * networking.inbound" in result.stderr
    assert len(backend.batches) == 1


def test_meshes_come_first_whatever_the_order_of_the_files(
    backend: FakeBackend, url: str, tmp_path: Path
) -> None:
    (tmp_path / "1.yaml").write_text(dump("a", mesh="fresh"))
    (tmp_path / "2.json").write_text(json.dumps({"type": "Mesh", "name": "fresh"}))
    (tmp_path / "notes.txt").write_text("not read")

    result = run(url, "apply", "-f", str(tmp_path))

    assert result.exit_code == 0
    assert backend.mesh_exists("fresh")


def test_documents_without_a_mesh_are_of_the_one_asked_for(backend: FakeBackend, url: str) -> None:
    with_mesh(backend, "other")

    result = run(url, "apply", "-m", "other", "-f", "-", stdin=DATAPLANES)

    assert result.exit_code == 0
    assert {key.mesh for kind, key in backend.records if kind == "Dataplane"} == {"other"}


def test_a_dry_run_writes_nothing_and_says_what_would_happen(
    backend: FakeBackend, url: str
) -> None:
    add_dataplane(backend, "same")
    add_dataplane(backend, "other")
    same: dict[str, Any] = {"labels": {}}
    text = "---\n".join(
        [
            dump("new"),
            dump("same", **same),
            dump("other", **same, networking={"address": "10.0.0.9"}),
            dump("bad", networking={}),
            dump("lost", mesh="nowhere"),
        ]
    )

    result = run(url, "apply", "--dry-run", "-f", "-", stdin=text)

    assert result.exit_code == 1
    assert [line.split()[3:5] for line in result.stdout.splitlines()] == [
        ["name=new", "Created"],
        ["name=same", "Unchanged"],
        ["name=other", "Updated"],
    ]
    assert "* networking.address: " in result.stderr
    assert "Failed to retrieve Mesh (Not found)" in result.stderr
    assert backend.batches == []


@pytest.mark.parametrize(
    "document, words",
    [
        ("type: Dataplane", "name: must be a string that is not empty"),
        ("{name: 1, type: }", "type: must be a string that is not empty; name: must"),
        ("type: Dataplane\nname: a\nmesh: 1", "mesh: must be a string"),
        ("type: Thing\nname: a", "type: 'Thing' is no kind of this control plane"),
        ("- a", "a resource is a mapping"),
        ("a: [", "not a YAML document"),
        ('{"a": 1} [2]', "a resource is a JSON object"),
        ("a: &a [1]\nb: \xff", "type: must be a string"),
    ],
)
def test_what_is_no_resource_is_told(url: str, document: str, words: str) -> None:
    result = run(url, "apply", "-f", "-", stdin=document)

    assert result.exit_code == 1
    assert "document Failed (stdin" in result.stderr
    assert words in result.stderr


@pytest.mark.parametrize(
    "arguments, stdin, words",
    [
        (["-f", "/nope", "-f", "/nor"], "", "/nope: no such file or directory; /nor: no such"),
        (["-f", "-"], "# nothing\n---\n", "nothing to apply: no documents in -"),
        ([], "", "Missing option"),
    ],
    ids=["absent", "empty", "none"],
)
def test_nothing_to_apply_is_a_wrong_command_line(
    url: str, arguments: list[str], stdin: str, words: str
) -> None:
    result = run(url, "apply", *arguments, stdin=stdin)

    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(
    "text, names",
    [
        (DATAPLANES, ["a", "b"]),
        ('{"name": "a"}{"name": "b"}\n', ["a", "b"]),
        ('[{"name": "a"}, {"name": "b"}]', ["a", "b"]),
        ('{"total": 2, "items": [{"name": "a"}, {"name": "b"}], "next": null}', ["a", "b"]),
        ("{name: a}", ["a"]),
        ("name: a\ntext: |\n  one\n  ---\n  two\n", ["a"]),
        ("%YAML 1.2\n---\nname: a\n", ["a"]),
        ("\ufeffname: a\r\n---\r\nname: b\r\n", ["a", "b"]),
    ],
    ids=["yaml", "json", "array", "list", "flow", "block", "directive", "windows"],
)
def test_files_hold_several_documents_in_several_forms(text: str, names: list[str]) -> None:
    found = list(documents.parse("file", text.encode()))

    assert [each.body["name"] for each in found if isinstance(each, documents.Source)] == names
    assert len(found) == len(names)


def test_bytes_that_are_no_text_are_told() -> None:
    (fault,) = documents.parse("file", b"name: \xff")

    assert fault == documents.Fault("file", "not UTF-8: invalid start byte at byte 6")


def test_what_a_cut_answer_leaves_open_is_told() -> None:
    async def kinds(_: web.Request) -> web.Response:
        row = {"name": "Dataplane", "path": "dataplanes", "scope": "Mesh"}
        return web.json_response({"resources": [row]})

    async def absent(_: web.Request) -> web.Response:
        return web.json_response({"title": "Could not retrieve a resource"}, status=404)

    async def cut(_: web.Request) -> web.Response:
        return web.Response(text='{"line": 1, "status": 201, "warnings": ["old"]}\n')

    app = web.Application()
    app.router.add_get("/_resources", kinds)
    app.router.add_post("/_bulk", cut)
    app.router.add_get("/{path:.*}", absent)
    with serving(app) as url:
        text = dump(*(f"d{number:02}" for number in range(BULK_MIN)))
        result = run(url, "apply", "-f", "-", stdin=text)

    assert result.exit_code == 1
    assert result.stdout == "resource type=Dataplane mesh=default name=d00 Created\n"
    assert result.stderr.count("not answered: it may have been written or not") == BULK_MIN - 1
    assert "  Warning: old\n" in result.stderr


# delete


def test_a_resource_is_deleted_once(backend: FakeBackend, url: str) -> None:
    add_service(backend, "redis")

    first, second = (run(url, "delete", "meshservice", "redis") for _ in range(2))

    assert (first.exit_code, first.stdout) == (0, 'deleted MeshService "redis"\n')
    assert second.exit_code == 1
    assert second.stderr == 'Error: there is no MeshService with name "redis"\n'


def test_a_refused_write_says_why_in_kumas_words(backend: FakeBackend, url: str) -> None:
    backend.federated = True
    with_mesh(backend)

    result = run(url, "delete", "mesh", "default")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Method not allowed (")
