"""Addresses of legacy names: one range for all zones, chosen by global, probed instead of listed.

A legacy name has one address for all zones, so that its key has no zone and nothing is leased. The
usual range, 240.0.0.0/4 without the other pools, has some 218 million addresses: what is known is
only who holds which (`ipam.Ledger`), and a free one is found by looking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import netaddr

from zonemesh.errors import InputError, PoolExhaustedError
from zonemesh.ipam import Binding, Choosing, Ledger, stable_hash, vip_kind
from zonemesh.model import Change

LEGACY = "Legacy"
"""The pool's name. Its bindings' keys: `<mesh>//service/<service>` and `<mesh>//host/<host>`."""
LEGACY_VIP = vip_kind(LEGACY)
LEGACY_CIDR = "240.0.0.0/4"
_NO_ZONE = ""
_BROADCAST = "255.255.255.255/32"

Range = tuple[int, int]
"""First address and how many."""


def ranges_without(cidrs: Iterable[str], others: Iterable[str]) -> tuple[Range, ...]:
    """What is left of some CIDRs without others and 255.255.255.255, in ascending order.

    Raises:
        InputError: Not IPv4 CIDRs.
    """
    left = netaddr.IPSet(map(_network, cidrs)) - netaddr.IPSet(map(_network, others))
    left -= netaddr.IPSet([_BROADCAST])
    return tuple((each.first, each.size) for each in left.iter_ipranges())


def check_legacy_pool(cidrs: Sequence[str], others: Iterable[str]) -> list[str]:
    """Why these CIDRs cannot be the legacy names' pool. Empty if they can."""
    faults = [fault for cidr in cidrs if (fault := _fault(cidr)) is not None]
    readable = [cidr for cidr in others if _fault(cidr) is None]  # (the others' faults are theirs)
    if not faults and not ranges_without(cidrs, readable):
        faults.append(f"{', '.join(cidrs) or 'no CIDR'}: nothing is left without the other pools")
    return [f"dnsServer.CIDR: {fault}" for fault in faults]


def _fault(cidr: str) -> str | None:
    try:
        _network(cidr)
    except InputError as error:
        return str(error)
    return None


def _network(cidr: str) -> netaddr.IPNetwork:
    try:
        network = netaddr.IPNetwork(cidr)
    except (netaddr.AddrFormatError, ValueError) as error:
        raise InputError(f"{cidr!r} is not a CIDR") from error
    if network.version != 4:
        raise InputError(f"{cidr} must be IPv4; IPv6 is derived from it")
    return network


class LegacyAllocation(Choosing):
    """Out of ranges that are nobody's blocks.

    `others` are the ledgers of the other pools: what they hold of a range that was theirs is not
    given out. What is out of the ranges drains, as blocks do (`ipam.Allocation`).
    """

    def __init__(
        self,
        ledger: Ledger,
        ranges: Sequence[Range],
        *,
        log_time_ms: int,
        quarantine_ms: int,
        others: Collection[Ledger] = (),
    ) -> None:
        super().__init__(ledger, _NO_ZONE, log_time_ms=log_time_ms, quarantine_ms=quarantine_ms)
        self._ranges = ranges
        self._others = others
        self._size = sum(size for _, size in ranges)
        self._full = False

    def _keeps(self, former: int) -> bool:
        return not self._foreign(former) and (self._gives(former) or self._rests(former))

    def _gives(self, address: int) -> bool:
        inside = any(first <= address < first + size for first, size in self._ranges)
        return inside and not self._foreign(address)

    def _foreign(self, address: int) -> bool:
        return any(
            each.holder(address) is not None or each.owner(address) is not None
            for each in self._others
        )

    def _never_used(self, key: str) -> int | None:
        if self._full or not self._size:
            return None
        start = stable_hash(LEGACY, key) % self._size
        for address in self._from(start):
            if address in self._taken or self._ledger.holder(address) is not None:
                continue
            if not self._foreign(address):
                return address
        self._full = True  # for every other key as well: no second search
        return None

    def _from(self, offset: int) -> Iterator[int]:
        """Every address of the ranges once, from an offset on and round."""
        at = 0
        while offset >= self._ranges[at][1]:
            offset -= self._ranges[at][1]
            at += 1
        first, size = self._ranges[at]
        yield from range(first + offset, first + size)
        for step in range(1, len(self._ranges)):
            following, length = self._ranges[(at + step) % len(self._ranges)]
            yield from range(following, following + length)
        yield from range(first, first + offset)

    def _exhausted(self, key: str) -> tuple[str, str]:
        used = f"{self._ledger.live(_NO_ZONE)} of {self._size} in use"
        return f"no address left for {key}", used


def rebind(
    keys: Iterable[str],
    *,
    wants: Callable[[str], bool],
    held: Callable[[str], bytes | None],
    allocation: LegacyAllocation,
    log_time_ms: int,
) -> tuple[list[Change], list[PoolExhaustedError]]:
    """The changes that bring the bindings of `keys` in line, and why some got no address.

    A key that is wanted and has none gets an address, or waits for one if the pool is exhausted;
    one that is not wanted any more releases its own. A key that is right already changes nothing.

    Args:
        keys: Those that were touched, and those that wait; order does not matter.
        wants: Whether a name must exist (`LegacyIndex.wants`).
        held: The packed binding of a key, if there is one.
        allocation: Made for this entry.
        log_time_ms: When what is released here begins to rest.
    """
    changes: list[Change] = []
    errors: list[PoolExhaustedError] = []
    lacking: list[tuple[bool, str, Binding | None]] = []
    for key in sorted(set(keys)):
        payload = held(key)
        binding = None if payload is None else Binding.unpack(payload)
        if not wants(key):
            changes += _released(key, binding, log_time_ms)
        elif binding is None or not binding.live:
            lacking.append((binding is None or binding.address is None, key, binding))
    # Those that had one go first: another must not get the address that its key returns to.
    for _, key, binding in sorted(lacking, key=lambda each: each[:2]):
        try:
            changes += _bound(key, binding, allocation)
        except PoolExhaustedError as error:
            errors.append(error)
            waiting = Binding(None, None, None, 0)
            if binding != waiting:
                changes.append(Change(LEGACY_VIP, key, waiting.pack()))
    return changes, errors


def _bound(key: str, binding: Binding | None, allocation: LegacyAllocation) -> list[Change]:
    address, replaced = allocation.choose(key, None if binding is None else binding.address)
    put = Change(LEGACY_VIP, key, Binding(address, None, None, 0).pack())
    return [put] if replaced is None else [Change(LEGACY_VIP, replaced, None), put]


def _released(key: str, binding: Binding | None, log_time_ms: int) -> list[Change]:
    if binding is None or binding.released_ms is not None:
        return []
    if binding.address is None:
        return [Change(LEGACY_VIP, key, None)]  # waited in vain: nothing to remember
    return [Change(LEGACY_VIP, key, binding._replace(released_ms=log_time_ms).pack())]
