"""Has the kernel do what a plan says, by nft or iptables and by ip; each step can be repeated."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from zonecp.dataplane.redirect import rules
from zonecp.dataplane.redirect.rules import FAMILIES, TABLE, Found, Mode, Plan, Route
from zonemesh.errors import ConfigError, UnavailableError

TOOL_S: Final = 30.0
"""For one call of a tool; iptables waits for others who hold its lock."""

LOCK: Final = Path("/run/zonedp-redirect.lock")
_CAP_NET_ADMIN: Final = 12
_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_UNPRIVILEGED: Final = "; VIPs in 127.241.0.0/16 need no redirect and no rights"

Tool = Literal["nft", "iptables", "iptables-nft", "iptables-legacy"]
TOOLS: Final[tuple[Tool, ...]] = ("nft", "iptables", "iptables-nft", "iptables-legacy")
Shown = Callable[[str], None]


class Kernel:
    """The rules and routes of this network namespace."""

    def __init__(self, tool: Tool | None, *, dry_run: Shown | None = None) -> None:
        """Choose the tool.

        Args:
            tool: None for nft if it is here, else iptables.
            dry_run: Told what would be done instead of doing it.

        Raises:
            ConfigError: A tool is missing.
        """
        self.tool: Tool = tool or ("nft" if _found("nft") else "iptables")
        self._dry_run = dry_run
        if not _found("ip"):
            raise ConfigError(["ip is not on PATH: install iproute2"])
        if not _found(self.tool):
            missing = "neither nft nor iptables is" if tool is None else f"{tool} is not"
            raise ConfigError([f"{missing} on PATH: install nftables or iptables, or say --tool"])

    def check_rights(self) -> None:
        """Raises ConfigError: This process may not change the network."""
        if self._dry_run is None and not _may_administer():
            raise ConfigError([f"not permitted: run as root, or with CAP_NET_ADMIN{_UNPRIVILEGED}"])

    def families(self) -> frozenset[int]:
        """Those that this host has."""
        inet6 = Path("/proc/net/if_inet6")
        try:
            return frozenset(FAMILIES if inet6.read_text().strip() else (4,))
        except OSError:
            return frozenset((4,))

    def install(self, plan: Plan) -> list[str]:
        """Make the kernel hold this plan and nothing else of ours.

        Returns:
            Remarks.

        Raises:
            ConfigError: No rights.
            UnavailableError: A tool refused; to be called again, or `remove`.
        """
        self.check_rights()
        with _alone(self._dry_run):
            remarks = self._set_routes(rules.routes(plan))
            if plan.mode is Mode.NAT:
                self._install_rules(plan)
            for tool in self._others(plan):
                self._remove_rules(tool)
        return remarks

    def remove(self) -> None:
        """Remove whatever is ours, of any tool; raises as `install`."""
        self.check_rights()
        with _alone(self._dry_run):
            for tool in self._present():
                self._remove_rules(tool)
            self._set_routes(frozenset())

    def status(self) -> dict[str, Any]:
        """What is installed: `state` (see `rules.state`), `rules` and `routes`; raises as above."""
        if not _may_administer():
            raise ConfigError([f"not permitted to look: run as root{_UNPRIVILEGED}"])
        listed: dict[str, dict[int, tuple[str, ...]]] = {}
        jumps = True
        for tool in self._present():
            found = {family: self._rules(tool, family) for family in FAMILIES}
            if tool != "nft":
                jumps &= all(
                    any("-A OUTPUT" in rule for rule in each) for each in found.values() if each
                )
            if any(found.values()):
                listed[tool] = found
        routes = frozenset().union(*[self._routes(family) for family in FAMILIES])
        merged = {
            family: tuple(rule for each in listed.values() for rule in each[family])
            for family in FAMILIES
        }
        return {
            "state": rules.state(Found(merged, jumps, routes)),
            "tools": sorted(listed),
            "rules": {f"ipv{family}": list(merged[family]) for family in FAMILIES},
            "routes": [" ".join(route.words) for route in sorted(routes)],
        }

    def _others(self, plan: Plan) -> list[Tool]:
        """Whose rules must go: another tool's, and with AnyIP everybody's."""
        return [tool for tool in self._present() if tool != self.tool or plan.mode is Mode.ANYIP]

    def _present(self) -> list[Tool]:
        """One for each place where rules may be."""
        # Not iptables-legacy unasked: to look at it loads modules into the kernel.
        usual: tuple[Tool, ...] = (self.tool, "nft", "iptables")
        places = {_place(tool): tool for tool in reversed(usual) if _found(tool)}
        return [tool for tool in TOOLS if tool in places.values()]

    def _install_rules(self, plan: Plan) -> None:
        if self.tool == "nft":
            self._change(["nft", "-f", "-"], rules.nft(plan))
            return
        for family in sorted(plan.families):
            text = rules.iptables(plan, family, self._saved(self.tool, family))
            self._change(_restore(self.tool, family), text)

    def _remove_rules(self, tool: Tool) -> None:
        if tool == "nft":
            if any(self._rules(tool, family) for family in FAMILIES) or self._dry_run is None:
                self._change(["nft", "-f", "-"], rules.nft_remove())
            return
        for family in FAMILIES:
            text = rules.iptables_remove(self._saved(tool, family))
            if text is not None:
                self._change(_restore(tool, family), text)

    def _rules(self, tool: Tool, family: int) -> tuple[str, ...]:
        if tool == "nft":
            listed = _run_if_there(["nft", "list", "table", "ip6" if family == 6 else "ip", TABLE])
            return rules.nft_rules(listed)
        saved = _run_if_there([_named(tool, family, "save"), "-c", "-t", "nat"])
        return rules.iptables_rules(saved)

    def _saved(self, tool: Tool, family: int) -> str:
        return _run_if_there([_named(tool, family, "save"), "-t", "nat"])

    def _routes(self, family: int) -> frozenset[Route]:
        show = ["ip", "-j", f"-{family}", "route", "show", "table", "all"]
        listed = _run_if_there([*show, "proto", str(rules.PROTOCOL)])
        return rules.parse_routes(family, json.loads(listed or "[]"))

    def _set_routes(self, wanted: frozenset[Route]) -> list[str]:
        remarks = []
        there = frozenset().union(*[self._routes(family) for family in FAMILIES])
        for route in sorted(there - wanted):
            self._change(["ip", f"-{route.family}", "route", "del", *route.words])
        for route in sorted(wanted - there):
            try:
                self._change(["ip", f"-{route.family}", "route", "add", *route.words])
            except UnavailableError as error:
                if "File exists" not in str(error):
                    raise
                remarks.append(f"{route.cidr}: somebody else's route is there and was left alone")
        return remarks

    def _change(self, command: Sequence[str], text: str | None = None) -> None:
        if self._dry_run is None:
            _run(command, text)
        elif text is None:
            self._dry_run(" ".join(command))
        else:
            self._dry_run(f"{' '.join(command)} <<END\n{text}END")


def _named(tool: Tool, family: int, what: str) -> str:
    """`iptables-legacy` and `save`: `ip6tables-legacy-save`."""
    return f"{tool if family == 4 else tool.replace('iptables', 'ip6tables')}-{what}"


def _restore(tool: Tool, family: int) -> list[str]:
    return [_named(tool, family, "restore"), "--noflush", "--wait", "5"]


def _place(tool: Tool) -> str:
    """Where a tool's rules are: `iptables` is a link to one of its two kinds."""
    if tool == "nft":
        return tool
    program = Path(shutil.which(tool, path=_PATH) or tool).resolve()
    return "iptables-nft" if "nft" in program.name else "iptables-legacy"


def _found(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None


def _run(command: Sequence[str], text: str | None = None) -> str:
    """Run a tool.

    Raises:
        UnavailableError: It failed, in its own words.
    """
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        raise ConfigError([f"{command[0]} is not on PATH"])
    try:
        done = subprocess.run(  # noqa: S603 -- of fixed names; the rest is numbers and networks
            [program, *command[1:]],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=TOOL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{command[0]} did not end within {TOOL_S:g} s") from None
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)}: {_reason(done.stderr)}")
    return done.stdout


def _run_if_there(command: Sequence[str]) -> str:
    """What a tool lists; nothing if it cannot, as where the table or the family is not there."""
    if not _found(command[0]):
        return ""
    try:
        return _run(command)
    except UnavailableError:
        return ""


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[0] if lines else "it says nothing"


def _may_administer() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return os.geteuid() == 0
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


@contextmanager
def _alone(dry_run: Shown | None) -> Iterator[None]:
    """One at a time: counting what is there and changing it are two steps for iptables."""
    if dry_run is not None:
        yield
        return
    try:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a root directory that is read-only: a container of one's own
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
