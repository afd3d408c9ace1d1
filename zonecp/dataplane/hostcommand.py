"""`zonedp resolver`: has this host's programs ask the agent, and undoes that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zonecp.dataplane import hostresolver
from zonecp.dataplane.hostresolver import Host, Step
from zonemesh.errors import ConfigError
from zonemesh.runtime.main import report

Command = TypeVar("Command", bound=Callable[..., Any])

RELOAD = "systemctl restart systemd-resolved"


def _host(command: Command) -> Command:
    options = (
        click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True),
        click.option("--dry-run", is_flag=True, help="Print what would be done."),
    )
    for option in options:
        command = option(command)
    return command


@click.group()
def resolver() -> None:
    """Point this host's programs at the agent, and back."""


@resolver.command()
@click.option("--resolved", "how", flag_value="resolved", help="Names of the mesh alone, by a "
              "drop-in of systemd-resolved (246 or newer).")  # fmt: skip
@click.option("--resolv-conf", "how", flag_value="resolv.conf",
              help="All names, by resolv.conf; the agent must be on port 53.")  # fmt: skip
@click.option("--dns-address", default="127.0.0.1", show_default=True, help="Of the agent.")
@click.option("--dns-port", default=15053, show_default=True, help="Of the agent.")
@click.option("--domain", "domains", multiple=True, default=("mesh.local", "mesh"),
              show_default=True, help="A domain of the mesh; repeatable.")  # fmt: skip
@_host
def install(
    how: str | None, dns_address: str, dns_port: int, domains: tuple[str, ...],
    root: Path, *, dry_run: bool,
) -> None:  # fmt: skip
    """Point this host at the agent; again, it changes what has changed."""
    if how is None:
        raise click.UsageError("one of --resolved and --resolv-conf")
    addresses = tuple(each.strip() for each in dns_address.split(","))
    host = Host(root=root, addresses=addresses, port=dns_port, domains=domains)
    plan = host.install_resolved if how == "resolved" else host.install_resolv_conf
    _do(plan, dry_run=dry_run)
    if how == "resolved":
        click.echo(f"for it to take effect: {RELOAD}")


@resolver.command()
@_host
def remove(root: Path, *, dry_run: bool) -> None:
    """Undo `install`, and what is left of one that was broken off."""
    host = Host(root=root, addresses=(), port=0, domains=())
    resolved = "resolved" in host.installed()
    _do(host.remove, dry_run=dry_run)
    if resolved:
        click.echo(f"for it to take effect: {RELOAD}")


@resolver.command()
@click.option("--root", type=click.Path(path_type=Path), default="/", hidden=True)
def status(root: Path) -> None:
    """Say what is installed; exit code 1 if nothing is."""
    found = Host(root=root, addresses=(), port=0, domains=()).installed()
    click.echo(f"installed: {', '.join(found)}" if found else "not installed")
    sys.exit(0 if found else 1)


def _do(plan: Callable[[], list[Step]], *, dry_run: bool) -> None:
    try:
        steps = plan()
        if not steps:
            click.echo("nothing to do")
        for step in steps if dry_run else hostresolver.apply(steps):
            click.echo(f"would {step}" if dry_run else f"done: {step}")
            if dry_run and isinstance(step.content, str):
                click.echo("".join(f"    {line}\n" for line in step.content.splitlines()), nl=False)
    except ConfigError as error:
        sys.exit(report(error))
