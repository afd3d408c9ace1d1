"""The operator's commands against a zone's control plane as it is run, without a global."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.builders import dataplane
from tests.ports import free_port
from zonemesh.cli.main import cli

pytestmark = pytest.mark.timeout(60)  # processes start slowly on a busy machine

START_S = 30.0
NAME = "redis.svc.mesh.local"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("zone")
    port, diagnostics = free_port(), free_port()
    config = {
        "dataDir": str(directory / "data"),
        "multizone": {"zone": {"name": "west"}},
        "apiServer": {"http": {"port": port}},
        "diagnostics": {"port": diagnostics},
    }
    (directory / "zone.yaml").write_text(yaml.safe_dump(config))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "zonecp", "run", "-c", str(directory / "zone.yaml")],
            stderr=log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    try:
        wait_ready(f"http://127.0.0.1:{diagnostics}/ready")
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def wait_ready(url: str) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline_s, f"{url} is not ready"
            time.sleep(0.05)


def run(url: str, *arguments: str, stdin: str = "") -> Result:
    return CliRunner(env={"COLUMNS": "", "ZONEMESH_URL": url}).invoke(
        cli, arguments, input=stdin, catch_exceptions=False
    )


def tagged(name: str, service: str, address: str = "10.0.0.1") -> str:
    inbound = [{"port": 6379, "tags": {"kuma.io/service": service}}]
    networking = {"address": address, "inbound": inbound}
    return yaml.safe_dump(dataplane(name) | {"labels": {}, "networking": networking})


def test_a_registration_is_followed_from_file_to_name_and_away(url: str, tmp_path: Path) -> None:
    path = tmp_path / "redis.yaml"
    path.write_text(tagged("redis-01", "redis"))

    before = run(url, "explain", NAME)
    applied = [run(url, "apply", "-f", str(path)).stdout.split()[-1] for _ in range(2)]
    path.write_text(tagged("redis-01", "redis", "10.0.0.2"))
    tried = run(url, "apply", "--dry-run", "-f", str(path))
    applied += [run(url, "apply", "-f", str(path)).stdout.split()[-1]]
    listed = run(url, "get", "meshservices", "-o", "wide")
    described = run(url, "describe", "meshservice", "redis")
    after = run(url, "explain", NAME, "--dataplane", "redis-01", "-o", "json")
    deleted = run(url, "delete", "dataplane", "redis-01")
    alone = run(url, "explain", NAME)

    assert (before.exit_code, applied) == (1, ["Created", "Unchanged", "Updated"])
    assert "Updated (dry run)" in tried.stdout
    answer = json.loads(after.stdout)
    assert (answer["resolves"], answer["dataplane"]["known"]) == (True, True)
    assert f"{answer['vips'][0]},{answer['vips'][1]}" in listed.stdout
    assert NAME in listed.stdout
    assert f"Names:          {NAME} (by local-universal-mesh-service)" in described.stdout
    assert "redis-01  10.0.0.2  Ready 1/1" in described.stdout
    assert deleted.stdout == 'deleted Dataplane "redis-01"\n'
    assert "no data plane stands behind it" in alone.stdout


def test_many_registrations_are_created_then_unchanged(url: str) -> None:
    text = "---\n".join(tagged(f"many-{number:02}", f"many-{number:02}") for number in range(40))

    first, second = (run(url, "apply", "-f", "-", stdin=text) for _ in range(2))

    whats = [{line.split()[-1] for line in each.stdout.splitlines()} for each in (first, second)]
    assert whats == [{"Created"}, {"Unchanged"}]


def test_a_lost_name_and_a_failed_generator_are_explained(url: str) -> None:
    documents = [
        {
            "type": "HostnameGenerator",
            "name": name,
            "spec": {"selector": {"meshService": {}}, "template": template},
        }
        for name, template in (("one", "one.shared"), ("team", '{{ label "team" }}.shared'))
    ]
    text = "---\n".join([tagged("a-1", "a"), tagged("b-1", "b"), yaml.safe_dump_all(documents)])
    assert run(url, "apply", "-f", "-", stdin=text).exit_code == 0
    for name in ("a", "b"):
        assert run(url, "get", "msvc", name).exit_code == 0

    shared = json.loads(run(url, "explain", "one.shared", "-o", "json").stdout)
    typo = run(url, "explain", "b.svc.mesh.loca")
    for name in ("one", "team"):
        assert run(url, "delete", "hg", name).exit_code == 0

    assert shared["candidates"][0]["holds"] is True
    assert all(
        "has it: it was registered first" in each["why"] for each in shared["candidates"][1:]
    )
    assert len(shared["candidates"]) >= 2
    assert typo.exit_code == 1
    assert "team on MeshService b (zone west):" in typo.stdout
    assert "    b.svc.mesh.local" in typo.stdout


@pytest.mark.parametrize(
    "query, status, words",
    [
        ("name=x.mesh", 200, '"verdict": "Unknown"'),
        ("name=x.mesh&dataplane=nobody", 200, "is not registered in this zone"),
        ("name=" + "x" * 300, 200, '"verdict": "Invalid"'),
        ("", 400, "must not be empty"),
        ("name=" + "x" * 1_001, 400, "must be no more than 1000 characters"),
    ],
    ids=["unknown", "dataplane", "invalid", "none", "long"],
)
def test_whatever_is_asked_for_is_answered(url: str, query: str, status: int, words: str) -> None:
    found, body = fetch(f"{url}/meshes/default/_explain?{query}")

    assert (found, words in body) == (status, True)


def test_an_unknown_mesh_is_an_answer_too(url: str) -> None:
    status, body = fetch(f"{url}/meshes/nowhere/_explain?name=x.mesh")

    assert status == 200
    assert json.loads(body)["verdict"] == "UnknownMesh"


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_list_is_watched_until_ctrl_c(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "from zonemesh.cli.main import main; main()",
         "get", "dataplanes", "--watch", "-o", "json", "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        run(url, "apply", "-f", "-", stdin=tagged("watched-1", "watched"))
        seen = next_of(process, "Added")
        run(url, "delete", "dp", "watched-1")
        gone = next_of(process, "Deleted")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    finally:
        process.kill()

    assert seen["networking"]["address"] == "10.0.0.1"
    assert gone["name"] == "watched-1"
    assert (process.returncode, stderr) == (0, "")


def next_of(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next event of that sort about the Dataplane that the test applies."""
    assert process.stdout is not None
    for line in process.stdout:
        document = json.loads(line)
        resource: dict[str, Any] = document["resource"]
        if document["event"] == event and resource["name"] == "watched-1":
            return resource
    raise AssertionError("the watch ended")
