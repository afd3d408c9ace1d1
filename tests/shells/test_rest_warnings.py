"""What is accepted and most likely not meant: said in the answer to PUT, or to a `_bulk` line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import FakeBackend, dataplane, mesh_service, rest_client, with_mesh
from zonemesh.errors import ConflictError
from zonemesh.model import Key
from zonemesh.rest.writing import WARNINGS_MAX

ITEM = "/meshes/default/meshservices/redis"
EVERY = "every MeshService of every mesh"
OUTSIDE = "does not end in .mesh.local or .mesh and hides an outside name from data planes"
KEY = Key("default", "west", "", "redis")


def zone() -> FakeBackend:
    return with_mesh(FakeBackend())


def odd(*numbers: int) -> dict[str, Any]:
    """A MeshService with ports that Kuma takes, whatever their numbers."""
    document = mesh_service()
    ports = [{"port": number, "targetPort": 80} for number in numbers]
    return document | {"spec": document["spec"] | {"ports": ports}}


async def test_a_put_is_made_and_answered_with_warnings() -> None:
    backend = zone()
    async with rest_client(backend) as client:
        created = await client.put(ITEM, json=odd(0))
        replaced = await client.put(ITEM, json=odd(80, 80))

        assert (created.status, replaced.status) == (201, 200)
        assert await created.text() == (
            '{\n "warnings": [\n'
            '  "spec.ports[0].port: 0 is not a port (1-65535) and is not served"\n ]\n}\n'
        )
        assert await replaced.json() == {
            "warnings": [
                "spec.ports[1].port: 80 is defined more than once; only the first is served"
            ]
        }
        assert replaced.headers["X-Zonemesh-Position"] == "1-2"
    assert [port["port"] for port in backend.records["MeshService", KEY].spec["ports"]] == [80, 80]


async def test_a_delete_has_nothing_to_warn_of() -> None:
    async with rest_client(zone()) as client:
        await client.put(ITEM, json=odd(0))
        answer = await client.delete(ITEM)

        assert (answer.status, await answer.text()) == (200, "{}\n")


async def test_what_is_refused_has_faults_and_no_warnings() -> None:
    document = odd(0)
    document["spec"]["state"] = "Gone"
    async with rest_client(zone()) as client:
        answer = await client.put(ITEM, json=document)
        body = await answer.json()

    assert answer.status == 400
    assert [each["field"] for each in body["invalid_parameters"]] == ["spec.state"]
    assert "warnings" not in body


@pytest.mark.parametrize("more, last", [(0, "spec.ports["), (1, "and 1 more"), (5, "and 5 more")])
async def test_a_document_full_of_oddities_does_not_fill_the_answer(more: int, last: str) -> None:
    async with rest_client(zone()) as client:
        answer = await client.put(ITEM, json=odd(*[0] * (WARNINGS_MAX + more)))
        warnings = (await answer.json())["warnings"]

    assert len(warnings) == WARNINGS_MAX + bool(more)
    assert warnings[-1].startswith(last)


async def test_warnings_stand_beside_the_results_of_their_lines() -> None:
    backend = zone()
    backend.refuse = lambda item: ConflictError("taken") if item.key.name == "no" else None
    lines = [dataplane(), odd(0), odd(0) | {"name": "no"}, odd(80)]
    async with rest_client(backend) as client:
        answer = await client.post("/_bulk", data="\n".join(map(json.dumps, lines)))
        results = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert [result["status"] for result in results] == [201, 201, 409, 200]
    assert results[1]["warnings"] == [
        "spec.ports[0].port: 0 is not a port (1-65535) and is not served"
    ]
    assert [number for number, result in enumerate(results) if "warnings" in result] == [1]


@pytest.mark.parametrize(
    "path, document, warning",
    [
        (
            "/hostnamegenerators/one",
            {
                "type": "HostnameGenerator",
                "name": "one",
                "spec": {"selector": {"meshService": {}}, "template": "{{ .Name }}.mesh"},
            },
            f"spec.selector.meshService: no matchLabels, so {EVERY} is selected",
        ),
        (
            "/zone-ingresses/one",
            {"type": "ZoneIngress", "name": "one", "networking": {"port": 10_001}},
            "networking.advertisedAddress: none, so other zones do not use this ingress",
        ),
        (
            "/meshes/default/virtual-outbounds/one",
            {
                "type": "VirtualOutbound",
                "mesh": "default",
                "name": "one",
                "selectors": [{"match": {"kuma.io/service": "*"}}],
                "conf": {
                    "host": "{{.svc}}.com",
                    "port": "80",
                    "parameters": [{"name": "svc", "tagKey": "kuma.io/service"}],
                },
            },
            f'conf.host: "dummy.com" {OUTSIDE}',
        ),
    ],
)
async def test_kinds_answer_in_their_own_words(
    path: str, document: dict[str, Any], warning: str
) -> None:
    backend = zone()
    async with rest_client(backend) as client:
        answer = await client.put(path, json=document)
        shown = await (await client.get(path)).json()

        assert (answer.status, await answer.json()) == (201, {"warnings": [warning]})
    assert {field: shown[field] for field in document} == document
