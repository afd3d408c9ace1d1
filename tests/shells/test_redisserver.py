"""Which redis-server is chosen, and that the one chosen runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.redis_server import RedisServer, running
from zonemesh.errors import ConfigError, UnavailableError
from zonemesh.runtime.redisserver import find_redis_server, start_redis_server, wait_ready


def _program(directory: Path) -> Path:
    program = directory / "redis-server"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def test_the_environment_names_the_program_before_path_does(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    named, on_path = _program(tmp_path / "a"), _program(tmp_path / "b")
    environ = {"PATH": str(on_path.parent)}

    assert find_redis_server(environ) == on_path
    assert find_redis_server(environ | {"ZONEMESH_REDIS_SERVER": str(named)}) == named


def test_a_named_program_that_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ZONEMESH_REDIS_SERVER"):
        find_redis_server({"ZONEMESH_REDIS_SERVER": str(tmp_path / "absent")})


def test_this_virtual_environment_is_not_part_of_path() -> None:
    scripts = Path(sys.executable).parent

    try:
        found = find_redis_server({"PATH": str(scripts)})
    except ConfigError:
        return
    assert found.parent != scripts


def test_the_session_server_keeps_what_it_is_told(
    redis_url: str, redis_server: RedisServer
) -> None:
    assert redis_url == redis_server.url
    assert redis_server.command("DBSIZE") == b":0\r\n"
    for key, value in {"maxmemory-policy": "noeviction", "appendonly": "yes"}.items():
        assert f"\r\n{value}\r\n" in redis_server.command(f"CONFIG GET {key}").decode()


def test_a_restarted_server_has_its_data_again(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.command("SET kept 1")
        server.process.terminate()
        server.process.wait(timeout=10)
    with running(tmp_path) as server:
        assert server.command("GET kept") == b"$1\r\n1\r\n"


def test_waiting_for_a_server_whose_port_is_taken_names_the_cause(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    port = redis_server.port
    process = start_redis_server(
        find_redis_server(os.environ), directory=tmp_path, port=port, log=log
    )

    with pytest.raises(UnavailableError, match="in use"):
        wait_ready(process, directory=tmp_path, port=port, log=log, timeout_s=10)


def test_waiting_ends_at_its_deadline(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as silent:
        with pytest.raises(UnavailableError, match="no PONG"):
            wait_ready(
                silent, directory=tmp_path, port=free_port(), log=tmp_path / "log", timeout_s=0.1
            )
        silent.kill()
