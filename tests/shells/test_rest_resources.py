"""Single resources over HTTP: shapes, names, write rules, errors."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.builders import FakeBackend, dataplane, mesh_service, rest_client, with_mesh
from tests.fake_zone import until
from zonemesh import names
from zonemesh.errors import PoolExhaustedError, UnavailableError
from zonemesh.model import Key

ITEM = "/meshes/default/meshservices/redis"


def zone_west(**options: Any) -> FakeBackend:
    return with_mesh(FakeBackend(**options))


def global_plane() -> FakeBackend:
    return with_mesh(FakeBackend(on_global=True, zone=""))


async def test_a_put_creates_then_replaces() -> None:
    async with rest_client(zone_west()) as client:
        created = await client.put(ITEM, json=mesh_service())
        replaced = await client.put(ITEM, json=mesh_service())

        assert (created.status, await created.text()) == (201, "{}\n")
        assert (replaced.status, await replaced.text()) == (200, "{}\n")
        assert created.headers["X-Zonemesh-Position"] == "1-1"


async def test_a_resource_is_read_in_kumas_shape_and_order() -> None:
    backend = zone_west()
    backend.add(
        "MeshService",
        Key("default", "west", "", "redis"),
        {"ports": [{"port": 6379, "name": "main"}, {"port": 6380}]},
        app="redis",
    )
    backend.statuses[Key("default", "west", "", "redis")] = {"vips": [{"ip": "241.0.0.1"}]}
    async with rest_client(backend) as client:
        text = await (await client.get(ITEM)).text()

    assert text.endswith("}\n")
    assert text.startswith('{\n "type": "MeshService",\n "mesh": "default",\n "name": "redis",\n')
    assert list(json.loads(text).items()) == [
        ("type", "MeshService"),
        ("mesh", "default"),
        ("name", "redis"),
        ("creationTime", "2026-09-21T14:13:20Z"),
        ("modificationTime", "2026-09-21T14:13:20.5Z"),
        (
            "labels",
            {
                "app": "redis",
                "kuma.io/display-name": "redis",
                "kuma.io/origin": "zone",
                "kuma.io/mesh": "default",
                "kuma.io/zone": "west",
                "kuma.io/env": "universal",
            },
        ),
        ("kri", "kri_msvc_default_west__redis_"),
        (
            "snis",
            [
                {"port": 6379, "sni": "sni.msvc.default.west.redis.main"},
                {"port": 6380, "sni": "sni.msvc.default.west.redis.6380"},
            ],
        ),
        ("spec", {"ports": [{"port": 6379, "name": "main"}, {"port": 6380}]}),
        ("status", {"vips": [{"ip": "241.0.0.1"}]}),
    ]


async def test_a_flat_kind_has_its_spec_beside_the_metadata() -> None:
    async with rest_client(zone_west()) as client:
        await client.put("/meshes/default/dataplanes/redis-01", json=dataplane())
        shown = await (await client.get("/meshes/default/dataplanes/redis-01")).json()

    assert "spec" not in shown
    assert "status" not in shown
    assert shown["networking"] == dataplane()["networking"]


async def test_what_the_server_computes_is_ignored_in_a_body() -> None:
    backend = zone_west()
    computed = {
        "creationTime": "0001-01-01T00:00:00Z",
        "modificationTime": "0001-01-01T00:00:00Z",
        "kri": "kri_x",
        "snis": [],
        "status": {"vips": [{"ip": "1.2.3.4"}]},
    }
    async with rest_client(backend) as client:
        answer = await client.put(ITEM, json=mesh_service() | computed)
        flat = await client.put("/meshes/default/dataplanes/redis-01", json=dataplane() | computed)

    assert (answer.status, flat.status) == (201, 201)
    record = backend.records["Dataplane", Key("default", "west", "", "redis-01")]
    assert set(record.spec) == {"networking"}


async def test_computed_labels_are_not_stored() -> None:
    backend = zone_west()
    body = mesh_service(
        **{"kuma.io/origin": "zone", "kuma.io/zone": "west", "kuma.io/mesh": "default", "a": "b"}
    )
    async with rest_client(backend) as client:
        await client.put(ITEM, json=body)

    assert backend.records["MeshService", Key("default", "west", "", "redis")].labels == {"a": "b"}


async def test_a_yaml_body_is_understood() -> None:
    body = "type: MeshService\nmesh: default\nname: redis\nspec:\n  ports: [{port: 6379}]\n"
    backend = zone_west()
    async with rest_client(backend) as client:
        answer = await client.put(
            ITEM, data=body, headers={"Content-Type": "application/yaml; charset=utf-8"}
        )

    assert answer.status == 201
    record = backend.records["MeshService", Key("default", "west", "", "redis")]
    assert record.spec["ports"][0]["port"] == 6379


async def test_yaml_aliases_that_multiply_are_refused() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    async with rest_client(zone_west()) as client:
        answer = await client.put(
            ITEM, data="\n".join(levels), headers={"Content-Type": "application/yaml"}
        )

        assert answer.status == 400
        assert "200000 values" in (await answer.json())["detail"]


async def test_delete_removes_once() -> None:
    async with rest_client(zone_west()) as client:
        await client.put(ITEM, json=mesh_service())
        first = await client.delete(ITEM)
        second = await client.delete(ITEM)

        assert (first.status, await first.text()) == (200, "{}\n")
        assert second.status == 404
        assert await second.json() == {
            "type": "/std-errors",
            "status": 404,
            "title": "Could not delete a resource",
            "detail": "Not found",
            "details": "Not found",
        }


@pytest.mark.parametrize(
    "changed",
    [{"name": "other"}, {"type": "Dataplane"}, {"mesh": "other"}],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_body_that_disagrees_with_its_url_is_refused(changed: dict[str, str]) -> None:
    (field,) = changed
    reason = f"{field} from the URL has to be the same as in body"
    async with rest_client(zone_west()) as client:
        answer = await client.put(ITEM, json=mesh_service() | changed)

        assert answer.status == 400
        assert await answer.json() == {
            "type": "/std-errors",
            "status": 400,
            "title": "Could not process a resource",
            "detail": "Resource is not valid",
            "invalid_parameters": [{"field": field, "reason": reason}],
            "details": "Resource is not valid",
            "causes": [{"field": field, "message": reason}],
        }


async def test_every_fault_of_a_document_is_reported_at_once() -> None:
    body = mesh_service(**{"kuma.io/mesh": "other"}) | {"name": "other"}
    body["spec"]["ports"][0]["port"] = "70000"
    async with rest_client(zone_west()) as client:
        answer = await (await client.put(ITEM, json=body)).json()

    fields = [fault["field"] for fault in answer["invalid_parameters"]]
    assert fields == ["name", 'labels["kuma.io/mesh"]', "spec.ports[0].port"]


@pytest.mark.parametrize("value", ["drop", "withdraw", "withdraw-5"])
async def test_a_policy_for_lost_zones_that_is_none_is_refused(value: str) -> None:
    label = "zonemesh.io/lost-zone-policy"
    mesh = {"type": "Mesh", "name": "default", "labels": {label: value}}
    async with rest_client(zone_west()) as zone, rest_client(global_plane()) as plane:
        answers = [
            await zone.put(ITEM, json=mesh_service(**{label: value})),
            await plane.put("/meshes/default", json=mesh),
        ]
        faults = [(await answer.json())["invalid_parameters"] for answer in answers]
        kept = await plane.put("/meshes/default", json=mesh | {"labels": {label: "withdraw-5m"}})
        read = await (await plane.get("/meshes/default")).json()

    assert [answer.status for answer in answers] == [400, 400]
    for (fault,) in faults:
        assert fault["field"] == f'labels["{label}"]'
        assert f"'{value}' is no policy: must be keep, unavailable or" in fault["reason"]
    assert kept.status == 200
    assert read["labels"][label] == "withdraw-5m"


@pytest.mark.parametrize(
    "body", ["{", "[]", '{"spec": 1}', '{"a": 1e999}', "[" * 100_000, '{"a":%s}' % ("9" * 30)]
)
async def test_what_is_not_a_document_is_a_bad_request(body: str) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.put(ITEM, data=body)

        assert answer.status == 400
        assert (await answer.json())["title"] == "Bad Request"


async def test_a_document_of_more_than_a_mebibyte_is_refused() -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.put(ITEM, data=BytesIO(b" " * (1024 * 1024 + 1)))

        assert answer.status == 413
        assert (await answer.json())["status"] == 413


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_while_not_all_is_known_nothing_is_said_not_to_be_there(method: str) -> None:
    backend = zone_west(unknown="the zone's own log has not been read yet")
    async with rest_client(backend) as client:
        found = await client.request(method, ITEM)

        assert found.status == 503
        assert "has not been read yet" in await found.text()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_mesh_that_is_not_there_is_said_first(method: str) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.request(method, "/meshes/none/meshservices/redis", data="{")

        assert answer.status == 404
        assert (await answer.json())["title"] == "Failed to retrieve Mesh"


@pytest.mark.parametrize(
    "backend, path",
    [
        (global_plane(), "/meshes/default/meshservices/redis"),
        (global_plane(), "/meshes/default/dataplanes/redis"),
        (zone_west(federated=True), "/meshes/other"),
        (zone_west(federated=True), "/zones/east"),
    ],
)
async def test_what_is_written_elsewhere_is_read_only_here(backend: FakeBackend, path: str) -> None:
    async with rest_client(backend) as client:
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, path, json={})

            assert answer.status == 405
            assert (await answer.json())["title"] == "Method not allowed"


async def test_a_zone_of_its_own_accepts_everything() -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.put("/meshes/other", json={"type": "Mesh", "name": "other"})

        assert answer.status == 201


async def test_a_read_only_api_refuses_writes() -> None:
    async with rest_client(zone_west(), read_only=True) as client:
        answer = await client.put(ITEM, json=mesh_service())

        assert answer.status == 405


async def test_the_origin_label_may_be_missing_unless_configured() -> None:
    backend = zone_west(federated=True)
    async with rest_client(backend) as lenient, rest_client(backend, origin_required=True) as kuma:
        missing = [await client.put(ITEM, json=mesh_service()) for client in (lenient, kuma)]
        flat = await kuma.put("/meshes/default/dataplanes/redis-01", json=dataplane())
        given = await kuma.put(ITEM, json=mesh_service(**{"kuma.io/origin": "zone"}))

        assert [answer.status for answer in missing] == [201, 400]
        faults = (await missing[1].json())["invalid_parameters"]
        reason = "the origin label must be set to 'zone'"
        assert faults == [{"field": 'labels["kuma.io/origin"]', "reason": reason}]
        assert (flat.status, given.status) == (201, 200)


async def test_copies_are_called_by_their_hashed_name() -> None:
    backend = zone_west(federated=True)
    for zone in ("east", "west", ""):
        backend.add("MeshService", Key("default", zone, "", "redis"), {"from": zone})
    copy = names.hashed_name("default", "redis", "east", "")
    async with rest_client(backend) as client:
        own = await (await client.get(ITEM)).json()
        east = await (await client.get(f"/meshes/default/meshservices/{copy}")).json()
        listed = await (await client.get("/meshservices")).json()

    assert own["spec"] == {"from": "west"}
    assert (east["name"], east["spec"]) == (copy, {"from": "east"})
    assert east["labels"]["kuma.io/origin"] == "global"
    assert east["labels"]["kuma.io/display-name"] == "redis"
    assert [item["name"] for item in listed["items"]] == [
        names.hashed_name("default", "redis", "", ""),
        copy,
        "redis",
    ]


async def test_zones_resources_are_copies_on_global() -> None:
    backend = global_plane()
    backend.add("MeshService", Key("default", "west", "", "redis"), {})
    async with rest_client(backend) as client:
        plain = await client.get(ITEM)
        hashed = await client.get("/meshes/default/meshservices/redis-xxxxxxxxxxxxxxxx")
        copy = await client.get(
            "/meshes/default/meshservices/" + names.hashed_name("default", "redis", "west", "")
        )

        assert [plain.status, hashed.status, copy.status] == [404, 404, 200]
        assert (await copy.json())["labels"]["kuma.io/origin"] == "zone"


async def test_a_long_name_is_found_by_its_shortened_hash() -> None:
    backend = global_plane()
    name = "a" * 250
    backend.add("Dataplane", Key("default", "west", "", name), {})
    copy = names.hashed_name("default", name, "west", "")
    async with rest_client(backend) as client:
        answer = await client.get(f"/meshes/default/dataplanes/{copy}")

        assert answer.status == 200


async def test_kinds_that_are_not_hashed_keep_their_name() -> None:
    async with rest_client(zone_west(federated=True)) as client:
        mesh = await (await client.get("/meshes/default")).json()

    assert mesh["name"] == "default"
    assert mesh["kri"] == "kri_m____default_"


async def test_a_copy_is_not_written_here() -> None:
    backend = zone_west(federated=True)
    backend.add("MeshService", Key("default", "east", "", "redis"), {})
    copy = names.hashed_name("default", "redis", "east", "")
    async with rest_client(backend) as client:
        put = await client.put(f"/meshes/default/meshservices/{copy}", json=mesh_service(copy))
        delete = await client.delete(f"/meshes/default/meshservices/{copy}")

        assert put.status == 400
        assert (await put.json())["invalid_parameters"][0]["field"] == "name"
        assert delete.status == 405
    assert len(backend.records) == 2


@pytest.mark.parametrize("name", ["redis", "redis.redis-system"])
async def test_a_namespace_label_is_part_of_the_key(name: str) -> None:
    backend = zone_west()
    body = mesh_service(name, **{"k8s.kuma.io/namespace": "redis-system"})
    async with rest_client(backend) as client:
        created = await client.put(f"/meshes/default/meshservices/{name}", json=body)
        again = await client.put(f"/meshes/default/meshservices/{name}", json=body)
        shown = await (await client.get(f"/meshes/default/meshservices/{name}")).json()
        listed = await (await client.get("/meshservices")).json()

    assert (created.status, again.status) == (201, 200)
    record = backend.records["MeshService", Key("default", "west", "redis-system", "redis")]
    assert record.labels == {}, "the namespace is in the key already"
    assert shown["name"] == name
    assert shown["labels"]["k8s.kuma.io/namespace"] == "redis-system"
    assert [item["name"] for item in listed["items"]] == ["redis.redis-system"]


async def test_a_namespace_does_not_change() -> None:
    async with rest_client(zone_west()) as client:
        await client.put(ITEM, json=mesh_service())
        answer = await client.put(ITEM, json=mesh_service(**{"k8s.kuma.io/namespace": "other"}))

        assert answer.status == 400
        field = (await answer.json())["invalid_parameters"][0]["field"]
        assert field == 'labels["k8s.kuma.io/namespace"]'


async def test_a_mesh_with_dataplanes_is_not_deleted() -> None:
    async with rest_client(zone_west()) as client:
        await client.put("/meshes/default/dataplanes/redis-01", json=dataplane())
        refused = await client.delete("/meshes/default")
        await client.delete("/meshes/default/dataplanes/redis-01")
        allowed = await client.delete("/meshes/default")

        assert refused.status == 400
        assert (await refused.json())["invalid_parameters"] == [
            {
                "field": "mesh",
                "reason": "unable to delete mesh, there are still some dataplanes attached",
            }
        ]
        assert allowed.status == 200


async def test_an_online_zone_is_not_deleted() -> None:
    backend = global_plane()
    backend.add("Zone", Key("", "", "", "west"), {})
    connected = {"connectTime": "2026-09-21T14:13:20Z"}
    backend.insights["west"] = {"subscriptions": [connected]}
    async with rest_client(backend) as client:
        refused = await client.delete("/zones/west")
        backend.insights["west"] = {"subscriptions": [connected | {"disconnectTime": "later"}]}
        allowed = await client.delete("/zones/west")

        assert refused.status == 400
        assert (await refused.json())["invalid_parameters"][0]["field"] == "zone"
        assert allowed.status == 200


async def test_what_the_control_plane_refuses_has_the_operations_title() -> None:
    backend = zone_west()
    backend.refuse = lambda _: PoolExhaustedError("no address left in 241.0.0.0/8")
    async with rest_client(backend) as client:
        exhausted = await client.put(ITEM, json=mesh_service())
        backend.failure = UnavailableError("redis: gone")
        unavailable = await client.put(ITEM, json=mesh_service())

        assert exhausted.status == 409
        assert (await exhausted.json())["title"] == "Conflict"
        assert "241.0.0.0/8" in (await exhausted.json())["detail"]
        assert unavailable.status == 503


async def test_a_bug_is_an_internal_error() -> None:
    backend = zone_west()
    backend.failure = ValueError("boom")  # type: ignore[assignment]  # what a bug would raise
    async with rest_client(backend) as client:
        answer = await client.put(ITEM, json=mesh_service())

        assert answer.status == 500
        assert (await answer.json())["title"] == "Internal Server Error"
        assert "boom" not in await answer.text()


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nothing", 404),
        ("GET", "/a/b/c/d/e", 404),
        ("GET", "/meshes/default/_unknown", 404),
        ("GET", "/meshes/default/zones", 404),
        ("GET", "/dataplanes/redis-01", 404),
        ("POST", ITEM, 405),
        ("GET", "/_bulk", 405),
    ],
)
async def test_unknown_routes_answer_in_kumas_shape(method: str, path: str, status: int) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.request(method, path)
        body = await answer.json()

        assert answer.status == status == body["status"]
        assert body["type"] == "/std-errors"
        assert body["detail"] == body["details"]
        assert ("Allow" in answer.headers) is (status == 405)


async def test_format_is_checked_and_kubernetes_understood() -> None:
    async with rest_client(zone_west()) as client:
        await client.put(ITEM, json=mesh_service())
        wrong = await client.get(ITEM, params={"format": "xml"})
        same = await client.get(ITEM, params={"format": "universal"})
        kubernetes = await (await client.get(ITEM, params={"format": "k8s"})).json()

        assert wrong.status == 400
        assert (await same.json())["type"] == "MeshService"
        assert kubernetes["kind"] == "MeshService"
        assert kubernetes["metadata"]["labels"]["kuma.io/mesh"] == "default"
        assert kubernetes["spec"]["ports"][0]["port"] == 6379


async def test_a_kri_finds_the_resource() -> None:
    backend = zone_west(federated=True)
    backend.add("MeshService", Key("default", "east", "", "redis"), {})
    async with rest_client(backend) as client:
        found = await client.get("/_kri/kri_msvc_default_east__redis_")
        unknown = await client.get("/_kri/kri_msvc_default_north__redis_")
        malformed = await client.get("/_kri/kri_msvc")

        assert [found.status, unknown.status, malformed.status] == [200, 404, 400]
        assert (await found.json())["kri"] == "kri_msvc_default_east__redis_"


async def test_the_index_satisfies_kumactl() -> None:
    async with rest_client(zone_west(), instance="abcd") as client:
        index = await (await client.get("/")).json()

    assert index["product"] == "Kuma"
    assert index["instanceId"] == "abcd"
    assert index["version"].startswith("2.14.")
    assert index["gui"].endswith("/gui")


async def test_the_catalogue_says_what_is_writable_here() -> None:
    async with rest_client(global_plane()) as client:
        kinds = (await (await client.get("/_resources")).json())["resources"]

    by_name = {kind["name"]: kind for kind in kinds}
    assert [kind["name"] for kind in kinds] == sorted(by_name)
    assert by_name["MeshService"] == {
        "name": "MeshService",
        "path": "meshservices",
        "scope": "Mesh",
        "readOnly": True,
        "includeInFederation": False,
        "singularDisplayName": "Mesh Service",
        "pluralDisplayName": "Mesh Services",
        "shortName": "msvc",
    }
    assert by_name["Mesh"]["readOnly"] is False
    assert by_name["Mesh"]["includeInFederation"] is True


async def test_the_servers_own_pages() -> None:
    async with rest_client(zone_west(), config_dump={"mode": "zone"}) as client:
        assert await (await client.get("/config")).json() == {"mode": "zone"}
        assert (await (await client.get("/who-am-i")).json())["groups"] == ["mesh-system:admin"]
        assert await (await client.get("/_state")).json() == {"position": "1-0"}


@pytest.mark.parametrize("path", ["/zones/_overview", "/zones+insights"])
async def test_zones_are_listed_with_their_insights(path: str) -> None:
    backend = global_plane()
    backend.add("Zone", Key("", "", "", "west"), {"enabled": False})
    backend.add("Zone", Key("", "", "", "east"), {})
    backend.insights["west"] = {"subscriptions": []}
    one = "/zones/west/_overview" if "_" in path else "/zones+insights/west"
    async with rest_client(backend) as client:
        listed = await (await client.get(path)).json()
        west = await (await client.get(one)).json()
        missing = await client.get("/zones/north/_overview")

    assert [item["name"] for item in listed["items"]] == ["east", "west"]
    assert listed["items"][0]["zone"] == {"enabled": True}
    assert "zoneInsight" not in listed["items"][0]
    assert west == {
        "type": "ZoneOverview",
        "name": "west",
        "creationTime": "2026-09-21T14:13:20Z",
        "modificationTime": "2026-09-21T14:13:20.5Z",
        "zone": {"enabled": False},
        "zoneInsight": {"subscriptions": []},
    }
    assert missing.status == 404


async def test_a_body_that_is_not_packed_as_it_says_is_a_bad_request() -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.put(
            ITEM, data=b"{}", headers={"Content-Encoding": "gzip", "Content-Type": "text/json"}
        )

        assert answer.status == 400
        assert "the body cannot be read" in (await answer.json())["detail"]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_goes_in_the_middle_of_a_body_is_no_fault_of_ours(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with rest_client(zone_west()) as client:
        with capture_logs() as logs:
            _, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(f"PUT {ITEM} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode())
            writer.write(b'{"type"')
            await writer.drain()
            server = client.server.handler
            assert isinstance(server, web.Server)
            await until(lambda: server.requests_count == 1)
            getattr(writer.transport, how)()
            await until(lambda: not server.connections)

        assert logs == []
        assert caplog.records == []
