"""Mistakes of whoever starts a process: exit code 2 and a line that says what to change."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.mesh import HOST, Mesh, eventually, run
from zonemesh.runtime.datadir import data_dir

pytestmark = pytest.mark.timeout(60)

ENDS_S = 15.0


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind((HOST, 0))
        held.listen()
        yield held.getsockname()[1]


def _run(
    script: str, directory: Path, config: dict[str, Any], command: str = "run"
) -> subprocess.CompletedProcess[str]:
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return run(script, command, "-c", str(path), timeout_s=ENDS_S)


def _faults(ended: subprocess.CompletedProcess[str]) -> list[str]:
    assert ended.returncode == 2, ended.stderr
    return [line for line in ended.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("script", ["globalcp", "zonecp", "zonedp"])
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(script: str, tmp_path: Path) -> None:
    named = {"dataplane": {"name": "x"}} if script == "zonedp" else {}

    [line] = _faults(_run(script, tmp_path, {"dataDri": str(tmp_path), **named}))

    assert line == "error: dataDri: unknown key; did you mean dataDir?"


def test_a_log_of_an_unknown_scheme_is_refused(mesh: Mesh) -> None:
    config = {**mesh.config("west"), "log": {"url": "postgres://somewhere/log"}}

    [line] = _faults(_run("zonecp", mesh.directory, config))

    assert "log.url" in line
    assert "postgres" in line
    assert "sqlite:///" in line


@pytest.mark.parametrize("command", ["run", "config"])
@pytest.mark.parametrize(
    "script, setting, key",
    [
        ("globalcp", {"redis": {"url": "http://127.0.0.1"}}, "redis.url"),
        ("globalcp", {"redis": {"keyPrefix": "a b"}}, "redis.keyPrefix"),
        ("zonecp", {"redis": {"url": "redis://127.0.0.1?nonsense=1"}}, "redis.url"),
        ("zonecp", {"log": {"url": "redis://127.0.0.1:x"}}, "log.url"),
        ("zonecp", {"log": {"url": "sqlite://"}}, "log.url"),
        ("zonecp", {"log": {"passwordPath": "/etc/password"}}, "log.passwordPath: log.url names"),
        (
            "zonecp",
            {"log": {"url": "redis://127.0.0.1", "passwordPath": "/nowhere"}},
            "log.passwordPath: there is no file /nowhere",
        ),
        ("zonedp", {"dataplane": {"name": "Not A Label"}}, "dataplane.name"),
        ("zonedp", {"dataplaneRuntime": {"resourcePath": "/nowhere"}}, "/nowhere"),
    ],
)
def test_what_cannot_work_is_said_by_config_as_by_run(
    command: str, script: str, setting: dict[str, Any], key: str, tmp_path: Path
) -> None:
    config = {"dataDir": str(tmp_path / "data"), **setting}

    [line] = _faults(_run(script, tmp_path, config, command))

    assert key in line
    assert not (tmp_path / "data").exists()


def test_a_configuration_nested_thousands_deep_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 40_000)

    done = run("zonecp", "config", "-c", str(tmp_path / "deep.yaml"), timeout_s=ENDS_S)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "deep.yaml" in done.stderr


def test_two_agents_cannot_share_a_directory(tmp_path: Path) -> None:
    config = {
        "dataplane": {"name": "x", "readinessPort": 0},
        "dns": {"proxyPort": 0},
        "dataDir": str(tmp_path / "agent"),
    }
    with data_dir(tmp_path / "agent"):
        [line] = _faults(_run("zonedp", tmp_path, config))

    assert "dataDir" in line
    assert "in use" in line


def test_a_zone_with_only_globals_address_is_told_of_redis(mesh: Mesh) -> None:
    config = mesh.config("west")
    del config["redis"]
    config["multizone"] = {"zone": {"name": "west", "globalAddress": "grpcs://global:5685"}}

    [line] = _faults(_run("zonecp", mesh.directory, config))

    assert "globalAddress" in line
    assert "redis.url" in line


@pytest.mark.parametrize("script, name", [("globalcp", "g1"), ("zonecp", "west")])
def test_a_port_in_use_is_named(script: str, name: str, mesh: Mesh, busy_port: int) -> None:
    config = {**mesh.config(name), "apiServer": {"http": {"port": busy_port}}}

    [line] = _faults(_run(script, mesh.directory, config))

    assert f"{HOST}:{busy_port}" in line
    assert "in use" in line


def test_an_agents_port_in_use_is_named(tmp_path: Path, busy_port: int) -> None:
    config = {
        "dataplane": {"name": "x", "readinessPort": 0},
        "dns": {"proxyPort": busy_port},
        "dataDir": str(tmp_path / "agent"),
    }

    [line] = _faults(_run("zonedp", tmp_path, config))

    assert str(busy_port) in line
    assert "in use" in line


@pytest.mark.parametrize("script, name", [("globalcp", "g1"), ("zonecp", "west")])
def test_a_data_directory_that_cannot_be_made_is_named(script: str, name: str, mesh: Mesh) -> None:
    (mesh.directory / "file").write_text("in the way")
    config = {**mesh.config(name), "dataDir": str(mesh.directory / "file" / "data")}

    [line] = _faults(_run(script, mesh.directory, config))

    assert "dataDir" in line
    assert str(mesh.directory / "file" / "data") in line


def test_a_data_directory_that_cannot_be_written_is_named(mesh: Mesh) -> None:
    # Not even root makes files there.
    config = {**mesh.config("west"), "dataDir": "/proc"}

    [line] = _faults(_run("zonecp", mesh.directory, config))

    assert "dataDir" in line


@pytest.mark.parametrize("script, name", [("globalcp", "g1"), ("zonecp", "west")])
def test_a_data_directory_in_use_is_refused(script: str, name: str, mesh: Mesh) -> None:
    mesh[name].start()
    eventually(lambda: mesh.not_ready(name) != "it does not answer", 20, mesh, name)
    config = {
        **mesh.config(name),
        "apiServer": {"http": {"port": 0}},
        "diagnostics": {"port": 0},
        "multizone": {"zone": {"name": "west"}},
    }
    if script == "globalcp":
        del config["multizone"]

    [line] = _faults(_run(script, mesh.directory, config))

    assert "dataDir" in line
    assert "in use" in line


def test_the_data_directory_of_another_zone_is_refused(mesh: Mesh) -> None:
    mesh.start_redis()
    for name in ("g1", "west"):
        mesh[name].start()
    mesh.wait_ready("west")
    assert mesh["west"].stop() == 0
    config = {**mesh.config("west"), "multizone": {"zone": {"name": "north"}}}

    [line] = _faults(_run("zonecp", mesh.directory, config))

    assert "west" in line
    assert "north" in line
    assert "dataDir" in line
