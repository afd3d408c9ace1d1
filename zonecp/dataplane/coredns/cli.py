"""`zonedp coredns`: what to add to a CoreDNS that is there, and what its own one would run with."""

from __future__ import annotations

import ipaddress
import sys

import click

from zonecp.dataplane.config import Config, Dns
from zonecp.dataplane.coredns import stub
from zonecp.dataplane.coredns.parts import own_source, values
from zonecp.dataplane.coredns.process import BUILT_IN_SOURCE
from zonecp.dataplane.options import configured
from zonemesh.errors import ConfigError, InputError
from zonemesh.runtime.main import report


@click.group("coredns")
def coredns() -> None:
    """Work with CoreDNS."""


@coredns.command("corefile")
@configured
def corefile(config: Config) -> None:
    """Print the Corefile of the data plane's own template, or of the built-in one."""
    try:
        source = own_source(config.dns) or BUILT_IN_SOURCE
        click.echo(source.template.render(values(config.dns)), nl=False)
    except InputError as error:
        sys.exit(report(error))


@coredns.command("stub")
@click.option(
    "--for",
    "server",
    type=click.Choice(["coredns", "kube-dns"]),
    default="coredns",
    help="A Corefile's server block, or kube-dns's ConfigMap.",
)
@click.option("--hosts", is_flag=True, help="Read dns.hostsFile instead of asking the agent.")
@click.option("--agent", help="The agent's address as the server sees it; default: dns.addresses.")
@configured
def show_stub(config: Config, server: str, *, hosts: bool, agent: str | None) -> None:
    """Print what an existing CoreDNS or kube-dns needs to answer names of the mesh.

    To standard output only what is to be added; remarks go to standard error.
    """
    dns = config.dns
    if hosts:
        if dns.hosts_file is None or server != "coredns":
            fault = "--hosts: needs dns.hostsFile (--hosts-file), and a CoreDNS to read it"
            sys.exit(report(ConfigError([fault])))
        click.echo(stub.hosts_block(dns.domains, str(dns.hosts_file)), nl=False)
        return
    address = agent or _first_reachable(dns)
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        sys.exit(report(ConfigError([f"--agent: {address!r} is not an IP address"])))
    if parsed.is_unspecified:
        fault = "the agent listens on every address: name the one to be asked (--agent)"
        sys.exit(report(ConfigError([fault])))
    if parsed.is_loopback:
        click.echo(
            "note: the agent listens on loopback only, so this serves a DNS server of the same host"
            " (network namespace); for others set dns.addresses (--dns-address)",
            err=True,
        )
    where = f"[{address}]:{dns.port}" if parsed.version == 6 else f"{address}:{dns.port}"
    make = stub.server_block if server == "coredns" else stub.kube_dns
    click.echo(make(dns.domains, where), nl=False)


def _first_reachable(dns: Dns) -> str:
    """Of the agent's addresses the one that others reach best."""
    given = [ipaddress.ip_address(address) for address in dns.addresses]
    return str(min(given, key=lambda address: (address.is_unspecified, address.is_loopback)))
