"""Which Envoy is run, and what is said of one that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zonecp.dataplane.envoy.binary import (
    EnvoyMissingError,
    find_envoy,
    parse_version,
    version_of,
)
from zonecp.dataplane.envoy.config import SOCKET_BYTES_MAX, Envoy
from zonecp.dataplane.envoy.process import explain_end
from zonemesh.errors import ConfigError


def program(path: Path, text: str = "#!/bin/sh\necho hello\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_configured_program_is_the_one(tmp_path: Path) -> None:
    wanted = program(tmp_path / "my-envoy")

    assert find_envoy(wanted, {}) == wanted
    with pytest.raises(EnvoyMissingError, match=r"binaryPath: .*other is not an executable file"):
        find_envoy(tmp_path / "other", os.environ)


def test_one_on_the_path_comes_before_the_packages(tmp_path: Path) -> None:
    installed = program(tmp_path / "envoy", "\x7fELF")

    assert find_envoy(None, {"PATH": str(tmp_path)}) == installed


def test_a_script_around_the_package_is_not_taken_for_it(tmp_path: Path) -> None:
    program(tmp_path / "envoy", "#!/usr/bin/python3\n")

    found = find_envoy(None, {"PATH": str(tmp_path)})

    assert found.parent.name == "_bin" or found.parent == tmp_path


async def test_what_is_no_envoy_is_told_by_its_version(tmp_path: Path) -> None:
    with pytest.raises(EnvoyMissingError, match=r"is no Envoy .*hello"):
        await version_of(program(tmp_path / "envoy"))


def test_an_old_one_is_refused_and_a_new_one_not() -> None:
    def said(version: str) -> str:
        return f"envoy  version: abc/{version}/Clean/RELEASE/BoringSSL"

    assert parse_version(Path("envoy"), said("1.40.0")) == "1.40.0"
    assert parse_version(Path("envoy"), said("1.41.0-dev")) == "1.41.0-dev"
    with pytest.raises(EnvoyMissingError, match=r"is Envoy 1\.20\.1, older than 1\.30"):
        parse_version(Path("envoy"), said("1.20.1"))


IN_USE = (
    "port 9901 on 127.0.0.1 is in use: end what listens there (another agent's Envoy?), or"
    " choose another with dataplane.adminPort (--admin-port)"
)


@pytest.mark.parametrize(
    "code, tail, expected",
    [
        (
            1,
            "[c][critical][main] [s.cc:4] cannot bind '127.0.0.1:9901': Address already in use\n",
            IN_USE,
        ),
        (
            1,
            "[a][info] hello\n[b][critical][main] [server.cc:1] no such field\n",
            "exit code 1, no such field (log: /x/envoy.log)",
        ),
        (-9, "", "SIGKILL, it says nothing (log: /x/envoy.log)"),
        (None, "", "it says nothing (log: /x/envoy.log)"),
    ],
)
def test_one_line_says_why_it_ended(code: int | None, tail: str, expected: str) -> None:
    assert explain_end(code, tail, Path("/x/envoy.log")) == expected


def test_a_socket_that_the_kernel_would_refuse_is_refused_with_its_remedy(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * SOCKET_BYTES_MAX)

    with pytest.raises(ConfigError, match=r"longer than 107 octets.* e\.g\. /run/zonedp"):
        Envoy().socket_in(deep)
    assert Envoy(socket=Path("/run/x.sock")).socket_in(deep) == Path("/run/x.sock")


def test_an_agent_without_envoy_loads_none_of_what_it_needs() -> None:
    """About 6 MB, and packages that may not be installed."""
    code = (
        "import sys; import zonecp.dataplane.app, zonecp.dataplane.cli;"
        "print(*{'google.protobuf', 'grpclib', 'envoy'} & sys.modules.keys())"
    )

    assert subprocess.check_output([sys.executable, "-c", code]).split() == []
