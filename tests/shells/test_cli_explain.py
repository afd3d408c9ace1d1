"""What `zonemesh explain` tells of a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.commands import run, serving


def test_a_plane_that_explains_nothing_is_told_apart(url: str) -> None:
    result = run(url, "explain", "redis.svc.mesh.local")

    assert result.exit_code == 2
    assert "explains no names: give --url of a zone's control plane" in result.stderr


ANSWER: dict[str, Any] = {
    "mesh": "default",
    "zone": "west",
    "name": "x.shared",
    "resolves": False,
    "verdict": "NoAddress",
    "why": "MeshService b of zone east holds it and has no address yet: zone east binds it",
    "vips": [],
    "ttl": None,
    "candidates": [
        {
            "kind": "MeshService",
            "name": "b",
            "zone": "east",
            "generator": "shared",
            "template": "x.shared",
            "holds": True,
            "why": "",
            "endpoints": {"total": 2, "ready": 1},
        },
        {
            "kind": "MeshExternalService",
            "name": "a",
            "zone": "",
            "generator": "later",
            "template": "x.shared",
            "holds": False,
            "why": "MeshService b of zone east has it: its generator shared is older",
            "endpoints": {"total": 0, "ready": 0},
        },
        {
            "kind": "Legacy",
            "name": "x",
            "zone": "",
            "service": "default//service/x",
            "generator": "",
            "template": "",
            "holds": False,
            "why": "MeshService b of zone east has it: generators go first",
            "endpoints": {"total": 1, "ready": 1},
        },
    ],
    "failures": [
        {"kind": "MeshService", "name": "b", "zone": "east", "generator": "g", "message": "no"}
    ],
    "near": [{"kind": "MeshService", "name": "y", "zone": "west", "names": []}],
    "zones": {"east": {"state": "Offline", "silent_s": 61.0}},
    "dataplane": {"name": "shop-1", "known": False, "trimmed": False, "why": "all get all"},
    "warnings": ["zone east is offline"],
    "lag_s": 1.25,
}


def explaining(asked: list[tuple[str, str]], document: dict[str, Any]) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        asked.append((request.match_info["mesh"], request.query_string))
        return web.json_response(document)

    app = web.Application()
    app.router.add_get("/meshes/{mesh}/_explain", answer)
    return app


def test_an_explanation_is_told_in_lines() -> None:
    asked: list[tuple[str, str]] = []
    with serving(explaining(asked, ANSWER)) as url:
        result = run(url, "explain", "x.shared", "--dataplane", "shop-1", "-m", "some")

    assert asked == [("some", "name=x.shared&dataplane=shop-1")]
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "x.shared does not resolve in zone west, mesh default.",
        "  MeshService b of zone east holds it and has no address yet: zone east binds it",
        "",
        "Warnings:",
        "  zone east is offline",
        "",
        "Who wants it:",
        "  MeshService b (zone east, offline): holds it",
        "    generator shared: x.shared",
        "    endpoints: 1 ready of 2",
        "  MeshExternalService a (global): lost",
        "    generator later: x.shared",
        "    MeshService b of zone east has it: its generator shared is older",
        "  service x (legacy, any zone): lost",
        "    MeshService b of zone east has it: generators go first",
        "",
        "Generators that failed:",
        "  g on MeshService b (zone east):",
        "    no",
        "",
        "Services called nearly so:",
        "  MeshService y (zone west)",
        "    no name here",
        "",
        "Data plane:",
        "  shop-1 is not registered in this zone",
        "  not trimmed: all get all",
        "",
        "What zone west knows of others is 1.2 s old.",
    ]


@pytest.mark.parametrize("form, load", [("json", json.loads), ("yaml", yaml.safe_load)])
def test_an_explanation_for_programs(form: str, load: Callable[[str], Any]) -> None:
    with serving(explaining([], ANSWER | {"resolves": True})) as url:
        result = run(url, "explain", "x.shared", "-o", form)

    assert result.exit_code == 0
    assert load(result.stdout) == ANSWER | {"resolves": True}
