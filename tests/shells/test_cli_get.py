"""What `zonemesh get` and `describe` show of a control plane, and how a list is watched."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.builders import FakeBackend, dataplane, mesh_service, with_mesh
from tests.commands import add_dataplane, add_service, app_of, rows, run, serving
from zonemesh.cli import client as clients
from zonemesh.cli import output
from zonemesh.cli.watching import Event, changes, follow
from zonemesh.errors import UnavailableError
from zonemesh.model import Key


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
