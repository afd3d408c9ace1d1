"""The agent's Envoy part, put together: imported only with `--envoy`, as it needs protobuf."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry

from zonecp.dataplane.envoy import listeners
from zonecp.dataplane.envoy.bootstrap import Node, for_ads
from zonecp.dataplane.envoy.compiler import Compiler, Shape
from zonecp.dataplane.envoy.config import Envoy
from zonecp.dataplane.envoy.dnsnames import DnsNames
from zonecp.dataplane.envoy.files import Files
from zonecp.dataplane.envoy.gate import Gate
from zonecp.dataplane.envoy.heldback import HeldBack
from zonecp.dataplane.envoy.messages import joined
from zonecp.dataplane.envoy.process import Command, EnvoyProcess
from zonecp.dataplane.envoy.server import AdsServer
from zonecp.dataplane.envoy.status import EnvoyCollector, Times
from zonecp.dataplane.envoy.store import Ref, Resources
from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.outbounds import Outbounds
from zonemesh.runtime.supervise import Component

log = structlog.get_logger(__name__)

WATCH_S: Final = 0.25
STALLED_S: Final = 30.0
"""An Envoy that leaves a response unanswered for so long is not waited for."""

DNS_DRAIN_S_MAX: Final = 2
"""Each change of a name replaces the DNS listener, and Envoy keeps the former ones for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarOptions:
    envoy: Envoy
    node: Node
    data_dir: Path
    socket: Path
    binary: Path | None
    drain_s: int
    document: Mapping[str, Any] | None
    """The workload's Dataplane."""

    vip_ranges: tuple[str, ...]
    """The mesh's own addresses, CIDR."""

    dns: tuple[str, int] | None
    """Where Envoy's own DNS filter answers; None: it does not."""


class Sidecar:
    """Makes resources of outbounds, serves them to an Envoy, and lets names through to DNS."""

    def __init__(
        self,
        options: SidecarOptions,
        names: HeldBack,
        outbounds: Outbounds,
        state: FeedState,
        registry: CollectorRegistry,
    ) -> None:
        self._options = options
        self._state = state
        self.names = names
        self.times = Times(registry)
        self._clock = asyncio.get_running_loop().time
        self._settled_s: float | None = None
        """Since when there is a change that has not been sent."""

        self.resources = Resources()
        self.shape = shape_of(options.envoy, options.vip_ranges)
        self.compiler = Compiler(
            outbounds, self.resources, self.shape, in_use=lambda: bool(names.held)
        )
        self.server = AdsServer(
            options.socket,
            self.resources,
            decided=self._decided,
            attached=self._attached,
            detached=self._detached,
            sent=self._sent,
            answered=self.times.answer.observe,
        )
        self.gate = Gate(
            names,
            self.compiler.needs,
            lambda: self.server.client,
            whole=lambda: state.whole,
        )
        self.process = EnvoyProcess(
            Command(
                binary=options.binary,
                directory=options.data_dir,
                bootstrap=for_ads(options.node, options.socket),
                concurrency=options.envoy.concurrency,
                log_level=options.envoy.log_level,
                drain_s=min(options.drain_s, DNS_DRAIN_S_MAX) if options.dns else options.drain_s,
            )
        )
        self.admin = joined(options.node.admin_address, options.node.admin_port)
        self.arrangement = options.envoy.arrangement
        self.dns_names = self._make_dns_names()
        self.files = self._make_files(outbounds)
        outbounds.listen(self.gate.changed)
        state.settled = self._settled
        self.compiler.listen(self._compiled)
        inbounds = listeners.inbounds_of(options.document or {})
        self.compiler.begin(inbounds)
        if self.files is not None:
            self.files.compiler.begin(inbounds)
        self._away_since_s: float | None = self._clock()
        registry.register(EnvoyCollector(self))

    def components(self) -> dict[str, Component]:
        found: dict[str, Component] = {
            "xds": self.server.run,
            "envoy_resources": self.compiler.run,
            "envoy_gate": self._watch,
        }
        if self.dns_names is not None:
            found["envoy_dns_names"] = self.dns_names.run
        if self.files is not None:
            found["envoy_file_resources"] = self.files.compiler.run
            found["envoy_files"] = self.files.run
        if self._options.envoy.start:
            found["envoy"] = self.process.run
        return found

    def _make_dns_names(self) -> DnsNames | None:
        if self._options.dns is None:
            return None
        address, port = self._options.dns
        return DnsNames(
            self.names.table, self.resources, address=address, port=port, changed=self.server.wake
        )

    def _make_files(self, outbounds: Outbounds) -> Files | None:
        directory = self._options.envoy.config_dir
        if directory is None:
            return None
        shape = shape_of(self._options.envoy, self._options.vip_ranges, static=True)
        return Files(directory.absolute(), outbounds, shape)

    def check(self) -> str | None:
        """What is wrong with Envoy, if anything."""
        if self.server.current is not None:
            return None
        if self._options.envoy.start:
            return self.process.trouble or "envoy has not connected yet"
        return f"no envoy is connected to {self._options.socket}"

    # What happens

    def _sent(self, now_s: float) -> None:
        if self._settled_s is not None:
            self.times.push.observe(now_s - self._settled_s)
            self._settled_s = None

    def _settled(self) -> None:
        if self._settled_s is None:
            self._settled_s = self._clock()
        self.compiler.wake()
        if self.files is not None:
            self.files.compiler.wake()

    def _compiled(self, outbound_ids: Collection[str]) -> None:
        self.resources.complete = self.resources.complete or self._state.confirmed
        self.server.wake()
        self.gate.settle(outbound_ids)

    def _decided(self, refs: Collection[Ref]) -> None:
        if self.shape.single:
            self.gate.settle_all()
        else:
            owners = {self.compiler.owner(ref) for ref in refs}
            self.gate.decided(owner for owner in owners if owner is not None)

    def _attached(self) -> None:
        self._away_since_s = None
        self.gate.close()

    def _detached(self) -> None:
        self._away_since_s = self._clock()

    async def _watch(self) -> None:
        """Let names through when there is no Envoy to wait for."""
        self.gate.close()  # what is in the table by now was answered before
        while True:
            reason = self._in_vain(self._clock())
            if reason is None:
                if self.gate.open:
                    self.gate.close()
                    log.info("names_wait_for_envoy")
            elif not self.gate.open:
                names = self.gate.open_wide()
                log.warning("names_do_not_wait_for_envoy", reason=reason, names=names)
            await asyncio.sleep(WATCH_S)

    def _in_vain(self, now_s: float) -> str | None:
        """Why names are not to wait for Envoy; None if they are."""
        current = self.server.current
        if current is not None:
            stalled = current.sent_s is not None and now_s - current.sent_s > STALLED_S
            return f"it has answered nothing for {STALLED_S:g} s" if stalled else None
        if self.process.missing:
            return self.process.trouble
        away_s = now_s - (self._away_since_s or now_s)
        patience_s = self._options.envoy.attach_patience_s
        return f"none is connected for {patience_s:g} s" if away_s >= patience_s else None


def shape_of(envoy: Envoy, vip_ranges: tuple[str, ...] = (), *, static: bool = False) -> Shape:
    return Shape(
        vip_ranges=vip_ranges,
        static=static,
        bound=envoy.arrangement == "bound",
        single=envoy.arrangement == "redirect-single",
        outbound_port=envoy.outbound_port,
        ipv6=envoy.ip_family_mode == "dualstack"
        or (envoy.ip_family_mode == "auto" and _has_ipv6()),
    )


def _has_ipv6() -> bool:
    with suppress(OSError):
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
        return True
    return False
