"""The operator's commands, run against a control plane in a dict."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from tests.builders import FakeBackend, dataplane, mesh_service
from zonemesh.cli.main import cli
from zonemesh.model import Key
from zonemesh.resources import catalogue
from zonemesh.rest.routes import make_app

GLOBAL: dict[str, Any] = {
    "cursor": "8c1f.3-120",
    "digest": "0" * 16 + "f" * 16,
    "records": {"MeshService": 3},
    "lag_s": 0.4,
    "leader": False,
    "leader_url": "http://g2:5681",
    "resyncs": {"gap": 2},
    "halted": None,
    "version": "0.1.0",
    "ready": None,
    "blocked_s": None,
    "shortages": [{"pool": "MeshService", "zone": "west", "why": "no block left"}],
    "pools": {
        "MeshService": {"west": {"used": 9, "quarantined": 1, "free": 2, "waiting": 4, "blocks": 1}}
    },
    "zones": {
        "west": {
            "online": False,
            "enabled": True,
            "lagSeconds": 7300.0,
            "zoneLagSeconds": None,
            "records": 5,
            "rejectedRecords": 1,
            "bindingConflicts": 2,
            "version": "0.1.0",
        }
    },
}
"""What a global says of itself at /_state."""


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """An application on a loop of its own: the commands under test block theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TestServer(app)
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(10)
        yield str(server.make_url("")).rstrip("/")
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def app_of(backend: FakeBackend) -> web.Application:
    return make_app(backend, catalogue=catalogue.KINDS, config_dump={}, version="0.1.0")


def run(url: str, *arguments: str, stdin: str = "", **env: str) -> Result:
    return CliRunner(env={"COLUMNS": "", **env}).invoke(
        cli, [*arguments, "--url", url], input=stdin, catch_exceptions=False
    )


def add_dataplane(backend: FakeBackend, name: str, **networking: Any) -> None:
    spec = {"networking": {**dataplane(name)["networking"], **networking}}
    backend.add("Dataplane", Key("default", "west", "", name), spec)


def add_service(backend: FakeBackend, name: str, status: dict[str, Any] | None = None) -> None:
    key = Key("default", "west", "", name)
    backend.add("MeshService", key, mesh_service(name)["spec"] | {"state": "Available"})
    backend.statuses[key] = status or {}


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]
