"""`zonemesh demo`, as a person and as CI runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.mesh import environment, eventually, program
from tests.patience import SLOWER


@contextmanager
def _demo(directory: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A demo whose temporary files are in `directory`; interrupted, if it still runs at the end."""
    process = subprocess.Popen(
        [program("zonemesh"), "demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "TMPDIR": str(directory), **variables},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=SLOWER * 10)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _pids(directory: Path) -> list[int]:
    """Processes that have the demo's directory in their command line or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            works_in = str((entry / "cwd").readlink())
        except OSError:
            continue
        if os.fsencode(directory) in command or works_in.startswith(str(directory)):
            found.append(int(entry.name))
    return found


def _read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError(f"the demo ended without {pattern!r}:\n{''.join(lines)}")


@pytest.mark.timeout(90)
def test_the_check_passes_and_leaves_nothing(tmp_path: Path) -> None:
    started_s = time.monotonic()
    with _demo(tmp_path, "--check", "--ports", "auto", "--services", "200") as process:
        output, _ = process.communicate(timeout=SLOWER * 75)

    assert process.returncode == 0, output
    verdict = json.loads(output.splitlines()[-1])
    assert verdict["ok"] is True
    assert set(verdict["checks"].values()) == {True}
    assert verdict["vips_changed"] == 0
    assert verdict["dns"]["failed"] == 0
    assert verdict["propagation_ms"]["n"] >= 20
    assert verdict["failover_s"] <= SLOWER * 3.5
    assert verdict["http"]["url"].startswith("http://127.243.")
    assert time.monotonic() - started_s < SLOWER * 60
    assert list(tmp_path.iterdir()) == []
    assert _pids(tmp_path) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_asked_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with _demo(tmp_path, "--ports", "auto") as process:
        _read_until(process, "resolves in east")
        assert len(_pids(tmp_path)) >= 8

        process.send_signal(number)
        started_s = time.monotonic()
        output, _ = process.communicate(timeout=SLOWER * 10)

    assert time.monotonic() - started_s < SLOWER * 3.0
    assert process.returncode == 0, output
    assert "Everything is gone" in output
    assert list(tmp_path.iterdir()) == []
    assert _pids(tmp_path) == []


@pytest.mark.timeout(60)
def test_a_demo_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    with _demo(tmp_path, "--ports", "auto") as process:
        _read_until(process, "resolves in east")
        assert len(_pids(tmp_path)) >= 8

        process.kill()
        process.wait(timeout=SLOWER * 5)

        eventually(lambda: not _pids(tmp_path), 10)
        eventually(lambda: not list(tmp_path.iterdir()), 10)


@pytest.mark.timeout(60)
def test_an_envoy_goes_with_a_demo_that_is_killed_though_it_outlives_its_agent(
    tmp_path: Path,
) -> None:
    with _demo(tmp_path, "--ports", "auto") as process:
        _read_until(process, "ok      HTTP through an Envoy")
        [pid_file] = tmp_path.glob("*/web-agent/envoy.pid")
        pid, _ = json.loads(pid_file.read_text())
        assert pid in _pids(tmp_path)

        process.kill()
        process.wait(timeout=SLOWER * 5)

        eventually(lambda: not _pids(tmp_path), 10)
        eventually(lambda: not list(tmp_path.iterdir()), 10)


@pytest.mark.timeout(60)
def test_without_a_usable_envoy_one_line_says_so_and_the_rest_is_shown(tmp_path: Path) -> None:
    programs, files = tmp_path / "bin", tmp_path / "files"
    programs.mkdir()
    files.mkdir()
    envoy = programs / "envoy"
    envoy.symlink_to("/bin/true")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    with _demo(files, "--check", "--ports", "auto", PATH=path) as process:
        output, _ = process.communicate(timeout=SLOWER * 50)

    assert process.returncode == 0, output
    [line] = [line for line in output.splitlines() if " HTTP through an Envoy" in line]
    assert f"left out: {envoy} is no Envoy" in line
    verdict = json.loads(output.splitlines()[-1])
    assert verdict["ok"] is True
    assert verdict["checks"]["http_through_vip"] is None
    assert set(verdict["left_out"]) == {"http_through_vip"}


@pytest.mark.timeout(30)
def test_a_port_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", 16902))
            held.listen()
        except OSError:
            pass  # somebody else holds it: as good
        with _demo(tmp_path) as process:
            output, _ = process.communicate(timeout=SLOWER * 20)

    assert process.returncode == 2
    [line] = output.splitlines()
    assert re.fullmatch(r"error: port \d+ \(.+\) is in use: .*--ports auto.*", line)


@pytest.mark.timeout(30)
def test_without_a_redis_server_the_package_is_named(tmp_path: Path) -> None:
    ended = subprocess.run(
        [program("zonemesh"), "demo", "--check", "--ports", "auto"],
        capture_output=True,
        text=True,
        timeout=SLOWER * 20,
        check=False,
        env={**environment(), "ZONEMESH_REDIS_SERVER": str(tmp_path / "none")},
    )

    assert ended.returncode == 2
    assert "ZONEMESH_REDIS_SERVER" in ended.stderr
