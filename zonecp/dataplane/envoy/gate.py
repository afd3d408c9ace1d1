"""Make before break: a name is answered once Envoy listens for its addresses, not earlier.

Only what is new waits, and only while there is an Envoy to wait for: names that were answered go
on being answered whatever becomes of it, and with none for a while nothing waits. (A client that
is refused tries again; one that was told that there is no such name believes it.)

A name has several addresses, and an address several ports. It is answered as soon as Envoy has
decided on all of them and has accepted, for at least one, listener, cluster and endpoints; so one
bad port, or a host without IPv6, does not take a name away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from socket import AF_INET, AF_INET6, inet_pton
from typing import Protocol

import structlog

from zonecp.dataplane.entry import addresses_of
from zonecp.dataplane.envoy.ads import Rejected
from zonecp.dataplane.envoy.compiler import Need
from zonecp.dataplane.envoy.heldback import HeldBack
from zonecp.dataplane.envoy.store import Ref
from zonecp.dataplane.outbounds import Change, Outbound

log = structlog.get_logger(__name__)


class Client(Protocol):
    """An Envoy that is connected."""

    def accepted(self, ref: Ref) -> int: ...

    def rejection(self, ref: Ref) -> Rejected | None: ...


class Gate:
    """Decides which entries the table holds back; makes no I/O and knows no time."""

    def __init__(
        self,
        names: HeldBack,
        needs: Callable[[str], list[list[Need]] | None],
        client: Callable[[], Client | None],
        *,
        whole: Callable[[], bool],
    ) -> None:
        """Stand before a table.

        Args:
            names: Whose new entries are held back.
            needs: Of an outbound: what Envoy must have accepted, for each address.
            client: The Envoy that is connected, if any.
            whole: Whether the map in the table is one that a zone has had.
        """
        self.open = True
        """Nothing is held back: what is on disk, from before, or there is no Envoy to wait for."""

        self.released = 0
        """Names answered after Envoy was ready for them."""

        self.waived = 0
        """... without it."""

        self._names = names
        self._needs = needs
        self._client = client
        self._whole = whole
        self._by_vip: defaultdict[bytes, set[str]] = defaultdict(set)
        """Outbounds by packed address."""

        self._vips: dict[str, tuple[bytes, ...]] = {}
        """Packed addresses by outbound."""

        self._waiting: defaultdict[bytes, set[bytes]] = defaultdict(set)
        """Held names by packed address; also some that are held no more."""

        self._fresh: set[bytes] = set()
        """Held names that nobody has looked at since something changed."""

        names.gate = self.hold

    def hold(self, key: bytes, entry: bytes) -> bool:
        """Whether to hold back what is put into the table."""
        if self.open:
            return False
        for address in addresses_of(entry):
            self._waiting[address].add(key)
        self._fresh.add(key)
        return True

    def changed(self, change: Change) -> None:
        """Listen to the outbounds."""
        for outbound in (*change.put, *change.removed):
            for address in self._vips.pop(outbound.id, ()):
                self._fresh |= self._waiting.get(address, set())
                self._by_vip[address].discard(outbound.id)
                if not self._by_vip[address]:
                    del self._by_vip[address]
        for outbound in change.put:
            self._vips[outbound.id] = addresses = packed_vips(outbound)
            for address in addresses:
                self._by_vip[address].add(outbound.id)

    def decided(self, outbound_ids: Iterable[str]) -> None:
        """Envoy has decided on something of these outbounds."""
        if self._waiting:
            addresses = {vip for each in outbound_ids for vip in self._vips.get(each, ())}
            self._release({key for vip in addresses for key in self._waiting.get(vip, ())})

    def settle(self, outbound_ids: Iterable[str] = ()) -> None:
        """The map is whole, and these outbounds have been made into resources."""
        if self._client() is None or not self._whole():
            return
        self.decided(outbound_ids)
        fresh, self._fresh = self._fresh, set()
        self._release(fresh)

    def settle_all(self) -> None:
        """Look at everything that is held back."""
        self._release({*self._names.held})

    def open_wide(self) -> int:
        """Hold nothing back from now on. Returns how many names were."""
        self.open = True
        held = [*self._names.held]
        for key in held:
            self._names.release(key)
        self._waiting.clear()
        self._fresh.clear()
        self.waived += len(held)
        return len(held)

    def close(self) -> None:
        """Hold back what is new from now on."""
        self.open = False

    def _release(self, keys: Iterable[bytes]) -> None:
        client = self._client()
        if client is None or not self._whole():
            return
        for key in keys:
            entry = self._names.held.get(key)
            if entry is None:  # withdrawn again
                continue
            addresses = addresses_of(entry)
            if self._ready(addresses, client):
                for address in addresses:
                    self._waiting[address].discard(key)
                    if not self._waiting[address]:
                        del self._waiting[address]
                self._names.release(key)
                self.released += 1
        if not self._names.held:
            self._waiting.clear()

    def _ready(self, addresses: Iterable[bytes], client: Client) -> bool:
        outbounds = {each for address in addresses for each in self._by_vip.get(address, ())}
        accepted, any_needs = False, False
        for outbound in outbounds:
            needs = self._needs(outbound)
            if needs is None:
                return False
            for path in needs:
                any_needs = True
                verdict = _verdict(path, client)
                if verdict is None:
                    return False
                accepted |= verdict
        return accepted or not any_needs


def _verdict(path: Iterable[Need], client: Client) -> bool | None:
    """Whether Envoy has accepted all of these; None while it is undecided about one."""
    verdict: bool | None = True
    for need in path:
        if client.accepted(need.ref) >= need.number:
            continue
        if client.rejection(need.ref) is not None:
            return False
        verdict = None
    return verdict


def packed_vips(outbound: Outbound) -> tuple[bytes, ...]:
    """The addresses of an outbound; what is none is left out, and Envoy says that it is none."""
    found = []
    for vip in outbound.vips:
        with suppress(OSError):
            found.append(inet_pton(AF_INET6 if ":" in vip else AF_INET, vip))
    return tuple(found)
