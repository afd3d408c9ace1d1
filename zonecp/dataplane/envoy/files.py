"""Configuration as JSON: files kept current for an Envoy that watches them, and for people.

Endpoints are part of their clusters: an Envoy that reads endpoints from files wants one file, and
one of the kernel's few watches, per cluster. What Envoy makes of a file it tells nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import json_format

from zonecp.dataplane.envoy import listeners
from zonecp.dataplane.envoy.bootstrap import CLUSTERS_FILE, LISTENERS_FILE
from zonecp.dataplane.envoy.compiler import Compiler, Shape
from zonecp.dataplane.envoy.store import CLUSTER, LISTENER, Ref, Resources
from zonecp.dataplane.outbounds import Outbound, Outbounds

log = structlog.get_logger(__name__)

SPACING_S: Final = 0.1
SPACING_FACTOR: Final = 20.0
"""At most 5 % of the time is spent writing."""

SLICE: Final = 8
"""Resources made into JSON between two turns of the loop: about 2 ms."""

_FILES: Final = {CLUSTER: CLUSTERS_FILE, LISTENER: LISTENERS_FILE}
"""In the order in which they are written: a listener comes after its cluster."""

_MESSAGES: Final[dict[str, Any]] = {
    CLUSTER: cluster_pb2.Cluster,
    LISTENER: listener_pb2.Listener,
}


class Files:
    """Keeps two files; `compiler` and `run` are components for `supervise`."""

    def __init__(self, directory: Path, outbounds: Outbounds, shape: Shape) -> None:
        assert shape.static
        self.writes = 0
        self.failures = 0
        self.trouble: str | None = None
        self._directory = directory
        self._resources = Resources()
        self.compiler = Compiler(outbounds, self._resources, shape)
        self._texts: dict[str, dict[str, str]] = {each: {} for each in _FILES}
        self._dirty: dict[Ref, None] = {}
        self._written: set[str] = set()
        self._changed = asyncio.Event()
        self._resources.listen(self._note)
        self.compiler.listen(lambda _: self._changed.set())

    def _note(self, ref: Ref) -> None:
        self._dirty[ref] = None

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._changed.wait()
            self._changed.clear()
            started_s = clock()
            await self._write()
            await asyncio.sleep(max(SPACING_S, SPACING_FACTOR * (clock() - started_s)))

    async def _write(self) -> None:
        changed = {ref.type_url for ref in self._dirty} | (_FILES.keys() - self._written)
        while self._dirty:
            for _ in range(min(SLICE, len(self._dirty))):
                self._render(next(iter(self._dirty)))
            await asyncio.sleep(0)
        for type_url, name in _FILES.items():
            if type_url not in changed:
                continue
            texts = [*self._texts[type_url].values()]
            try:
                await asyncio.to_thread(_replace, self._directory / name, self.writes, texts)
            except OSError as error:
                self.failures += 1
                self.trouble = f"envoy.configDir: {self._directory / name}: {error.strerror}"
                log.warning("envoy_files_not_written", error=self.trouble)
                self._written.discard(type_url)
                continue
            self._written.add(type_url)
            self.writes += 1
            self.trouble = None

    def _render(self, ref: Ref) -> None:
        del self._dirty[ref]
        resource = self._resources.get(ref)
        if resource is None:
            self._texts[ref.type_url].pop(ref.name, None)
        else:
            found = {"@type": ref.type_url, **as_json(ref.type_url, resource.payload)}
            self._texts[ref.type_url][ref.name] = json.dumps(found)


def as_json(type_url: str, payload: bytes) -> dict[str, Any]:
    message = _MESSAGES[type_url].FromString(payload)
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
    found: dict[str, Any] = json.loads(text)
    return found


def documents(
    outbounds: Iterable[Outbound], shape: Shape, inbounds: Iterable[listeners.Inbound]
) -> Mapping[str, list[dict[str, Any]]]:
    """All listeners and clusters of some outbounds, by type, as JSON."""
    store, resources = Outbounds(), Resources()
    compiler = Compiler(store, resources, shape)
    compiler.begin(inbounds)
    store.put([*outbounds])
    compiler.compile_all()
    return {
        type_url: [as_json(type_url, each.payload) for each in resources.of(type_url).values()]
        for type_url in _FILES
    }


def discovery(type_url: str, resources: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A file as Envoy watches it."""
    return {"resources": [{"@type": type_url, **each} for each in resources]}


def _replace(path: Path, version: int, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    head = f'{{"version_info": "{version}", "resources": [\n'
    temporary.write_text(head + ",\n".join(texts) + "\n]}\n")
    temporary.replace(path)  # Envoy reads it on the rename, and never half of it
