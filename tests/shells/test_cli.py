"""The operator's commands against a control plane in a dict, and against ones that misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from tests.builders import FakeBackend, dataplane, mesh_service, with_mesh
from tests.ports import free_port
from zonemesh.cli import client as clients
from zonemesh.cli import documents, output
from zonemesh.cli.apply import BULK_MIN
from zonemesh.cli.main import cli
from zonemesh.cli.watching import Event, changes, follow
from zonemesh.errors import UnavailableError
from zonemesh.model import Key
from zonemesh.resources import catalogue
from zonemesh.rest.routes import make_app


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """An application on a loop of its own: the commands under test block theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TestServer(app)
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(10)
        yield str(server.make_url("")).rstrip("/")
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def app_of(backend: FakeBackend) -> web.Application:
    return make_app(backend, catalogue=catalogue.KINDS, config_dump={}, version="0.1.0")


@pytest.fixture
def backend() -> FakeBackend:
    return with_mesh(FakeBackend())


@pytest.fixture
def url(backend: FakeBackend) -> Iterator[str]:
    with serving(app_of(backend)) as found:
        yield found


def run(url: str, *arguments: str, stdin: str = "", **env: str) -> Result:
    return CliRunner(env={"COLUMNS": "", **env}).invoke(
        cli, [*arguments, "--url", url], input=stdin, catch_exceptions=False
    )


def add_dataplane(backend: FakeBackend, name: str, **networking: Any) -> None:
    spec = {"networking": {**dataplane(name)["networking"], **networking}}
    backend.add("Dataplane", Key("default", "west", "", name), spec)


def add_service(backend: FakeBackend, name: str, status: dict[str, Any] | None = None) -> None:
    key = Key("default", "west", "", name)
    backend.add("MeshService", key, mesh_service(name)["spec"] | {"state": "Available"})
    backend.statuses[key] = status or {}


def served(name: str) -> dict[str, Any]:
    return {
        "vips": [{"ip": "241.0.0.7"}, {"ip": "fd00:fd00::f100:7"}],
        "addresses": [{"hostname": f"{name}.mesh", "hostnameGeneratorRef": {"coreName": "local"}}],
        "hostnameGenerators": [
            {"hostnameGeneratorRef": {"coreName": "local"}, "conditions": []},
            {
                "hostnameGeneratorRef": {"coreName": "team"},
                "conditions": [{"reason": "Collision", "message": "held by another"}],
            },
        ],
        "dataplaneProxies": {"total": 1, "healthy": 1, "connected": 0},
    }


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# get


@pytest.mark.parametrize(
    "kind",
    ["meshservices", "meshservice", "MeshService", "msvc", "mesh-service", "mesh-services"],
)
def test_a_kind_may_be_called_by_any_of_its_names(
    backend: FakeBackend, url: str, kind: str
) -> None:
    add_service(backend, "redis")

    result = run(url, "get", kind)

    assert (result.exit_code, result.stderr) == (0, "")
    assert [each[:2] for each in rows(result.stdout)] == [["MESH", "NAME"], ["default", "redis"]]


@pytest.mark.parametrize(
    "kind, words",
    [("meshservics", "did you mean meshservic"), ("zzzz", "there are dataplane")],
    ids=["near", "far"],
)
def test_an_unknown_kind_is_a_wrong_command_line(url: str, kind: str, words: str) -> None:
    result = run(url, "get", kind)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: there is no kind '{kind}'; {words}")


@pytest.mark.parametrize(
    "kind, titles",
    [
        ("meshes", ["NAME", "AGE"]),
        ("hostnamegenerators", ["NAME", "AGE"]),
        ("meshservices", ["MESH", "NAME", "AGE"]),
        ("dataplanes", ["MESH", "NAME", "TAGS", "ADDRESS", "AGE"]),
    ],
)
def test_tables_have_the_columns_of_kumactl(url: str, kind: str, titles: list[str]) -> None:
    assert rows(run(url, "get", kind).stdout)[0] == titles


def test_a_dataplanes_row_has_its_tags_and_address(backend: FakeBackend, url: str) -> None:
    inbound = [
        {"port": 1, "tags": {"kuma.io/service": "a", "zone": "x"}},
        {"port": 2, "tags": {"kuma.io/service": "b"}, "state": "NotReady"},
    ]
    add_dataplane(backend, "redis-01", inbound=inbound)

    plain, wide = run(url, "get", "dp"), run(url, "get", "dp", "-o", "wide")

    row = rows(plain.stdout)[1]
    assert row[1:4] == ["redis-01", "kuma.io/service=a,kuma.io/service=b,zone=x", "10.0.0.1"]
    assert rows(wide.stdout)[1][-3:] == ["west", "Ready", "1/2"]


def test_the_wide_form_tells_addresses_names_zone_and_state(backend: FakeBackend, url: str) -> None:
    add_service(backend, "redis", served("redis"))
    waiting = {"conditions": [{"status": "False", "reason": "PoolExhausted"}]}
    add_service(backend, "shop", waiting)

    _, redis, shop = rows(run(url, "get", "msvc", "-o", "wide").stdout)

    assert redis[3:] == ["241.0.0.7,fd00:fd00::f100:7", "redis.mesh", "west", "Available"]
    assert shop[3:] == ["west", "Available", "(PoolExhausted)"]


def test_tables_are_folded_to_a_width_and_else_have_a_line_per_row(
    backend: FakeBackend, url: str
) -> None:
    add_service(backend, "redis-" + "x" * 50, served("redis-" + "y" * 50))

    narrow = run(url, "get", "msvc", "-o", "wide", COLUMNS="80")
    unbounded = run(url, "get", "msvc", "-o", "wide")

    assert max(map(len, narrow.stdout.splitlines())) <= 80
    assert len(unbounded.stdout.splitlines()) == 2
    assert "…" not in narrow.stdout


def test_a_list_is_followed_page_by_page(
    backend: FakeBackend, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "PAGE", 2)
    for number in range(5):
        add_dataplane(backend, f"d{number}")

    result = run(url, "get", "dataplanes")

    assert [each[1] for each in rows(result.stdout)[1:]] == ["d0", "d1", "d2", "d3", "d4"]


def test_one_page_says_where_the_next_one_starts(backend: FakeBackend, url: str) -> None:
    for number in range(5):
        add_dataplane(backend, f"d{number}")

    first = run(url, "get", "dataplanes", "--size", "2", "--offset", "1")
    last = run(url, "get", "dataplanes", "--size", "2", "--offset", "3")

    assert [each[1] for each in rows(first.stdout)[1:]] == ["d1", "d2"]
    assert "Rerun command with --offset=3 argument to retrieve more resources" in first.stderr
    assert last.stderr == ""


def test_lists_are_of_one_mesh_unless_of_all(backend: FakeBackend, url: str) -> None:
    with_mesh(backend, "other")
    add_dataplane(backend, "here")
    spec = {"networking": dataplane()["networking"]}
    backend.add("Dataplane", Key("other", "west", "", "there"), spec)

    one = run(url, "get", "dp", "-m", "other")
    every = run(url, "get", "dp", "-A")

    assert [each[:2] for each in rows(one.stdout)[1:]] == [["other", "there"]]
    assert [each[0] for each in rows(every.stdout)[1:]] == ["default", "other"]


def test_yaml_and_json_are_what_the_server_gave(backend: FakeBackend, url: str) -> None:
    for name in ("a", "b"):
        add_dataplane(backend, name)

    as_json = json.loads(run(url, "get", "dp", "-o", "json").stdout)
    as_yaml = list(yaml.safe_load_all(run(url, "get", "dp", "-o", "yaml").stdout))
    one = json.loads(run(url, "get", "dp", "a", "-o", "json").stdout)

    assert as_json == {"total": 2, "items": as_yaml}
    assert one == as_yaml[0]
    assert one["networking"]["address"] == "10.0.0.1"


def test_what_is_printed_as_yaml_can_be_applied_again(backend: FakeBackend, url: str) -> None:
    for name in ("a", "b"):
        add_dataplane(backend, name)
    printed = run(url, "get", "dp", "-o", "yaml").stdout

    result = run(url, "apply", "-f", "-", stdin=printed)

    assert result.exit_code == 0
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["Updated"] * 2


def test_an_absent_resource_is_told_as_kumactl_tells_it(url: str) -> None:
    result = run(url, "get", "dp", "nobody")

    assert result.exit_code == 1
    assert result.stderr == "Error: No resources found in mesh default: Dataplane nobody\n"


@pytest.mark.parametrize(
    "arguments", [["x", "-A"], ["x", "--size", "1"], ["-w", "--offset", "1"]], ids=str
)
def test_options_that_contradict_are_a_wrong_command_line(url: str, arguments: list[str]) -> None:
    assert run(url, "get", "dp", *arguments).exit_code == 2


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (59, "59s"), (60, "1m"), (3_600, "1h"), (86_400, "1d"), (366 * 86_400, "1y")],
)
def test_ages_are_in_their_largest_unit(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)

    assert output.age((now - timedelta(seconds=seconds)).isoformat(), now) == text


@pytest.mark.parametrize("moment", [None, "", "soon", "0001-01-01T00:00:00Z"])
def test_what_has_no_time_has_no_age(moment: str | None) -> None:
    assert output.age(moment, datetime.now(UTC)) == "never"


# watch


def test_changes_between_two_looks() -> None:
    a, b, c, d = ({"name": name, "value": 1} for name in "abcd")
    before = {("", "a"): a, ("", "b"): b, ("", "c"): c}
    after = {("", "b"): b | {"value": 2}, ("", "c"): c, ("", "d"): d}

    found = changes(before, after)

    assert [event for event, _ in found] == [Event.MODIFIED, Event.ADDED, Event.DELETED]
    assert found[-1][1]["name"] == "a"


def test_a_control_plane_that_is_silent_for_a_while_deletes_nothing() -> None:
    looks: list[list[dict[str, str]] | UnavailableError] = [
        [{"name": "a"}],
        UnavailableError("gone"),
        UnavailableError("gone"),
        [{"name": "a"}, {"name": "b"}],
        UnavailableError("gone"),
        [{"name": "b"}],
    ]
    told: list[str] = []

    def fetch() -> list[dict[str, str]]:
        look = looks.pop(0)
        if isinstance(look, UnavailableError):
            raise look
        return look

    events = follow(fetch, pause=lambda: None, tell=told.append)
    found = [[(str(event), each["name"]) for event, each in next(events)] for _ in range(3)]

    assert found == [[("Added", "a")], [("Added", "b")], [("Deleted", "a")]]
    assert told == ["gone; trying again"] * 2


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


# describe


def test_a_service_is_described_with_addresses_names_and_dataplanes(
    backend: FakeBackend, url: str
) -> None:
    add_service(backend, "redis", served("redis"))
    backend.add(
        "Dataplane",
        Key("default", "west", "", "redis-01"),
        {"networking": dataplane()["networking"]},
        app="redis",
    )
    backend.records["Dataplane", Key("default", "east", "", "redis-02")] = backend.records[
        "Dataplane", Key("default", "west", "", "redis-01")
    ]
    add_dataplane(backend, "shop-01")

    text = run(url, "describe", "msvc", "redis").stdout

    assert "Zone:           west" in text
    assert "Labels:         kuma.io/display-name=redis" in text
    assert "Addresses:      241.0.0.7\n                fd00:fd00::f100:7" in text
    assert "Names:          redis.mesh (by local)" in text
    assert "none by team: Collision: held by another" in text
    assert "Data planes:    1 total, 1 healthy, 0 connected" in text
    assert "  redis-01  10.0.0.1  Ready 1/1" in text
    assert "shop-01" not in text
    assert "redis-02" not in text  # of another zone


@pytest.mark.parametrize(
    "closed, enabled, state",
    [(False, True, "Online"), (True, True, "Offline"), (False, False, "Offline (disabled)")],
    ids=["online", "offline", "disabled"],
)
def test_a_zone_is_described_and_listed_with_its_insight(
    closed: bool, enabled: bool, state: str
) -> None:
    backend = FakeBackend(on_global=True, zone="")
    backend.add("Zone", Key("", "", "", "east"), {"enabled": enabled})
    subscription = {"connectTime": "2026-09-21T14:13:20Z"}
    if closed:
        subscription["disconnectTime"] = "2026-09-21T15:13:20Z"
    backend.insights["east"] = {
        "subscriptions": [subscription],
        "zonemesh": {"lagSeconds": 0.25, "rejectedRecords": 3, "url": ""},
    }
    with serving(app_of(backend)) as url:
        text = run(url, "describe", "zone", "east").stdout
        listed = run(url, "get", "zones", "-o", "wide").stdout

    assert f"State:          {state}\n" in text
    assert "Lag:            0.25 s" in text
    assert "Rejected:       3 records" in text
    assert ("Disconnected:" in text) is closed
    assert "URL:" not in text
    assert state in listed


def test_only_so_many_dataplanes_of_a_service_are_described(backend: FakeBackend, url: str) -> None:
    add_service(backend, "redis")
    for number in range(25):
        key = Key("default", "west", "", f"redis-{number:02}")
        backend.add("Dataplane", key, {"networking": dataplane()["networking"]}, app="redis")

    text = run(url, "describe", "msvc", "redis").stdout

    assert text.splitlines()[-1] == "  and 5 more"
    assert ("redis-19" in text, "redis-20" in text) == (True, False)


def test_other_kinds_are_described_by_their_spec(backend: FakeBackend, url: str) -> None:
    add_dataplane(backend, "redis-01")

    text = run(url, "describe", "dp", "redis-01").stdout
    absent = run(url, "describe", "dp", "nobody")

    assert "Spec:\n  networking:\n    address: 10.0.0.1\n" in text
    assert absent.exit_code == 1
    assert "No resources found in mesh default" in absent.stderr


# explain


def test_a_plane_that_explains_nothing_is_told_apart(url: str) -> None:
    result = run(url, "explain", "redis.svc.mesh.local")

    assert result.exit_code == 2
    assert "explains no names: give --url of a zone's control plane" in result.stderr


ANSWER: dict[str, Any] = {
    "mesh": "default",
    "zone": "west",
    "name": "x.shared",
    "resolves": False,
    "verdict": "NoAddress",
    "why": "MeshService b of zone east holds it and has no address yet: zone east binds it",
    "vips": [],
    "ttl": None,
    "candidates": [
        {
            "kind": "MeshService",
            "name": "b",
            "zone": "east",
            "generator": "shared",
            "template": "x.shared",
            "holds": True,
            "why": "",
            "endpoints": {"total": 2, "ready": 1},
        },
        {
            "kind": "MeshExternalService",
            "name": "a",
            "zone": "",
            "generator": "later",
            "template": "x.shared",
            "holds": False,
            "why": "MeshService b of zone east has it: its generator shared is older",
            "endpoints": {"total": 0, "ready": 0},
        },
        {
            "kind": "Legacy",
            "name": "x",
            "zone": "",
            "service": "default//service/x",
            "generator": "",
            "template": "",
            "holds": False,
            "why": "MeshService b of zone east has it: generators go first",
            "endpoints": {"total": 1, "ready": 1},
        },
    ],
    "failures": [
        {"kind": "MeshService", "name": "b", "zone": "east", "generator": "g", "message": "no"}
    ],
    "near": [{"kind": "MeshService", "name": "y", "zone": "west", "names": []}],
    "zones": {"east": {"state": "Offline", "silent_s": 61.0}},
    "dataplane": {"name": "shop-1", "known": False, "trimmed": False, "why": "all get all"},
    "warnings": ["zone east is offline"],
    "lag_s": 1.25,
}


def explaining(asked: list[tuple[str, str]], document: dict[str, Any]) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        asked.append((request.match_info["mesh"], request.query_string))
        return web.json_response(document)

    app = web.Application()
    app.router.add_get("/meshes/{mesh}/_explain", answer)
    return app


def test_an_explanation_is_told_in_lines() -> None:
    asked: list[tuple[str, str]] = []
    with serving(explaining(asked, ANSWER)) as url:
        result = run(url, "explain", "x.shared", "--dataplane", "shop-1", "-m", "some")

    assert asked == [("some", "name=x.shared&dataplane=shop-1")]
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "x.shared does not resolve in zone west, mesh default.",
        "  MeshService b of zone east holds it and has no address yet: zone east binds it",
        "",
        "Warnings:",
        "  zone east is offline",
        "",
        "Who wants it:",
        "  MeshService b (zone east, offline): holds it",
        "    generator shared: x.shared",
        "    endpoints: 1 ready of 2",
        "  MeshExternalService a (global): lost",
        "    generator later: x.shared",
        "    MeshService b of zone east has it: its generator shared is older",
        "  service x (legacy, any zone): lost",
        "    MeshService b of zone east has it: generators go first",
        "",
        "Generators that failed:",
        "  g on MeshService b (zone east):",
        "    no",
        "",
        "Services called nearly so:",
        "  MeshService y (zone west)",
        "    no name here",
        "",
        "Data plane:",
        "  shop-1 is not registered in this zone",
        "  not trimmed: all get all",
        "",
        "What zone west knows of others is 1.2 s old.",
    ]


@pytest.mark.parametrize("form, load", [("json", json.loads), ("yaml", yaml.safe_load)])
def test_an_explanation_for_programs(form: str, load: Callable[[str], Any]) -> None:
    with serving(explaining([], ANSWER | {"resolves": True})) as url:
        result = run(url, "explain", "x.shared", "-o", form)

    assert result.exit_code == 0
    assert load(result.stdout) == ANSWER | {"resolves": True}


# Connections


@pytest.mark.parametrize("url", ["nowhere", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_is_none_is_a_wrong_command_line(url: str) -> None:
    result = run(url, "get", "zones")

    assert result.exit_code == 2
    assert result.stderr == f"Error: --url: {url!r} is not a URL like http://127.0.0.1:5681\n"


def test_nobody_there_is_one_line() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    result = run(url, "get", "zones")

    assert result.exit_code == 1
    assert result.stderr == f"Error: {url} does not answer: Connection refused\n"


def misbehaving(answer: Callable[[], web.Response]) -> web.Application:
    async def handle(_: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda: web.Response(status=502, text="<html>\nproxy"), "(502): <html> proxy"),
        (lambda: web.Response(text="hello"), "did not answer with JSON"),
        (lambda: web.json_response([]), "did not answer with a JSON object"),
        (
            lambda: web.json_response({"title": "Access Denied"}, status=403),
            "Error: Access Denied",
        ),
    ],
    ids=["proxy", "text", "list", "title"],
)
def test_what_is_no_control_plane_is_told_in_a_line(
    answer: Callable[[], web.Response], words: str
) -> None:
    with serving(misbehaving(answer)) as url:
        result = run(url, "get", "zones")

    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_silent_control_plane_is_not_waited_for_longer_than_asked() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application()
    app.router.add_get("/_resources", hang)
    with serving(app) as url:
        result = run(url, "get", "zones", "--timeout", "0.1")

    assert result.exit_code == 1
    assert "does not answer: no answer in time" in result.stderr


def test_the_environment_says_where_to_ask(backend: FakeBackend, url: str) -> None:
    result = CliRunner(env={"ZONEMESH_URL": url}).invoke(cli, ["get", "meshes"])

    assert rows(result.stdout)[1][0] == "default"


# Completion


@pytest.mark.parametrize(
    "words, found",
    [
        ("get meshs", ["meshservices"]),
        ("delete dataplanes re", ["redis-01", "redis-02"]),
        ("describe dp redis-02", ["redis-02"]),
        ("get nothing re", []),
    ],
)
def test_the_shell_completes_kinds_and_names(
    backend: FakeBackend, url: str, words: str, found: list[str]
) -> None:
    for name in ("redis-01", "redis-02", "shop-01"):
        add_dataplane(backend, name)

    assert completions(words, url) == found


def test_a_shell_is_not_troubled_by_a_control_plane_that_is_away() -> None:
    assert completions("get mesh", f"http://127.0.0.1:{free_port()}") == []


def completions(words: str, url: str) -> list[str]:
    env = {
        "_ZONEMESH_COMPLETE": "bash_complete",
        "COMP_WORDS": f"zonemesh {words}",
        "COMP_CWORD": str(len(words.split())),
        "ZONEMESH_URL": url,
    }
    result = CliRunner(env=env).invoke(cli, prog_name="zonemesh")
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize("command", ["get", "describe"])
def test_a_copy_is_found_by_what_it_is_called_where_it_was_made(
    backend: FakeBackend, url: str, command: str
) -> None:
    for zone in ("north", "east"):
        key = Key("default", zone, "", "redis" if zone == "east" else "mongo")
        backend.add("MeshService", key, mesh_service(key.name)["spec"])
    add_service(backend, "redis")

    mine = run(url, command, "msvc", "redis")
    copy = run(url, command, "msvc", "mongo")
    backend.add("MeshService", Key("default", "east", "", "mongo"), mesh_service("mongo")["spec"])
    several = run(url, command, "msvc", "mongo")

    assert mine.exit_code == copy.exit_code == 0
    assert "mongo-" in copy.stdout
    assert "redis-" not in mine.stdout
    assert several.exit_code == 1
    assert several.stderr.startswith("Error: several are called mongo where they were made: mongo-")
    assert "(zone east)" in several.stderr
    assert "(zone north)" in several.stderr
