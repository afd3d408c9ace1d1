"""Ports of hosts as one VirtualOutbound wants them, and the order among several VirtualOutbounds.

The closer selector comes first, then the younger policy, as in Kuma, then the lesser key and,
within one policy whose templates tell two services not apart, the lesser values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zonemesh import holders
from zonemesh.holders import Holders
from zonemesh.virtualoutbound import Rendered, Specificity, VirtualOutbound


class Wanted(NamedTuple):
    """What is wanted of a host: a `Rendered` without it."""

    port: int
    values: str
    specificity: Specificity


class _Sole(NamedTuple):
    """The only claim to a host."""

    wanted: Wanted
    dataplanes: Holders


class HostClaims:
    """The hosts that one VirtualOutbound renders, and the Dataplanes that it renders them for."""

    def __init__(self, policy: VirtualOutbound) -> None:
        self.policy = policy
        # Nearly every host has one claim. One that tells no services apart has thousands.
        self._of: dict[str, _Sole | dict[Wanted, Holders]] = {}

    def __contains__(self, host: str) -> bool:
        return host in self._of

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def on(self, host: str) -> Iterator[tuple[Wanted, Holders]]:
        found = self._of.get(host)
        if isinstance(found, _Sole):
            yield found
        elif found is not None:
            yield from found.items()

    def add(self, rendered: Rendered, dataplane: str) -> None:
        host, wanted = rendered.host, Wanted(*rendered[1:])
        there = self._of.get(host)
        if there is None:
            self._of[host] = _Sole(wanted, holders.added(None, dataplane))
        elif isinstance(there, dict):
            there[wanted] = holders.added(there.get(wanted), dataplane)
        elif there.wanted == wanted:
            self._of[host] = _Sole(wanted, holders.added(there.dataplanes, dataplane))
        else:
            self._of[host] = {there.wanted: there.dataplanes, wanted: dataplane}

    def remove(self, rendered: Rendered, dataplane: str) -> None:
        host, wanted = rendered.host, Wanted(*rendered[1:])
        there = self._of.get(host)
        if there is None:
            return
        claims = there if isinstance(there, dict) else {there.wanted: there.dataplanes}
        left = holders.removed(claims.pop(wanted, None), dataplane)
        if left is not None:
            claims[wanted] = left
        if len(claims) > 1:
            self._of[host] = claims
        elif claims:
            self._of[host] = _Sole(*claims.popitem())
        else:
            del self._of[host]


class Claim(NamedTuple):
    """A port of a host, as one VirtualOutbound wants it for equal values."""

    policy: VirtualOutbound
    port: int
    values: str
    dataplanes: frozenset[str]


def ranked(rules: Iterable[HostClaims], host: str) -> dict[int, list[Claim]]:
    """Who wants each port of a host; the first in order has it."""
    found: dict[int, list[tuple[VirtualOutbound, Wanted, Holders]]] = {}
    for rule in rules:
        for wanted, dataplanes in rule.on(host):
            found.setdefault(wanted.port, []).append((rule.policy, wanted, dataplanes))
    return {port: _merged(sorted(claims, key=_rank)) for port, claims in found.items()}


def _rank(claim: tuple[VirtualOutbound, Wanted, Holders]) -> tuple[int, int, int, str, str]:
    policy, wanted, _ = claim
    tags, exact = wanted.specificity
    return -tags, -exact, -policy.created_ms, policy.key, wanted.values


def _merged(claims: Iterable[tuple[VirtualOutbound, Wanted, Holders]]) -> list[Claim]:
    """One claim for a policy and values, at the place of its closest selector."""
    found: dict[tuple[str, str], Claim] = {}
    for policy, wanted, dataplanes in claims:
        at = policy.key, wanted.values
        there = found.get(at)
        keys = frozenset(holders.members(dataplanes))
        if there is None:
            found[at] = Claim(policy, wanted.port, wanted.values, keys)
        else:
            found[at] = there._replace(dataplanes=there.dataplanes | keys)
    return list(found.values())
