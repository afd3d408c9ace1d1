"""`zonedp resolver` on a host that is a temporary directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from zonecp.dataplane import hostresolver
from zonecp.dataplane.cli import cli
from zonecp.dataplane.hostresolver import Host, Step
from zonemesh.errors import ConfigError

BEFORE = "search lan\nnameserver 192.0.2.1\noptions ndots:2\n"


@pytest.fixture(params=["file", "link"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A host with systemd, whose resolv.conf is a file or a link to one."""
    (tmp_path / "etc/systemd").mkdir(parents=True)
    if request.param == "file":
        (tmp_path / "etc/resolv.conf").write_text(BEFORE)
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/stub.conf").write_text(BEFORE)
        (tmp_path / "etc/resolv.conf").symlink_to("../run/stub.conf")
    return tmp_path


def zonedp(root: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["resolver", *words, "--root", str(root)])
    return result.exit_code, result.output


def tree(root: Path) -> dict[str, object]:
    """Everything about a host that `remove` must bring back; times of directories change."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        what = None if path.is_dir() else (about.st_ino, about.st_mtime_ns)
        content = path.readlink() if path.is_symlink() else path.is_file() and path.read_text()
        found[str(path.relative_to(root))] = (about.st_mode, what, content)
    return found


INSTALLS = {
    "resolved": ("install", "--resolved", "--dns-address", "127.0.0.1,::1"),
    "resolv.conf": ("install", "--resolv-conf", "--dns-port", "53"),
}


@pytest.mark.parametrize("how", INSTALLS)
def test_what_was_there_before_is_back_afterwards(root: Path, how: str) -> None:
    before = tree(root)

    installed = zonedp(root, *INSTALLS[how])
    status = zonedp(root, "status")
    removed = zonedp(root, "remove")

    assert (installed[0], status, removed[0]) == (0, (0, f"installed: {how}\n"), 0)
    assert tree(root) == before
    assert zonedp(root, "status") == (1, "not installed\n")


@pytest.mark.parametrize("how", INSTALLS)
def test_a_second_time_does_nothing(root: Path, how: str) -> None:
    zonedp(root, *INSTALLS[how])
    installed = tree(root)

    assert "nothing to do" in zonedp(root, *INSTALLS[how])[1]
    assert tree(root) == installed
    zonedp(root, "remove")
    assert "nothing to do" in zonedp(root, "remove")[1]


@pytest.mark.parametrize("how", INSTALLS)
def test_a_dry_run_prints_and_changes_nothing(root: Path, how: str) -> None:
    before = tree(root)

    code, output = zonedp(root, *INSTALLS[how], "--dry-run")

    assert code == 0
    assert "would write" in output
    assert "127.0.0.1" in output
    assert tree(root) == before


@pytest.mark.parametrize("how", INSTALLS)
@pytest.mark.parametrize("ends_at", range(4))
def test_an_installation_that_is_broken_off_is_undone_and_can_be_done_again(
    root: Path, how: str, ends_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = tree(root), 0

    def replace(source: Path, target: Path, real: Callable[..., object] = os.replace) -> None:
        nonlocal calls
        calls += 1
        if calls > ends_at:
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        zonedp(root, *INSTALLS[how])

    again, _ = zonedp(root, *INSTALLS[how])
    zonedp(root, "remove")
    left = [path for path in tree(root) if path not in before and "zonedp" in path]
    assert again == 0
    assert {path: about for path, about in tree(root).items() if path in before} == before
    assert not left


def test_resolved_is_told_the_port_and_only_of_the_meshs_domains(root: Path) -> None:
    zonedp(root, *INSTALLS["resolved"])

    lines = (root / hostresolver.DROP_IN).read_text().splitlines()
    assert "DNS=127.0.0.1:15053 [::1]:15053" in lines
    assert "Domains=~mesh.local ~mesh" in lines


def test_resolv_conf_keeps_what_does_not_say_whom_to_ask(root: Path) -> None:
    zonedp(root, *INSTALLS["resolv.conf"])

    text = (root / "etc/resolv.conf").read_text()
    assert text.splitlines()[1:] == ["nameserver 127.0.0.1", "search lan", "options ndots:2"]


def test_a_resolv_conf_that_somebody_wrote_since_stays(root: Path) -> None:
    zonedp(root, *INSTALLS["resolv.conf"])
    (root / "etc/resolv.conf").write_text("nameserver 192.0.2.9\n")

    code, _ = zonedp(root, "remove")

    assert code == 0
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.9\n"
    assert not os.path.lexists(root / "etc/resolv.conf.before-zonedp")


@pytest.mark.parametrize(
    "spoil,words,fault",
    [
        (lambda _: None, ("install", "--resolv-conf"), "resolv.conf cannot name a port"),
        (
            lambda root: (root / "etc/resolv.conf").unlink(),
            INSTALLS["resolv.conf"],
            "cannot be read, so it cannot be replaced",
        ),
        (
            lambda root: (root / "etc/systemd").rmdir(),
            INSTALLS["resolved"],
            "there is no systemd-resolved here",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    root: Path, spoil: Callable[[Path], None], words: tuple[str, ...], fault: str
) -> None:
    spoil(root)
    before = tree(root)

    code, output = zonedp(root, *words)

    assert code == 2
    assert fault in output
    assert tree(root) == before


def test_a_lost_backup_is_said(root: Path) -> None:
    zonedp(root, *INSTALLS["resolv.conf"])
    (root / "etc/resolv.conf.before-zonedp").unlink()

    code, output = zonedp(root, "remove")

    assert code == 2
    assert "write" in output
    assert "by hand" in output


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"write .*/file/x: File exists"):
        list(hostresolver.apply([Step(tmp_path / "file" / "x", "text")]))
    assert Host(root=tmp_path, addresses=(), port=0, domains=()).installed() == []
