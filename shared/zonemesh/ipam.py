"""Virtual addresses: pools, the blocks leased from them, bindings, rest after release.

Every address has one owner: global leases disjoint blocks of a pool to zones and a zone binds its
own services out of its blocks. A binding is recorded and never recomputed; where a search starts is
derived from the key, so that a table that was lost comes back nearly the same. Addresses are ints
here; `netaddr` is for the edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, Self

import msgpack
import netaddr

from zonemesh.errors import InputError, PoolExhaustedError, WireError
from zonemesh.model import Key, zone_of

BLOCK = "block"
"""Kind of the records that say which zone holds which block: key (-, zone, pool, n)."""
_VIP = "vip."
BLOCK_SHARE = 1024
BLOCK_ADDRESSES_MAX = 4096
_LIMITED_BROADCAST = 0xFFFFFFFF
_IPV6_PREFIX = 0xFD00_FD00 << 96
"""fd00:fd00::/64; the IPv4 bits fill the last 32 (one allocation, two families)."""
IPV6_CIDR = "fd00:fd00::/64"


def vip_kind(kind: str) -> str:
    """The kind of the binding records of a kind's objects; keys are the objects' own."""
    return _VIP + kind


def pool_of(kind: str) -> str | None:
    """The pool whose bindings a kind holds; None for other kinds."""
    return kind.removeprefix(_VIP) if kind.startswith(_VIP) else None


def ipv4_text(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def ipv6_text(address: int) -> str:
    """The address that is derived from an IPv4 one, in the canonical form of RFC 5952."""
    high, low = address >> 16, address & 0xFFFF
    if high:  # every pool in use: ten times as fast as the general way, and run for every record
        return f"fd00:fd00::{high:x}:{low:x}"
    return str(netaddr.IPAddress(_IPV6_PREFIX | address, 6))


def ipv6_packed(address: int) -> bytes:
    """The same in 16 octets."""
    return (_IPV6_PREFIX | address).to_bytes(16, "big")


class Binding(NamedTuple):
    """What a key holds. Outlives its object: an address rests, and its key may have it back."""

    address: int | None
    """None: waiting for one."""
    order: int | None
    """Drawn by global at the key's first merge; decides between names. None: not merged yet."""
    released_ms: int | None
    """Log time of the release; None while in use."""
    birth: int
    """Drawn by the owner; decides among keys that are not merged yet."""

    @property
    def live(self) -> bool:
        return self.address is not None and self.released_ms is None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(tuple(self))
        return packed

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        try:
            address, order, released_ms, birth, *_ = msgpack.unpackb(payload)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise WireError(f"malformed binding: {error!r}") from error
        for value in (address, order, released_ms):
            if value is not None and type(value) is not int:
                raise WireError(f"malformed binding: {value!r} is not an integer")
        if type(birth) is not int:
            raise WireError(f"malformed binding: {birth!r} is not an integer")
        return cls(address, order, released_ms, birth)


class Block(NamedTuple):
    """A run of addresses leased to one zone."""

    first: int
    size: int
    granted_ms: int
    """Wall time of the grant: of two claims, the earlier grant wins."""
    retired: bool = False
    """Its zone was deleted, or has handed it back: leased again only when nothing else is left, and
    after quarantine."""
    retired_ms: int = 0
    """Global's log time of that; in a zone's own log the zone's."""

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.first <= address < self.first + self.size

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb(tuple(self))
        return packed

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        try:
            first, size, granted_ms, retired, *more = msgpack.unpackb(payload)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise WireError(f"malformed block: {error!r}") from error
        retired_ms = more[0] if more else 0  # older records lack it
        for value in (first, size, granted_ms, retired_ms):
            if type(value) is not int:
                raise WireError(f"malformed block: {value!r} is not an integer")
        if type(retired) is not bool or not 0 < size <= BLOCK_ADDRESSES_MAX:
            raise WireError(f"malformed block: {size} addresses, retired {retired!r}")
        return cls(first, size, granted_ms, retired, retired_ms)


@dataclass(frozen=True, slots=True)
class Pool:
    """The ranges that one kind's addresses come from, cut into blocks."""

    name: str
    cidrs: tuple[str, ...]

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """(first, size) of each CIDR, in the order given."""
        return _ranges(self.cidrs)

    @property
    def block_size(self) -> int:
        """Addresses of the largest block."""
        return max(_step(size) for _, size in self.ranges)

    def blocks(self) -> Sequence[tuple[int, int]]:
        """(first, size) of every block that can be leased."""
        return _blocks(self)

    def covers(self, first: int, size: int = 1) -> bool:
        """Whether addresses are given out here. Blocks of a range that was removed drain: what is
        bound in them stays, and nothing new is chosen from them.
        """
        return any(
            start <= first and first + size <= start + length for start, length in self.ranges
        )

    def block_at(self, address: int) -> tuple[int, int] | None:
        """(first, size) of the block that an address lies in; None if it lies in none."""
        for first, size in self.ranges:
            if first <= address < first + size and address != _LIMITED_BROADCAST:
                start = address - (address - first) % _step(size)
                return start, _length(start, first, size)
        return None


@lru_cache(maxsize=16)  # asked for with every entry, and netaddr takes 50 us
def _ranges(cidrs: tuple[str, ...]) -> Sequence[tuple[int, int]]:
    networks = [netaddr.IPNetwork(cidr) for cidr in cidrs]
    return tuple((int(network.first), int(network.size)) for network in networks)


@lru_cache(maxsize=16)  # 4,096 blocks for each pool, asked for whenever a zone's stock is looked at
def _blocks(pool: Pool) -> Sequence[tuple[int, int]]:
    result = []
    for first, size in pool.ranges:
        for start in range(first, first + size, _step(size)):
            length = _length(start, first, size)
            if length:
                result.append((start, length))
    return tuple(result)


def _step(range_size: int) -> int:
    return max(1, min(BLOCK_ADDRESSES_MAX, range_size // BLOCK_SHARE))


def _length(start: int, first: int, size: int) -> int:
    """Addresses of the block of a range that begins at `start`."""
    length = min(_step(size), first + size - start)
    # 255.255.255.255 is not ours. It can only be the last.
    return length - 1 if start + length > _LIMITED_BROADCAST else length


def check_pools(pools: Iterable[Pool]) -> list[str]:
    """Faults of a set of pools: unreadable CIDRs, IPv6, overlaps. Empty if there are none."""
    faults: list[str] = []
    seen: list[tuple[str, netaddr.IPNetwork]] = []
    for pool in pools:
        if not pool.cidrs:
            faults.append(f"ipam {pool.name}: at least one CIDR")
        for cidr in pool.cidrs:
            try:
                network = netaddr.IPNetwork(cidr)
            except (netaddr.AddrFormatError, ValueError):
                faults.append(f"ipam {pool.name}: {cidr!r} is not a CIDR")
                continue
            if network.version != 4:
                faults.append(f"ipam {pool.name}: {cidr} must be IPv4; IPv6 is derived from it")
                continue
            faults += [
                f"ipam {pool.name}: {cidr} overlaps {other} of {name}"
                for name, other in seen
                if network in other or other in network
            ]
            seen.append((pool.name, network))
    return faults


@dataclass(slots=True)
class _Use:
    """Which addresses of a block somebody holds: a flag each, and how many."""

    flags: bytearray
    count: int


class Usage(NamedTuple):
    """Addresses of one pool that a zone has, or global as ""; `waiting` are keys without one."""

    used: int
    quarantined: int
    free: int
    waiting: int
    blocks: int
    draining: int
    """Of those in use or at rest: in ranges that were removed."""


class Ledger:
    """An index over one pool's blocks and bindings: who holds what, and what is free."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self._kind = vip_kind(pool)
        self._key_of: dict[int, str] = {}
        self._resting: defaultdict[str, dict[int, int]] = defaultdict(dict)
        self._blocks: defaultdict[str, dict[int, Block]] = defaultdict(dict)
        self._owner: dict[int, str] = {}
        self._record: dict[int, str] = {}
        self._firsts: list[int] = []
        self._use: dict[int, _Use] = {}
        self._live: defaultdict[str, int] = defaultdict(int)
        self.waiting: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """Keys without an address, by zone, in the order in which they came."""

    def changed(self, kind: str, key: str, old: bytes | None, new: bytes | None) -> None:
        if kind == self._kind:
            if old is not None:
                self._forget(key, Binding.unpack(old))
            if new is not None:
                self._note(key, Binding.unpack(new))
        elif kind == BLOCK and Key.parse(key).namespace == self.pool:
            block = None if new is None else Block.unpack(new)
            former = None if old is None else Block.unpack(old)
            if former is not None and (block is None or block.first != former.first):
                self._unlease(key, former.first)
            if block is not None:
                self._lease(key, block)

    def holder(self, address: int) -> str | None:
        """The key that holds an address, in use or at rest."""
        return self._key_of.get(address)

    def owner(self, address: int) -> str | None:
        """The zone whose block an address lies in."""
        first = self._first_of(address)
        return None if first is None else self._owner[first]

    def blocks(self, zone: str) -> list[Block]:
        """A zone's blocks in use, oldest grant first."""
        return [block for block in self._blocks[zone].values() if not block.retired]

    def retired(self) -> list[tuple[str, Block]]:
        """Everybody's blocks that are in use no more, each behind the key of its record."""
        every = (block for blocks in self._blocks.values() for block in blocks.values())
        return [(self._record[block.first], block) for block in every if block.retired]

    def open_blocks(self, pool: Pool, zone: str) -> list[Block]:
        """Those that do not drain: what is new is chosen from them alone."""
        return [block for block in self.blocks(zone) if pool.covers(block.first, block.size)]

    def draining(self, pool: Pool, zone: str) -> int:
        """Addresses held, in use or at rest, in a zone's blocks of ranges that were removed."""
        blocks = self.blocks(zone)
        return sum(self.filled(each) for each in blocks if not pool.covers(each.first, each.size))

    def overlaps(self, first: int, size: int) -> bool:
        """Whether anybody's block has addresses of these."""
        at = bisect_left(self._firsts, first)
        if at < len(self._firsts) and self._firsts[at] < first + size:
            return True
        return self._first_of(first) is not None

    def held(self) -> Collection[int]:
        """Every address in use or at rest."""
        return self._key_of.keys()

    def live(self, zone: str) -> int:
        return self._live[zone]

    def resting(self, zone: str) -> Mapping[int, int]:
        """Released addresses and the log time of their release."""
        return self._resting[zone]

    def capacity(self, pool: Pool, zone: str) -> int:
        """Addresses of a zone's blocks, without those that drain."""
        return sum(block.size for block in self.open_blocks(pool, zone))

    def usage(self, pool: Pool, zone: str) -> Usage:
        """How full a zone's blocks are."""
        return Usage(
            used=self.live(zone),
            quarantined=len(self.resting(zone)),
            free=sum(block.size - self.filled(block) for block in self.open_blocks(pool, zone)),
            waiting=len(self.waiting[zone]),
            blocks=len(self.blocks(zone)),
            draining=self.draining(pool, zone),
        )

    def free(self, pool: Pool, zone: str, log_time_ms: int, quarantine_ms: int) -> int:
        """Addresses that a new key could get now: never used, or past quarantine."""
        blocks = {block.first: block for block in self.open_blocks(pool, zone)}
        rested = sum(
            1
            for address, released_ms in self._resting[zone].items()
            if log_time_ms - released_ms >= quarantine_ms and self._first_of(address) in blocks
        )
        return rested + sum(block.size - self.filled(block) for block in blocks.values())

    def filled(self, block: Block) -> int:
        """Addresses of a block that were ever given out and are still remembered."""
        use = self._use.get(block.first)
        return 0 if use is None else use.count

    def free_from(self, block: Block, offset: int) -> int | None:
        """The first address, from an offset on and round, that nobody holds, if there is one."""
        flags = self._use[block.first].flags
        at = flags.find(0, offset)
        if at < 0:
            at = flags.find(0, 0, offset)
        return None if at < 0 else block.first + at

    def leased(self) -> Mapping[int, str]:
        """First address of every block that is held, and by which zone (retired ones too)."""
        return self._owner

    def block_of(self, address: int) -> tuple[str, Block] | None:
        """The block that an address lies in, behind the key of its record."""
        first = self._first_of(address)
        return None if first is None else self.record_of(first)

    def record_of(self, first: int) -> tuple[str, Block] | None:
        """The key of the record that a block is held by, and the block."""
        owner = self._owner.get(first)
        return None if owner is None else (self._record[first], self._blocks[owner][first])

    def records(self, zone: str) -> set[str]:
        """The keys of a zone's block records."""
        return {self._record[first] for first in self._blocks[zone]}

    def _lease(self, key: str, block: Block) -> None:
        """Note who holds a block; a later record of the same block takes it over."""
        first, zone = block.first, zone_of(key)
        if first in self._owner:
            del self._blocks[self._owner[first]][first]
        else:
            insort(self._firsts, first)
        self._blocks[zone][first] = block
        self._owner[first] = zone
        self._record[first] = key
        flags = bytearray(address in self._key_of for address in range(first, first + block.size))
        self._use[first] = _Use(flags, sum(flags))

    def _unlease(self, key: str, first: int) -> None:
        # Another record may have taken the block over before this removal.
        if self._record.get(first) != key:
            return
        del self._blocks[self._owner[first]][first]
        del self._owner[first], self._record[first], self._use[first]
        self._firsts.remove(first)

    def _note(self, key: str, binding: Binding) -> None:
        zone = zone_of(key)
        if binding.address is None:
            if binding.released_ms is None:
                self.waiting[zone][key] = None
            return
        if binding.address not in self._key_of:
            self._mark(binding.address, held=True)
        previous = self._key_of.get(binding.address)
        if previous is not None:
            self._resting[zone_of(previous)].pop(binding.address, None)
        self._key_of[binding.address] = key
        if binding.released_ms is None:
            self._live[zone] += 1
        else:
            self._resting[zone][binding.address] = binding.released_ms

    def _forget(self, key: str, binding: Binding) -> None:
        zone = zone_of(key)
        self.waiting[zone].pop(key, None)
        if binding.address is None:
            return
        if binding.released_ms is None:
            self._live[zone] -= 1
        # Another key may have taken the address over in the same entry, before this removal.
        if self._key_of.get(binding.address) == key:
            self._resting[zone].pop(binding.address, None)
            del self._key_of[binding.address]
            self._mark(binding.address, held=False)

    def _mark(self, address: int, *, held: bool) -> None:
        first = self._first_of(address)
        if first is not None:
            use = self._use[first]
            use.flags[address - first] = held
            use.count += 1 if held else -1

    def _first_of(self, address: int) -> int | None:
        """The block that an address lies in, by its first address."""
        at = bisect_right(self._firsts, address) - 1
        if at < 0:
            return None
        first = self._firsts[at]
        return first if address in self._blocks[self._owner[first]][first] else None


class Choosing(ABC):
    """Addresses chosen for one entry: sees what the ledger holds and what it gave out itself."""

    def __init__(self, ledger: Ledger, zone: str, *, log_time_ms: int, quarantine_ms: int) -> None:
        self._ledger = ledger
        self._zone = zone
        self._log_time_ms = log_time_ms
        self._quarantine_ms = quarantine_ms
        self._taken: set[int] = set()
        self._rested: Iterator[tuple[int, int]] | None = None

    def choose(self, key: str, former: int | None) -> tuple[int, str | None]:
        """An address for a key that has none, and the key whose resting binding it replaces.

        Search order: the key's former address; one never used, from a stable hash of the key; the
        one released longest ago, past quarantine.

        Raises:
            PoolExhaustedError: None of these is left.
        """
        # Held by nobody is a binding that was adopted in this very entry.
        held = None if former is None else self._ledger.holder(former)
        if (
            former is not None
            and former not in self._taken
            and held in (key, None)
            and self._keeps(former)
        ):
            self._taken.add(former)
            return former, None
        address = self._never_used(key)
        if address is not None:
            self._taken.add(address)
            return address, None
        return self._longest_released(key)

    @abstractmethod
    def _keeps(self, former: int) -> bool:
        """Whether a key may have its former address again, as far as the pool is concerned."""

    @abstractmethod
    def _gives(self, address: int) -> bool:
        """Whether an address may be given to another key now."""

    @abstractmethod
    def _never_used(self, key: str) -> int | None:
        """One that nobody holds, from a stable hash of the key on."""

    @abstractmethod
    def _exhausted(self, key: str) -> tuple[str, str]:
        """That nothing is left for a key, and how much there is."""

    def _rests(self, address: int) -> bool:
        """Whether the rest of a released address is not over, or it was never released."""
        released_ms = self._ledger.resting(self._zone).get(address)
        return released_ms is None or self._log_time_ms - released_ms < self._quarantine_ms

    def _longest_released(self, key: str) -> tuple[int, str | None]:
        if self._rested is None:
            # A ledger made from a snapshot has heard of them in any order.
            found = self._ledger.resting(self._zone).items()
            self._rested = iter(sorted(found, key=lambda each: (each[1], each[0])))
        for address, released_ms in self._rested:
            if self._log_time_ms - released_ms < self._quarantine_ms:
                self._rested = iter(())
                break
            if address not in self._taken and self._gives(address):
                self._taken.add(address)
                return address, self._ledger.holder(address)
        resting = f"{len(self._ledger.resting(self._zone))} at rest"
        lack, used = self._exhausted(key)
        raise PoolExhaustedError(f"pool {self._ledger.pool}: {lack} ({used}, {resting})")


class Allocation(Choosing):
    """Out of the blocks of one zone, or of global as "", that do not drain.

    From one that drains a key has its own address again while that rests: whoever still remembers
    it finds nobody else there, and once all rests are over the block empties.
    """

    def __init__(
        self, pool: Pool, ledger: Ledger, zone: str, *, log_time_ms: int, quarantine_ms: int
    ) -> None:
        super().__init__(ledger, zone, log_time_ms=log_time_ms, quarantine_ms=quarantine_ms)
        self._pool = pool
        self._blocks = ledger.open_blocks(pool, zone)
        self._room = {block.first: block.size - ledger.filled(block) for block in self._blocks}

    def _keeps(self, former: int) -> bool:
        if self._ledger.owner(former) not in (self._zone, None):
            return False
        return self._pool.covers(former) or self._rests(former)

    def _gives(self, address: int) -> bool:
        return any(address in block for block in self._blocks)

    def _never_used(self, key: str) -> int | None:
        start = stable_hash(self._ledger.pool, key)
        count = len(self._blocks)
        for step in range(count):
            block = self._blocks[(start + step) % count]
            if self._room[block.first] <= 0:
                continue
            offset = (start // count) % block.size
            for _ in range(block.size):
                address = self._ledger.free_from(block, offset)
                if address is None:
                    break
                if address not in self._taken:
                    self._room[block.first] -= 1
                    return address
                offset = (address + 1 - block.first) % block.size
        return None

    def _exhausted(self, key: str) -> tuple[str, str]:
        draining = self._ledger.draining(self._pool, self._zone)
        resting = sum(map(self._gives, self._ledger.resting(self._zone)))
        used = sum(map(self._ledger.filled, self._blocks)) - resting
        told = f"{used} of {self._ledger.capacity(self._pool, self._zone)} in use"
        if draining:
            told += f", {draining} held in a removed range"
        return f"no address left in {owner_title(self._zone)}'s blocks for {key}", told


def owner_title(zone: str) -> str:
    return f"zone {zone}" if zone else "global"


def stable_hash(space: str, key: str) -> int:
    # Not hash(): str hashes are salted per process, and replicas must agree.
    return int.from_bytes(blake2b(f"{space}\0{key}".encode(), digest_size=8).digest(), "big")


def parse_ipv4(text: str) -> int:
    """Raises InputError: not an IPv4 address."""
    try:
        return int(netaddr.IPAddress(text, 4))
    except (netaddr.AddrFormatError, ValueError) as error:
        raise InputError(f"{text!r} is not an IPv4 address") from error
