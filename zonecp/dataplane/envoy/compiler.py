"""Keeps an Envoy's resources in step with the outbounds of the feed.

What is new is made at once. What is gone goes in two steps after its name is no longer answered:
first the listeners, then the clusters behind them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import structlog

from zonecp.dataplane.envoy import clusters, listeners
from zonecp.dataplane.envoy.messages import HTTP2_PROTOCOLS, serialized
from zonecp.dataplane.envoy.store import CLUSTER, ENDPOINTS, LISTENER, Ref, Resources
from zonecp.dataplane.outbounds import Change, Outbound, Outbounds

log = structlog.get_logger(__name__)

SLICE: Final = 16
"""Outbounds made between two turns of the loop: about 1.5 ms."""

WITHDRAW_S: Final = 1.0
"""Between the end of a name and the end of its listener: who has just asked still connects."""

CLUSTER_S: Final = 1.0
"""Between the end of a listener and the end of its cluster."""

POSTPONED_S_MAX: Final = 30.0
"""For how long a listener outlasts that while names wait to be answered with new addresses."""

RECHECK_S: Final = 0.05
NEVER: Final = sys.maxsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How listeners are made."""

    bound: bool = True
    single: bool = False
    """One listener for all destinations; not `bound`."""

    outbound_port: int = 15001
    ipv6: bool = True
    vip_ranges: tuple[str, ...] = ()
    """The mesh's own addresses, CIDR; not if `bound`."""

    static: bool = False
    """Endpoints in their clusters, for an Envoy that is configured by files."""


class Need(NamedTuple):
    """A resource that Envoy must have accepted, as of this change or a later one."""

    ref: Ref
    number: int


class Compiled(NamedTuple):
    """What one outbound has been made into."""

    outbound: Outbound
    resources: tuple[Ref, ...]
    """Clusters and endpoints."""

    listeners: tuple[str, ...]
    """Names of its listeners, or of its chains in the single one."""


class Compiler:
    """Makes resources of outbounds; `run` is a component for `supervise`."""

    def __init__(
        self,
        outbounds: Outbounds,
        resources: Resources,
        shape: Shape,
        *,
        in_use: Callable[[], bool] = lambda: False,
    ) -> None:
        """`in_use` says whether names may still be answered with addresses that are to go."""
        self.rejected: dict[str, str] = {}
        """Outbounds that no resource could be made of, and why."""

        self._outbounds = outbounds
        self._resources = resources
        self._shape = shape
        self._in_use = in_use
        self._compiled: dict[str, Compiled] = {}
        self._owners: dict[str, str] = {}
        """Outbounds by listener: one that takes another's place keeps the listener."""

        self._chains: dict[str, bytes] = {}
        """Of the single listeners, by name."""

        self._chain_numbers: dict[str, int] = {}
        self._rebuild: set[str] = set()
        """Single listeners whose chains have changed."""

        self._dirty: dict[str, None] = {}
        self._going: dict[str, float] = {}
        """When listeners are to go, at the earliest."""

        self._doomed: dict[Ref, float] = {}
        """When clusters and endpoints are to go."""

        self._woken = asyncio.Event()
        self._listeners: list[Callable[[Collection[str]], None]] = []
        outbounds.listen(self._changed)

    def listen(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call it with the outbounds that have changed once they all are among the resources."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """The outbounds are a whole map again."""
        self._woken.set()

    def _changed(self, change: Change) -> None:
        self._dirty.update(dict.fromkeys(each.id for each in (*change.put, *change.removed)))

    async def run(self) -> None:
        """Follow the outbounds."""
        loop = asyncio.get_running_loop()
        while True:
            await self.step(loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_deadline_s(loop.time())):
                    await self._woken.wait()
            self._woken.clear()

    def begin(self, inbounds: Iterable[listeners.Inbound]) -> None:
        """Make what does not come from the feed."""
        for inbound in inbounds:
            http2 = inbound.protocol in HTTP2_PROTOCOLS
            self._put(
                CLUSTER,
                clusters.static_cluster(
                    inbound.cluster, inbound.service_address, inbound.service_port, http2=http2
                ),
            )
            self._put(LISTENER, listeners.inbound_listener(inbound))
        if self._shape.bound:
            return
        for name in self._redirects():
            self._put(CLUSTER, clusters.passthrough_cluster(name))
            self._rebuild.add(name)
        self._put(CLUSTER, clusters.empty_cluster(listeners.NOBODY))
        self._rebuild_redirects()

    async def step(self, now_s: float) -> None:
        """Make what has changed, and let go what has been gone for long enough."""
        changed: list[str] = []
        while self._dirty:
            changed += self._compile_slice(now_s)
            await asyncio.sleep(0)
        self._let_go(now_s)
        self._rebuild_redirects()
        for listener in self._listeners:
            listener(changed)

    def compile_all(self) -> None:
        """Make everything at once, for who serves nobody meanwhile."""
        while self._dirty:
            self._compile_slice(0.0)
        self._rebuild_redirects()

    def needs(self, outbound_id: str) -> list[list[Need]] | None:
        """What Envoy must have accepted for an outbound, for each of its addresses.

        Returns:
            None if it is not made yet; nothing if it cannot be.
        """
        if outbound_id in self.rejected:
            return []
        compiled = self._compiled.get(outbound_id)
        if compiled is None or outbound_id in self._dirty:
            return None
        behind = [self._need(ref) for ref in compiled.resources]
        return [[*behind, self._listener_need(name)] for name in compiled.listeners]

    def owner(self, ref: Ref) -> str | None:
        """The outbound that a resource is made of."""
        if ref.type_url != LISTENER:
            return ref.name if ref.name in self._compiled else None
        return self._owners.get(ref.name)

    # Making

    def _compile_slice(self, now_s: float) -> list[str]:
        found = [*islice(self._dirty, SLICE)]
        for outbound_id in found:
            del self._dirty[outbound_id]
            self._compile(outbound_id, now_s)
        return found

    def _compile(self, outbound_id: str, now_s: float) -> None:
        outbound = self._outbounds.get(outbound_id)
        if outbound is None:
            self.rejected.pop(outbound_id, None)
            if (before := self._compiled.pop(outbound_id, None)) is not None:
                self._dismiss(before, None, now_s)
            return
        before = self._compiled.get(outbound_id)
        try:
            compiled = self._make(outbound)
        except (ValueError, TypeError) as error:  # protobuf's, of numbers and texts it cannot hold
            self.rejected[outbound_id] = str(error)
            log.warning("outbound_rejected", outbound=outbound_id, error=str(error))
            return
        self.rejected.pop(outbound_id, None)
        self._compiled[outbound_id] = compiled
        if before is not None:
            self._dismiss(before, compiled, now_s)

    def _make(self, outbound: Outbound) -> Compiled:
        chain = None if self._shape.single else listeners.filter_chain(outbound)
        made = {
            listeners.listener_name(vip, outbound.port): self._listener(outbound, vip, chain)
            for vip in outbound.vips
            if self._shape.ipv6 or ":" not in vip
        }
        messages = [clusters.cluster(outbound, inline=self._shape.static)]
        if not self._shape.static and not clusters.needs_dns(outbound):
            messages.append(clusters.assignment(outbound))
        types = (CLUSTER, ENDPOINTS)[: len(messages)]
        refs = tuple(Ref(each, outbound.id) for each in types)
        # Endpoints first: a cluster that is asked for has them.
        for ref, message in reversed([*zip(refs, messages, strict=True)]):
            self._doomed.pop(ref, None)
            self._resources.put(ref, serialized(message))
        for name, payload in made.items():
            self._owners[name] = outbound.id
            self._going.pop(name, None)
            self._put_listener(name, payload)
        return Compiled(outbound, refs, tuple(made))

    def _listener(self, outbound: Outbound, vip: str, chain: Any) -> bytes:
        if self._shape.single:
            return serialized(listeners.matching_chain(outbound, vip))
        return serialized(
            listeners.outbound_listener(
                outbound, vip, chain, bound=self._shape.bound, freebind=":" in vip
            )
        )

    def _put_listener(self, name: str, payload: bytes) -> None:
        if not self._shape.single:
            self._resources.put(Ref(LISTENER, name), payload)
        elif self._chains.get(name) != payload:
            self._chains[name] = payload
            self._rebuild.add(_redirect_of(name))

    def _listener_need(self, name: str) -> Need:
        if self._shape.single:
            ref = Ref(LISTENER, _redirect_of(name))
            return Need(ref, self._chain_numbers.get(name, NEVER))
        return self._need(Ref(LISTENER, name))

    def _need(self, ref: Ref) -> Need:
        resource = self._resources.get(ref)
        return Need(ref, NEVER if resource is None else resource.since)

    def _put(self, type_url: str, message: Any) -> None:
        self._resources.put(Ref(type_url, message.name), serialized(message))

    # Letting go

    def _dismiss(self, before: Compiled, after: Compiled | None, now_s: float) -> None:
        """What an outbound was made into, and no longer is, is to go."""
        kept: tuple[Any, ...] = () if after is None else (*after.listeners, *after.resources)
        for name in before.listeners:
            if name not in kept and self._owners.get(name) == before.outbound.id:
                self._going[name] = now_s + WITHDRAW_S
        for ref in before.resources:
            if ref not in kept:
                self._doomed[ref] = now_s + WITHDRAW_S + CLUSTER_S

    def _let_go(self, now_s: float) -> None:
        due = [name for name, at_s in self._going.items() if at_s <= now_s]
        if due and self._in_use() and now_s < self._going[due[0]] + POSTPONED_S_MAX:
            due = []
        for name in due:
            del self._going[name], self._owners[name]
            if self._chains.pop(name, None) is not None:
                self._chain_numbers.pop(name, None)
                self._rebuild.add(_redirect_of(name))
        if not self._shape.single:
            self._resources.remove(Ref(LISTENER, name) for name in due)
        gone = [ref for ref, at_s in self._doomed.items() if at_s <= now_s]
        for ref in gone:
            del self._doomed[ref]
        self._resources.remove(gone)

    def _next_deadline_s(self, now_s: float) -> float | None:
        deadline_s = min((*self._going.values(), *self._doomed.values()), default=None)
        return None if deadline_s is None else max(deadline_s, now_s + RECHECK_S)

    # The listeners that redirected connections arrive at

    def _redirects(self) -> list[str]:
        return [listeners.PASSTHROUGH_V4, *([listeners.PASSTHROUGH_V6] * self._shape.ipv6)]

    def _rebuild_redirects(self) -> None:
        for name in sorted(self._rebuild):
            chains = {
                each: self._chains[each] for each in self._chains if _redirect_of(each) == name
            }
            message = listeners.redirect_listener(
                name,
                self._shape.outbound_port,
                chains=chains,
                single=self._shape.single,
                vip_ranges=self._shape.vip_ranges,
            )
            self._put(LISTENER, message)
            number = self._resources.number
            for each in chains:
                self._chain_numbers.setdefault(each, number)
        self._rebuild.clear()


def _redirect_of(listener: str) -> str:
    return listeners.PASSTHROUGH_V6 if "[" in listener else listeners.PASSTHROUGH_V4
