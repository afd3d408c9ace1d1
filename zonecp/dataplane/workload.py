"""The workload's part of the agent: its Dataplane, its probes, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from zonecp.dataplane.feedstate import FeedState
from zonecp.dataplane.metrics import RegistrationCollector
from zonecp.dataplane.probe import probes
from zonecp.dataplane.prober import ProbeCollector, Prober
from zonecp.dataplane.register import Registration
from zonemesh.runtime.supervise import Component


class Workload:
    """A Dataplane whose inbounds' states follow what probes find."""

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        zones: tuple[str, ...],
        state: FeedState,
        headers: Callable[[], dict[str, str]],
        registry: CollectorRegistry,
    ) -> None:
        wanted = probes(document)
        self._prober = Prober(wanted, self._tell) if wanted else None
        self._registration = Registration(
            zones,
            document,
            state,
            headers=headers,
            settled=None if self._prober is None else self._prober.settled,
        )
        registry.register(RegistrationCollector(self._registration))
        if self._prober is not None:
            registry.register(ProbeCollector(self._prober))

    def components(self) -> dict[str, Component]:
        found: dict[str, Component] = {}
        if self._prober is not None:
            found["probes"] = self._prober.run
        return {**found, "registration": self._registration.run}

    def status(self) -> dict[str, Any]:
        inbounds = [] if self._prober is None else self._prober.status()
        return {**self._registration.status(), "probes": inbounds}

    async def drain(self, wait_s: float) -> None:
        """As `Registration.drain`."""
        await self._registration.drain(wait_s)

    def _tell(self, ready: Mapping[int, bool]) -> None:
        self._registration.set_ready(ready)
