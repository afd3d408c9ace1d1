"""SIGTERM ends every process soon, with exit code 0, whatever its surroundings."""

from __future__ import annotations

import time

import pytest

from tests.e2e.mesh import AGENTS, PLANES, Mesh, eventually
from tests.patience import SLOWER

STOP_S = 5.0
"""The bound of a leader whose Redis is gone: it waits for its last entry's fate for a while."""


@pytest.mark.timeout(60)
def test_every_process_stops_when_asked(mesh: Mesh) -> None:
    mesh.start_all()
    mesh.registered("any")

    for name in (*AGENTS, *reversed(PLANES)):
        started_s = time.monotonic()
        assert mesh[name].stop() == 0, name
        took_s = time.monotonic() - started_s
        print(f"{name}: {took_s:.2f} s")
        assert took_s < SLOWER * 3.0, name


@pytest.mark.timeout(90)
def test_every_process_stops_when_redis_is_gone(mesh: Mesh) -> None:
    mesh.start()
    mesh.kill_redis()

    for name in PLANES:
        started_s = time.monotonic()
        assert mesh[name].stop() == 0, name
        took_s = time.monotonic() - started_s
        print(f"{name}: {took_s:.2f} s")
        assert took_s < SLOWER * STOP_S, name


@pytest.mark.timeout(60)
def test_every_process_stops_before_it_ever_met_redis(mesh: Mesh) -> None:
    for name in PLANES:
        mesh[name].start()
        eventually(lambda name=name: mesh.not_ready(name) != "it does not answer", 20, mesh, name)  # type: ignore[misc]
        assert mesh[name].stop() == 0, name
