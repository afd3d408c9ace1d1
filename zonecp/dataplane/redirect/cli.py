"""`zonedp redirect`: has the kernel send DNS and connections to VIPs to the agent and Envoy."""

from __future__ import annotations

import ipaddress
import json
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from zonecp.dataplane.config import Config, Dns
from zonecp.dataplane.options import configured
from zonecp.dataplane.redirect.kernel import TOOLS, Kernel
from zonecp.dataplane.redirect.rules import Mode, Plan
from zonecp.dataplane.token import Token
from zonecp.dataplane.upstreams import parse_resolv_conf
from zonemesh.cli.client import Client
from zonemesh.errors import ConfigError, MeshError
from zonemesh.runtime.main import report

ZONE_S: Final = 2.0
BODY_BYTES_MAX: Final = 1 << 20
AGENT_USER: Final = "zonedp"
RESOLVED: Final = ("127.0.0.53", "systemd-resolve")
"""systemd-resolved's address, and its user: what it asks outside must not come back to it."""

_TOOL = click.option("--tool", type=click.Choice(TOOLS), help="Default: nft, else iptables.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be done.")


@click.group("redirect")
def redirect() -> None:
    """Redirect DNS and connections to VIPs (Linux, root)."""


@redirect.command()
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.NAT.value,
    help="nat: DNS to the agent, VIPs to Envoy's port. anyip: VIPs are addresses of this host.",
)
@click.option("--user", help=f"The user of zonedp and Envoy, by name or id. Default: {AGENT_USER}.")
@click.option("--exclude-user", "others", multiple=True, help="Another who is not redirected.")
@click.option("--vip-cidr", "cidrs", multiple=True, help="Default: the mesh's, asked of the zone.")
@click.option("--envoy-port", type=click.IntRange(1, 65535), help="[envoy.outboundPort]")
@click.option("--no-dns", is_flag=True, help="Leave DNS as it is.")
@_TOOL
@_DRY_RUN
@configured
def install(config: Config, **arguments: Any) -> None:
    """Install the redirect, in place of one that is there."""

    def act() -> None:
        kernel = _kernel(arguments)
        kernel.check_rights()
        plan = _plan(config, arguments, kernel)
        for remark in kernel.install(plan):
            _note(remark)
        if not arguments["dry_run"]:
            click.echo(_summary(plan, kernel))

    _reported(act)


@redirect.command()
@_TOOL
@_DRY_RUN
def remove(**arguments: Any) -> None:
    """Remove what `install` made, and nothing else."""
    _reported(lambda: _kernel(arguments).remove())


@redirect.command()
@_TOOL
@click.option("--json", "as_json", is_flag=True)
def status(*, as_json: bool, **arguments: Any) -> None:
    """Show what is installed; exit code 1 unless it is whole."""

    def act() -> None:
        found = _kernel({**arguments, "dry_run": False}).status()
        click.echo(json.dumps(found, indent=1) if as_json else _shown(found))
        if found["state"] not in ("nat", "anyip"):
            sys.exit(1)

    _reported(act)


def _reported(act: Callable[[], None]) -> None:
    try:
        act()
    except MeshError as error:
        sys.exit(report(error))


def _kernel(arguments: dict[str, Any]) -> Kernel:
    return Kernel(arguments["tool"], dry_run=click.echo if arguments["dry_run"] else None)


def _plan(config: Config, arguments: dict[str, Any], kernel: Kernel) -> Plan:
    mode = Mode(arguments["mode"])
    families = kernel.families()
    nat = mode is Mode.NAT
    cidrs = _networks(arguments["cidrs"]) if arguments["cidrs"] else _mesh_cidrs(config)
    dns_port = config.dns.port if nat and not arguments["no_dns"] else None
    if config.envoy.enabled and (config.envoy.arrangement == "bound") == nat:
        fits = "redirect" if nat else "bound"
        _note(f"--mode {mode} needs Envoy's listeners otherwise: envoy.arrangement: {fits}")
    dns_families = _dns_families(config.dns) & families
    if dns_port is not None and 6 in families - dns_families:
        _note("DNS over IPv6 is left as it is: dns.addresses has no IPv6 address (add ::1)")
    return Plan(
        mode=mode,
        cidrs=cidrs,
        dns_port=dns_port,
        dns_families=dns_families,
        envoy_port=arguments["envoy_port"] or config.envoy.outbound_port,
        excluded=_excluded(arguments["user"], arguments["others"]) if nat else (),
        families=families,
    )


def _dns_families(dns: Dns) -> frozenset[int]:
    """REDIRECT leads to 127.0.0.1 or ::1: those of the two that are listened on."""
    given = {ipaddress.ip_address(address) for address in dns.addresses}
    return frozenset(
        address.version for address in given if address.is_loopback or address.is_unspecified
    )


def _excluded(user: str | None, others: Sequence[str]) -> tuple[int, ...]:
    names = [user or AGENT_USER, *others]
    if (resolved := _resolved_user()) is not None and resolved not in names:
        _note(f"{resolved} is excluded: resolv.conf names systemd-resolved")
        names.append(resolved)
    ids = sorted({_user_id(name, given=name != AGENT_USER or user is not None) for name in names})
    if 0 in ids:
        _note("user 0 is excluded: nothing that runs as root is redirected")
    return tuple(ids)


def _user_id(name: str, *, given: bool) -> int:
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        why = (
            f"--user: there is no user {name} here"
            if given
            else f"--user: name the user of zonedp and Envoy, not to be redirected (no {name} here)"
        )
        raise ConfigError([why]) from None


def _resolved_user() -> str | None:
    address, user = RESOLVED
    try:
        servers = parse_resolv_conf(Path("/etc/resolv.conf").read_text(errors="replace"))
        pwd.getpwnam(user)
    except (OSError, KeyError):
        return None
    return user if any(server.ip == address for server in servers) else None


def _networks(given: Sequence[str]) -> tuple[str, ...]:
    """Raises ConfigError: Not a network, or one with bits set in its host part."""
    faults, found = [], []
    for text in given:
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError as error:
            faults.append(f"--vip-cidr: {error}")
    if faults:
        raise ConfigError(faults)
    return tuple(dict.fromkeys(found))


def _mesh_cidrs(config: Config) -> tuple[str, ...]:
    """Those that the zone knows; without one, the defaults."""
    path = f"/meshes/{config.dataplane.mesh}/_bootstrap"
    headers = Token(config.dataplane_runtime).headers()
    for url in config.control_plane.urls:
        client = Client(url, ZONE_S, headers, BODY_BYTES_MAX)
        try:
            return _networks(client.get(path)["vipCidrs"])
        except (ValueError, KeyError, TypeError, MeshError):
            continue
        finally:
            client.close()
    ranges = config.dns.vip_ranges
    _note(f"no zone says the mesh's ranges: {', '.join(ranges)} (--vip-cidr for others)")
    return ranges


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _summary(plan: Plan, kernel: Kernel) -> str:
    ranges = ", ".join(cidr for family in sorted(plan.families) for cidr in plan.of(family))
    if plan.mode is Mode.ANYIP:
        return f"{ranges}: addresses of this host; DNS is as it was"
    dns = "DNS is as it was" if plan.dns_port is None else f"port 53 to {plan.dns_port}"
    users = ", ".join(map(str, plan.excluded))
    return f"{kernel.tool}: {dns}; {ranges} to {plan.envoy_port}; but not for user {users}"


def _shown(found: dict[str, Any]) -> str:
    lines = [f"state: {found['state']}"]
    if found["state"] == "incomplete":
        lines[0] += " (an install or remove was broken off: repeat it)"
    if found["tools"]:
        lines.append(f"rules by {', '.join(found['tools'])}:")
    lines += [f"  {family}  {rule}" for family, each in found["rules"].items() for rule in each]
    if found["routes"]:
        lines.append("routes:")
    lines += [f"  {route}" for route in found["routes"]]
    return "\n".join(lines)
