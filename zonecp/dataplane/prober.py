"""Probes the workload's inbounds over TCP or HTTP and tells whoever registers them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from zonecp.dataplane.probe import Health, Probe, step

log = structlog.get_logger(__name__)

Verdicts = Callable[[Mapping[int, bool]], None]
"""Told of all inbounds that have a verdict, by index, whenever one has changed."""


class Prober:
    """A component for `supervise`."""

    def __init__(self, probes: tuple[Probe, ...], tell: Verdicts) -> None:
        self.settled = asyncio.Event()
        """Every inbound has a verdict."""

        self.health = {probe.inbound: Health() for probe in probes}
        self.results: Counter[tuple[str, str]] = Counter()
        """By (inbound, result)."""

        self.probes = probes
        self._reasons: dict[int, str] = {}
        self._tell = tell

    def status(self) -> list[dict[str, Any]]:
        return [
            {
                "inbound": probe.name,
                "target": f"{probe.address}:{probe.port}{probe.path or ''}",
                "ready": self.health[probe.inbound].ready,
                "error": self._reasons.get(probe.inbound),
            }
            for probe in self.probes
        ]

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for probe in self.probes:
                group.create_task(self._watch(probe, session))

    async def _watch(self, probe: Probe, session: aiohttp.ClientSession) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            started_s = clock()
            self._take(probe, await _fault(probe, session))
            await asyncio.sleep(max(0.0, probe.interval_s - (clock() - started_s)))

    def _take(self, probe: Probe, fault: str | None) -> None:
        self.results[probe.name, "failed" if fault else "passed"] += 1
        if fault is None:
            self._reasons.pop(probe.inbound, None)
        else:
            self._reasons[probe.inbound] = fault
        before = self.health[probe.inbound]
        after = self.health[probe.inbound] = step(probe, before, passed=fault is None)
        if after.ready == before.ready:
            return
        if after.ready:
            log.info("inbound_ready", inbound=probe.name)
        else:
            log.warning("inbound_not_ready", inbound=probe.name, error=fault)
        known = {index: health.ready for index, health in self.health.items()}
        self._tell({index: ready for index, ready in known.items() if ready is not None})
        if None not in known.values():
            self.settled.set()


async def _fault(probe: Probe, session: aiohttp.ClientSession) -> str | None:
    """What is wrong with a workload; None if nothing is."""
    try:
        async with asyncio.timeout(probe.timeout_s):
            if probe.path is None:
                await _connect(probe)
                return None
            return await _get(probe, probe.path, session)
    except TimeoutError:
        return f"no answer within {probe.timeout_s:g} s"
    except (OSError, UnicodeError, aiohttp.ClientError) as error:  # UnicodeError: of a bad name
        return str(error) or type(error).__name__


async def _connect(probe: Probe) -> None:
    _, writer = await asyncio.open_connection(probe.address, probe.port)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _get(probe: Probe, path: str, session: aiohttp.ClientSession) -> str | None:
    host = f"[{probe.address}]" if ":" in probe.address else probe.address
    url = f"http://{host}:{probe.port}{path}"
    headers = {"Connection": "close", "User-Agent": "zonedp-probe"}
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        return None if 200 <= response.status < 400 else f"{path} answered {response.status}"


@dataclass(frozen=True, slots=True, eq=False)
class ProbeCollector(Collector):
    prober: Prober

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "zonedp_inbound_ready", "1 while a probed inbound is ready.", labels=("inbound",)
        )
        for probe in self.prober.probes:
            ready.add_metric((probe.name,), int(bool(self.prober.health[probe.inbound].ready)))
        yield ready
        results = CounterMetricFamily(
            "zonedp_probes", "Probes by result.", labels=("inbound", "result")
        )
        for labels, count in sorted(self.prober.results.items()):
            results.add_metric(labels, count)
        yield results
