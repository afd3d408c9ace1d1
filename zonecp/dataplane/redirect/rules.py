"""What the kernel is told so that applications reach the agent and Envoy: text for its tools. Pure.

Everything made here can be told from what others made: nft tables and iptables chains by their
name, routes by their protocol number. So what is installed is read from the kernel, and no file has
to remember it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

TABLE: Final = "zonedp"
CHAIN: Final = "ZONEDP_OUTPUT"
PROTOCOL: Final = 153
"""Of routes (rtm_protocol): none that iproute2 has a name for."""

PRIORITY: Final = -110
"""Before dstnat (-100), where Docker's and others' rules are."""

FAMILIES: Final = (4, 6)
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
_NFT: Final = {4: "ip", 6: "ip6"}


class Mode(StrEnum):
    """How connections to a VIP get to Envoy."""

    NAT = "nat"
    """To its port, by NAT; DNS too."""

    ANYIP = "anyip"
    """To its listeners on the VIPs themselves, which are addresses of this host; no DNS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be installed."""

    mode: Mode
    cidrs: tuple[str, ...]
    """Of VIPs, both families."""

    dns_port: int | None
    """The agent's or CoreDNS's; None: DNS is left as it is."""

    dns_families: frozenset[int]
    """4, 6: those on whose loopback address DNS is answered."""

    envoy_port: int
    excluded: tuple[int, ...]
    """User ids that reach everything as it is: the agent's and Envoy's, or DNS asks itself."""

    families: frozenset[int] = frozenset(FAMILIES)

    def of(self, family: int) -> tuple[str, ...]:
        """The CIDRs of one family."""
        return tuple(cidr for cidr in self.cidrs if ipaddress.ip_network(cidr).version == family)


class Route(NamedTuple):
    """A route of ours."""

    family: int
    local: bool
    """As if its addresses were this host's."""

    cidr: str

    @property
    def words(self) -> tuple[str, ...]:
        """As `ip route` takes it. Without a source the kernel picks 0.0.0.0, and TCP hangs."""
        kind = ("local",) if self.local else ()
        source = () if self.local else ("src", _LOOPBACK[self.family])
        return (*kind, self.cidr, "dev", "lo", *source, "proto", str(PROTOCOL))


def routes(plan: Plan) -> frozenset[Route]:
    """With NAT, the way to VIPs also exists where there is no default route."""
    return frozenset(
        Route(family, plan.mode is Mode.ANYIP, cidr)
        for family in plan.families
        for cidr in plan.of(family)
    )


def parse_routes(family: int, listed: Iterable[Mapping[str, Any]]) -> frozenset[Route]:
    """Read `ip -j route show table all proto 153`."""
    return frozenset(
        Route(family, entry.get("type") == "local", str(ipaddress.ip_network(entry["dst"])))
        for entry in listed
    )


def nft(plan: Plan) -> str:
    """A transaction that puts our tables in place of those that may be there."""
    if plan.mode is Mode.ANYIP:
        return nft_remove()
    tables = [_nft_table(plan, family) for family in FAMILIES if family in plan.families]
    return nft_remove() + "".join(tables)


def nft_remove() -> str:
    """A transaction that removes our tables whether or not they are there."""
    return "".join(
        f"add table {_NFT[family]} {TABLE}\ndelete table {_NFT[family]} {TABLE}\n"
        for family in FAMILIES
    )


def _nft_table(plan: Plan, family: int) -> str:
    rules = []
    if plan.excluded:
        rules.append(f"meta skuid {{ {', '.join(map(str, plan.excluded))} }} counter return")
    if plan.dns_port is not None and family in plan.dns_families:
        rules += [
            f"{protocol} dport 53 counter redirect to :{plan.dns_port}"
            for protocol in ("udp", "tcp")
        ]
    if cidrs := plan.of(family):
        rules.append(
            f"{_NFT[family]} daddr {{ {', '.join(cidrs)} }} meta l4proto tcp"
            f" counter redirect to :{plan.envoy_port}"
        )
    lines = "".join(f"        {rule}\n" for rule in rules)
    return (
        f"table {_NFT[family]} {TABLE} {{\n    chain output {{\n"
        f"        type nat hook output priority {PRIORITY}; policy accept;\n{lines}    }}\n}}\n"
    )


def iptables(plan: Plan, family: int, saved: str) -> str:
    """Input of `iptables-restore --noflush`, one transaction of the nat table.

    Args:
        plan: For NAT.
        family: 4 or 6.
        saved: What `iptables-save -t nat` says now.
    """
    rules = [f"-m owner --uid-owner {user} -j RETURN" for user in plan.excluded]
    if plan.dns_port is not None and family in plan.dns_families:
        rules += [
            f"-p {protocol} -m {protocol} --dport 53 -j REDIRECT --to-ports {plan.dns_port}"
            for protocol in ("udp", "tcp")
        ]
    rules += [
        f"-d {cidr} -p tcp -j REDIRECT --to-ports {plan.envoy_port}" for cidr in plan.of(family)
    ]
    return _restore(
        [
            f":{CHAIN} - [0:0]",  # made, or emptied
            *[f"-A {CHAIN} {rule}" for rule in rules],
            *[f"-D OUTPUT -j {CHAIN}"] * _jumps(saved),
            f"-I OUTPUT 1 -j {CHAIN}",
        ]
    )


def iptables_remove(saved: str) -> str | None:
    """Input of `iptables-restore --noflush`; None if there is nothing of ours."""
    if f":{CHAIN} " not in saved:
        return None
    jumps = [f"-D OUTPUT -j {CHAIN}"] * _jumps(saved)
    return _restore([f":{CHAIN} - [0:0]", *jumps, f"-X {CHAIN}"])


def iptables_rules(saved: str) -> tuple[str, ...]:
    """Our rules in what `iptables-save -c -t nat` says, with their counters."""
    return tuple(line for line in saved.splitlines() if CHAIN in line and "-A " in line)


def nft_rules(listed: str) -> tuple[str, ...]:
    """Our rules in what `nft list table` says, with their counters."""
    lines = [line.strip() for line in listed.splitlines()]
    return tuple(line for line in lines if " counter " in f" {line} ")


def _jumps(saved: str) -> int:
    return saved.splitlines().count(f"-A OUTPUT -j {CHAIN}")


def _restore(lines: Iterable[str]) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])


class Found(NamedTuple):
    """What of ours is in the kernel, by family."""

    rules: Mapping[int, tuple[str, ...]]
    jumps: bool
    """Every chain that was found is reached."""

    routes: frozenset[Route]


def state(found: Found) -> str:
    """In a word: absent, nat, anyip, or incomplete, which `install` or `remove` ends."""
    families = {family for family, rules in found.rules.items() if rules}
    local = {route.family for route in found.routes if route.local}
    plain = {route.family for route in found.routes if not route.local}
    if not families and not found.routes:
        return "absent"
    if local and not plain and not families:
        return "anyip"
    if families and families >= plain and not local and found.jumps:
        return "nat"
    return "incomplete"
