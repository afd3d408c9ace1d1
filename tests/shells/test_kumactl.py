"""What kumactl 2.14 sends for each of its verbs, and what it must get: to the byte where it reads
so, by status where it reads only that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from globalcp.backend import zone_insight
from globalcp.quota import Quota, Use
from tests.builders import NOW_MS, FakeBackend, dataplane, mesh_service, rest_client, with_mesh
from zonemesh.agents import AgentNote
from zonemesh.model import Key
from zonemesh.seen import Seen

HEADERS = {
    "Accept": "application/json",
    "User-Agent": "kumactl/2.14.3 (linux; amd64)",
}
ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Go writes for a time that was never set."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of kumactl, and its answer."""

    verb: str
    """What the user types."""
    method: str = "GET"
    path: str
    body: dict[str, Any] | None = None
    status: int = 200
    text: str | None = None
    """The whole answer, where the test compares it."""


def named(call: Call) -> str:
    return call.verb


async def send(client: TestClient[Any, Any], call: Call) -> tuple[int, str]:
    headers = HEADERS | ({"Content-Type": "application/json"} if call.body is not None else {})
    data = None if call.body is None else json.dumps(call.body)
    answer = await client.request(call.method, call.path, data=data, headers=headers)

    assert answer.content_type == "application/json"
    return answer.status, await answer.text()


def zone_west() -> FakeBackend:
    """A zone that follows a global, with a service and an instance."""
    backend = with_mesh(FakeBackend(federated=True))
    spec = mesh_service()["spec"] | {"state": "Unavailable"}
    backend.add("MeshService", Key("default", "west", "", "redis"), spec, team="data")
    key = Key("default", "west", "", "redis-01")
    backend.add("Dataplane", key, {"networking": dataplane()["networking"]}, app="redis")
    backend.agents[key.packed] = AgentNote(
        since_ms=NOW_MS, until_ms=None, agent="agent-1", version="0.1.0"
    )
    return backend


def global_plane() -> FakeBackend:
    """Global with an online zone, a disabled one, and one that was never heard of."""
    backend = with_mesh(FakeBackend(on_global=True, zone=""))
    backend.add("Zone", Key("", "", "", "east"), {"enabled": False})
    backend.add("Zone", Key("", "", "", "north"), {})
    backend.add("Zone", Key("", "", "", "west"), {"enabled": True})
    backend.insights["west"] = {
        "subscriptions": [{"id": "1", "connectTime": "2026-01-01T00:00:00Z"}]
    }
    return backend


REDIS = """{
 "type": "MeshService",
 "mesh": "default",
 "name": "redis",
 "creationTime": "2026-09-21T14:13:20Z",
 "modificationTime": "2026-09-21T14:13:20.5Z",
 "labels": {
  "team": "data",
  "kuma.io/display-name": "redis",
  "kuma.io/origin": "zone",
  "kuma.io/mesh": "default",
  "kuma.io/zone": "west",
  "kuma.io/env": "universal"
 },
 "kri": "kri_msvc_default_west__redis_",
 "snis": [
  {
   "port": 6379,
   "sni": "sni.msvc.default.west.redis.6379"
  }
 ],
 "spec": {
  "selector": {
   "dataplaneLabels": {
    "matchLabels": {
     "app": "redis"
    }
   }
  },
  "ports": [
   {
    "port": 6379,
    "targetPort": 6379
   }
  ],
  "state": "Unavailable"
 },
 "status": {}
}
"""

MESH = """{
 "type": "Mesh",
 "name": "default",
 "creationTime": "2026-09-21T14:13:20Z",
 "modificationTime": "2026-09-21T14:13:20.5Z",
 "labels": {
  "kuma.io/display-name": "default",
  "kuma.io/origin": "global"
 },
 "kri": "kri_m____default_"
}
"""


def indented(text: str, by: int = 2) -> str:
    """An answer as an element of a list."""
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines()).rstrip("\n")


def page(*items: str, total: int) -> str:
    listed = ",\n".join(map(indented, items))
    return f'{{\n "total": {total},\n "items": [\n{listed}\n ],\n "next": null\n}}\n'


def missing(title: str) -> str:
    return (
        '{\n "type": "/std-errors",\n "status": 404,\n'
        f' "title": "{title}",\n "detail": "Not found",\n "details": "Not found"\n}}\n'
    )


NO_ITEMS = '{\n "total": 0,\n "items": [],\n "next": null\n}\n'
NOT_THERE = missing("Could not retrieve a resource")


@pytest.mark.parametrize(
    "call",
    [
        Call(
            verb="get meshservice redis",
            path="/meshes/default/meshservices/redis",
            text=REDIS,
        ),
        Call(
            verb="get meshservices",
            path="/meshes/default/meshservices",
            text=page(REDIS, total=1),
        ),
        Call(
            verb="get meshservices --size 10 --offset 0",
            path="/meshes/default/meshservices?size=10&offset=0",
            text=page(REDIS, total=1),
        ),
        Call(verb="get mesh default", path="/meshes/default", text=MESH),
        Call(verb="get meshes", path="/meshes", text=page(MESH, total=1)),
        Call(
            verb="get meshservice none",
            path="/meshes/default/meshservices/none",
            status=404,
            text=NOT_THERE,
        ),
        Call(
            verb="get dataplane none",
            path="/meshes/default/dataplanes/none",
            status=404,
            text=NOT_THERE,
        ),
        Call(
            verb="get meshservices -m none",
            path="/meshes/none/meshservices",
            status=404,
            text=missing("Failed to retrieve Mesh"),
        ),
        Call(verb="get hostnamegenerators", path="/hostnamegenerators", text=NO_ITEMS),
        Call(
            verb="delete meshservice redis",
            method="DELETE",
            path="/meshes/default/meshservices/redis",
            text="{}\n",
        ),
        Call(
            verb="delete meshservice none",
            method="DELETE",
            path="/meshes/default/meshservices/none",
            status=404,
            text=missing("Could not delete a resource"),
        ),
        Call(
            verb="get dataplanes --size 2000",
            path="/meshes/default/dataplanes?size=2000",
            status=400,
            text="""{
 "type": "/std-errors",
 "status": 400,
 "title": "Could not retrieve resources",
 "detail": "Invalid page size",
 "invalid_parameters": [
  {
   "field": "size",
   "reason": "invalid page size of 2000. Maximum page size is 1000"
  }
 ],
 "details": "Invalid page size",
 "causes": [
  {
   "field": "size",
   "message": "invalid page size of 2000. Maximum page size is 1000"
  }
 ]
}
""",
        ),
        Call(
            verb="delete mesh default",
            method="DELETE",
            path="/meshes/default",
            status=405,
            text="""{
 "type": "/std-errors",
 "status": 405,
 "title": "Method not allowed",
 "detail": "Mesh can be changed on the global control plane only",
 "details": "Mesh can be changed on the global control plane only"
}
""",
        ),
        Call(
            verb="inspect dataplanes",
            path="/meshes/default/dataplanes/_overview",
            text="""{
 "total": 1,
 "items": [
  {
   "type": "DataplaneOverview",
   "mesh": "default",
   "name": "redis-01",
   "creationTime": "2026-09-21T14:13:20Z",
   "modificationTime": "2026-09-21T14:13:20.5Z",
   "labels": {
    "app": "redis",
    "kuma.io/display-name": "redis-01",
    "kuma.io/origin": "zone",
    "kuma.io/mesh": "default",
    "kuma.io/zone": "west",
    "kuma.io/env": "universal"
   },
   "dataplane": {
    "networking": {
     "address": "10.0.0.1",
     "inbound": [
      {
       "port": 6379,
       "name": "main"
      }
     ]
    }
   },
   "dataplaneInsight": {
    "subscriptions": [
     {
      "id": "agent-1",
      "connectTime": "2026-09-21T14:13:20Z",
      "status": {
       "lastUpdateTime": "2026-09-21T14:13:20Z",
       "total": {},
       "cds": {},
       "eds": {},
       "lds": {},
       "rds": {}
      },
      "version": {
       "kumaDp": {
        "version": "0.1.0",
        "kumaCpCompatible": true
       }
      }
     }
    ]
   }
  }
 ],
 "next": null
}
""",
        ),
        Call(
            verb="inspect dataplanes --gateway",
            path="/meshes/default/dataplanes/_overview?gateway=true",
            text=NO_ITEMS,
        ),
        Call(
            verb="inspect dataplanes --tag kuma.io/service=web",
            path="/meshes/default/dataplanes/_overview?gateway=false&tag=kuma.io%2Fservice%3Aweb",
            text=NO_ITEMS,
        ),
    ],
    ids=named,
)
async def test_a_zone_answers_kumactl(call: Call) -> None:
    async with rest_client(zone_west()) as client:
        status, text = await send(client, call)

    assert status == call.status
    assert text == call.text


META = """ "name": "{name}",
 "creationTime": "2026-09-21T14:13:20Z",
 "modificationTime": "2026-09-21T14:13:20.5Z",
"""


def overview(name: str, rest: str) -> str:
    return '{\n "type": "ZoneOverview",\n' + META.format(name=name) + rest + "}\n"


@pytest.mark.parametrize(
    "call",
    [
        Call(
            verb="inspect zones",
            path="/zones/_overview",
            text=page(
                overview("east", ' "zone": {\n  "enabled": false\n }\n'),
                overview("north", ' "zone": {\n  "enabled": true\n }\n'),
                overview(
                    "west",
                    ' "zone": {\n  "enabled": true\n },\n "zoneInsight": {\n'
                    '  "subscriptions": [\n   {\n    "id": "1",\n'
                    '    "connectTime": "2026-01-01T00:00:00Z"\n   }\n  ]\n }\n',
                ),
                total=3,
            ),
        ),
        Call(
            verb="apply meshservice",
            method="PUT",
            path="/meshes/default/meshservices/redis",
            body=mesh_service(),
            status=405,
            text="""{
 "type": "/std-errors",
 "status": 405,
 "title": "Method not allowed",
 "detail": "MeshService can be changed on a zone control plane only",
 "details": "MeshService can be changed on a zone control plane only"
}
""",
        ),
        Call(verb="delete zone north", method="DELETE", path="/zones/north", text="{}\n"),
        Call(
            verb="delete zone west",
            method="DELETE",
            path="/zones/west",
            status=400,
            text="""{
 "type": "/std-errors",
 "status": 400,
 "title": "Could not delete a resource",
 "detail": "Resource is not valid",
 "invalid_parameters": [
  {
   "field": "zone",
   "reason": "unable to delete Zone, Zone CP is still connected, please shut it down first"
  }
 ],
 "details": "Resource is not valid",
 "causes": [
  {
   "field": "zone",
   "message": "unable to delete Zone, Zone CP is still connected, please shut it down first"
  }
 ]
}
""",
        ),
        Call(
            verb="apply mesh",
            method="PUT",
            path="/meshes/other",
            body={
                "type": "Mesh",
                "name": "other",
                "creationTime": ZERO_TIME,
                "modificationTime": ZERO_TIME,
            },
            status=201,
            text="{}\n",
        ),
    ],
    ids=named,
)
async def test_global_answers_kumactl(call: Call) -> None:
    async with rest_client(global_plane()) as client:
        status, text = await send(client, call)

    assert status == call.status
    assert text == call.text


SENT_BY_GO = {
    "creationTime": ZERO_TIME,
    "modificationTime": ZERO_TIME,
    "kri": "kri_msvc_default___redis_",
    "snis": [{"port": 6379, "sni": "sni.msvc.default.redis.6379"}],
    "status": {},
}


@pytest.mark.parametrize(
    "path, document",
    [
        ("/meshes/default/meshservices/web", mesh_service("web") | SENT_BY_GO),
        (
            "/meshes/default/dataplanes/web-01",
            dataplane("web-01") | {"creationTime": ZERO_TIME, "modificationTime": ZERO_TIME},
        ),
    ],
    ids=["meshservice", "dataplane"],
)
async def test_apply_reads_then_writes_and_says_what_it_did(
    path: str, document: dict[str, Any]
) -> None:
    """`Created` or `Updated` follow from the first request; both statuses of a PUT will do."""
    write = Call(verb="apply", method="PUT", path=path, body=document)
    async with rest_client(zone_west()) as client:
        before = await send(client, Call(verb="apply", path=path))
        created = await send(client, write)
        after = await send(client, Call(verb="apply", path=path))
        updated = await send(client, write)

    assert before == (404, NOT_THERE)
    assert created == (201, "{}\n")
    assert after[0] == 200
    assert json.loads(after[1])["creationTime"] == "2026-09-21T14:13:20Z"
    assert updated == (200, "{}\n")


@pytest.mark.parametrize(
    "path", ["/meshes/default/meshservices/redis", "/meshes/default/dataplanes/redis-01"]
)
async def test_what_was_got_can_be_applied_as_it_is(path: str) -> None:
    backend = zone_west()
    async with rest_client(backend) as client:
        _, before = await send(client, Call(verb="get -o json", path=path))
        written = await send(
            client, Call(verb="apply", method="PUT", path=path, body=json.loads(before))
        )
        _, after = await send(client, Call(verb="get -o json", path=path))

    assert written == (200, "{}\n")
    old, new = json.loads(before), json.loads(after)
    assert old.pop("modificationTime") != new.pop("modificationTime")
    spec = new.get("spec", new)
    for port in spec.get("ports", ()):
        assert port.pop("appProtocol") == "tcp"
    assert new == old


async def test_a_fault_has_a_line_for_each_parameter() -> None:
    body = mesh_service() | {"name": "other"}
    call = Call(verb="apply", method="PUT", path="/meshes/default/meshservices/redis", body=body)
    async with rest_client(zone_west()) as client:
        status, text = await send(client, call)

    assert status == 400
    assert (
        text
        == """{
 "type": "/std-errors",
 "status": 400,
 "title": "Could not process a resource",
 "detail": "Resource is not valid",
 "invalid_parameters": [
  {
   "field": "name",
   "reason": "name from the URL has to be the same as in body"
  }
 ],
 "details": "Resource is not valid",
 "causes": [
  {
   "field": "name",
   "message": "name from the URL has to be the same as in body"
  }
 ]
}
"""
    )


async def test_the_link_to_the_next_page_is_an_absolute_url_with_the_next_offset() -> None:
    """Kumactl prints `Rerun command with --offset=2` from it."""
    backend = zone_west()
    for name in ("a", "b"):
        backend.add("MeshService", Key("default", "west", "", name), {})
    path = "/meshes/default/meshservices"
    async with rest_client(backend) as client:
        call = Call(verb="get --size 2", path=f"{path}?size=2")
        _, text = await send(client, call)
        url = str(client.make_url(path))

    assert text.endswith(f' ],\n "next": "{url}?size=2&offset=2"\n}}\n')
    assert json.loads(text)["total"] == 3


async def test_adding_a_control_plane_finds_kuma_of_its_own_version() -> None:
    async with rest_client(zone_west()) as client:
        status, text = await send(client, Call(verb="config control-planes add", path="/"))

    index = json.loads(text)
    assert status == 200
    assert (index["product"], index["version"]) == ("Kuma", "2.14.3")


async def test_inspect_meshes_reads_every_section_of_every_item() -> None:
    """A section that is not there ends kumactl with a panic."""
    backend = global_plane()
    backend.add("Mesh", Key("", "", "", "empty"), {})
    async with rest_client(backend) as client:
        status, text = await send(client, Call(verb="inspect meshes", path="/mesh-insights"))

    items = json.loads(text)["items"]
    assert (status, len(items)) == (200, 2)
    for item in items:
        assert {*item} >= {"dataplanes", "policies", "services", "mTLS", "dpVersions", "resources"}
        assert {*item["dataplanes"]} >= {"total", "online", "offline"}


@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
async def test_inspect_zones_finds_each_of_its_columns(online: bool) -> None:
    """Read from what global really says of a zone; its 64-bit counters are strings."""
    seen = Seen(
        uid="uid-1",
        last_ms=0,
        online=online,
        connected_ms=NOW_MS,
        disconnected_ms=None if online else NOW_MS + 9_000,
        updated_ms=NOW_MS + 5_000,
        records=2**40,
        rejected=3,
        conflicts=4,
        version="0.1.0",
    )
    backend = global_plane()
    backend.insights["west"] = zone_insight(
        "west", seen, 0.0, effects={}, use=Use(Quota(10, 1 << 20), 0, 0)
    )
    async with rest_client(backend) as client:
        call = Call(verb="inspect zones", path="/zones/_overview?name=west")
        _, text = await send(client, call)

    (item,) = json.loads(text)["items"]
    (subscription,) = item["zoneInsight"]["subscriptions"]
    assert subscription["connectTime"] == "2026-09-21T14:13:20Z"
    assert ("disconnectTime" in subscription) is not online
    assert subscription["status"]["lastUpdateTime"] == "2026-09-21T14:13:25Z"
    assert subscription["status"]["total"]["responsesSent"] == "1099511627776"
    assert subscription["status"]["total"]["responsesRejected"] == "7"
    assert subscription["version"]["kumaCp"]["version"] == "0.1.0"
    assert json.loads(subscription["config"])["store"]["type"] == "log"


async def test_export_reads_the_first_page_of_each_kind_that_is_federated() -> None:
    async with rest_client(global_plane()) as client:
        _, text = await send(client, Call(verb="export", path="/_resources"))
        kinds = [kind for kind in json.loads(text)["resources"] if kind["includeInFederation"]]
        for kind in kinds:
            inside = "/meshes/default" if kind["scope"] == "Mesh" else ""
            status, text = await send(
                client, Call(verb="export", path=f"{inside}/{kind['path']}?size=100")
            )

            assert status == 200
            assert isinstance(json.loads(text)["items"], list)

    assert {"Mesh", "HostnameGenerator"} <= {kind["name"] for kind in kinds}
    assert not [kind["name"] for kind in kinds if kind["name"].endswith("Insight")]


async def test_export_for_kubernetes_reads_each_item_as_an_object_of_kubernetes() -> None:
    async with rest_client(zone_west()) as client:
        call = Call(verb="export", path="/meshes/default/meshservices/redis?format=kubernetes")
        status, text = await send(client, call)

    shown = json.loads(text)
    assert status == 200
    assert (shown["apiVersion"], shown["kind"]) == ("kuma.io/v1alpha1", "MeshService")
    assert shown["metadata"]["name"] == "redis"


@pytest.mark.parametrize("path", ["/versions", "/tokens/dataplane", "/tokens/zone"])
async def test_what_is_not_offered_says_so_in_kumas_words(path: str) -> None:
    async with rest_client(zone_west()) as client:
        call = Call(verb="generate", method="POST", path=path, body={})
        status, text = await send(client, call)

    assert status in (404, 405)
    assert json.loads(text)["type"] == "/std-errors"
