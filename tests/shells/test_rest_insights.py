"""Insights and overviews over HTTP: what is computed from what is there, and never stored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import NOW_MS, FakeBackend, rest_client, with_mesh
from zonemesh import names
from zonemesh.agents import AgentNote
from zonemesh.model import Key

CREATED = "2026-09-21T14:13:20Z"
MODIFIED = "2026-09-21T14:13:20.5Z"


def agent(*, until_ms: int | None = None, version: str = "0.1.0") -> AgentNote:
    return AgentNote(since_ms=NOW_MS, until_ms=until_ms, agent="agent-1", version=version)


def add(
    backend: FakeBackend,
    name: str,
    *states: str,
    mesh: str = "default",
    service: str = "redis",
    by: AgentNote | None = None,
) -> None:
    """A Dataplane with an inbound in each state; `by` is its agent."""
    key = Key(mesh, "west", "", name)
    inbound = [
        {"port": 80 + number, "state": state, "tags": {"kuma.io/service": service}}
        for number, state in enumerate(states or ("Ready",))
    ]
    backend.add(
        "Dataplane", key, {"networking": {"address": "10.0.0.1", "inbound": inbound}}, app=service
    )
    if by is not None:
        backend.agents[key.packed] = by


def zone_west() -> FakeBackend:
    """Two meshes; in `default` one Dataplane of each state, of two services, and a gateway."""
    backend = with_mesh(with_mesh(FakeBackend()), "other")
    add(backend, "good", by=agent())
    add(backend, "half", "Ready", "NotReady", by=agent(version="0.2.0"))
    add(backend, "unready", "NotReady", service="web", by=agent())
    add(backend, "gone", by=agent(until_ms=NOW_MS + 1_000))
    add(backend, "alone", service="web")
    gateway = {"type": "DELEGATED", "tags": {"kuma.io/service": "edge"}}
    key = Key("default", "west", "", "edge-01")
    backend.add("Dataplane", key, {"networking": {"address": "10.0.0.2", "gateway": gateway}})
    backend.agents[key.packed] = agent()
    add(backend, "elsewhere", mesh="other")
    return backend


async def read(backend: FakeBackend, path: str) -> Any:
    async with rest_client(backend) as client:
        answer = await client.get(path)

        assert answer.status == 200, await answer.text()
        return await answer.json()


def count(total: int = 0, online: int = 0, offline: int = 0, degraded: int = 0) -> dict[str, int]:
    return {"total": total, "online": online, "offline": offline, "partiallyDegraded": degraded}


async def test_a_mesh_is_counted_in_every_section_that_kumactl_reads() -> None:
    shown = await read(zone_west(), "/mesh-insights/default")

    assert shown.pop("labels")["kuma.io/display-name"] == "default"
    assert shown == {
        "type": "MeshInsight",
        "name": "default",
        "creationTime": CREATED,
        "modificationTime": MODIFIED,
        "dataplanes": count(6, 2, 3, 1),
        "dataplanesByType": {
            "standard": count(5, 1, 3, 1),
            "gateway": count(1, 1),
            "gatewayBuiltin": count(),
            "gatewayDelegated": count(1, 1),
        },
        "policies": {},
        "dpVersions": {
            "kumaDp": {"0.1.0": count(4, 2, 2), "0.2.0": count(1, 0, 0, 1)},
            "envoy": {},
        },
        "mTLS": {"issuedBackends": {}, "supportedBackends": {}},
        "services": {"total": 3, "internal": 3, "external": 0},
        "resources": {"Dataplane": {"total": 6}},
    }


async def test_every_mesh_has_its_insight() -> None:
    backend = zone_west()
    backend.add("Mesh", Key("", "west", "", "empty"), {})
    listed = await read(backend, "/mesh-insights")

    assert [(item["name"], item["dataplanes"]["total"]) for item in listed["items"]] == [
        ("default", 6),
        ("empty", 0),
        ("other", 1),
    ]
    assert all(item["services"] and item["mTLS"] for item in listed["items"])


async def test_services_are_counted_by_their_dataplanes() -> None:
    listed = await read(zone_west(), "/meshes/default/service-insights")
    web = await read(zone_west(), "/meshes/default/service-insights/web")

    about = [(item["name"], item["serviceType"], item["status"]) for item in listed["items"]]
    assert about == [
        ("edge", "gateway_delegated", "online"),
        ("redis", "internal", "partially_degraded"),
        ("web", "internal", "offline"),
    ]
    assert web["dataplanes"] == {"total": 2, "online": 0, "offline": 2}
    assert web["addressPort"] == "web.mesh:80"
    assert (web["type"], web["mesh"], web["creationTime"]) == ("ServiceInsight", "default", CREATED)


async def test_services_of_every_mesh_are_listed_page_by_page() -> None:
    listed = await read(zone_west(), "/service-insights?size=2&offset=2")

    assert [(item["mesh"], item["name"]) for item in listed["items"]] == [
        ("default", "web"),
        ("other", "redis"),
    ]
    assert (listed["total"], listed["next"]) == (4, None)


async def test_a_dataplane_has_an_insight_once_an_agent_was_there() -> None:
    listed = await read(zone_west(), "/dataplane-insights")
    gone = await read(zone_west(), "/meshes/default/dataplane-insights/gone")

    shown = [item["name"] for item in listed["items"]]
    assert shown == ["edge-01", "gone", "good", "half", "unready"]
    assert gone["type"] == "DataplaneInsight"
    assert gone["subscriptions"] == [
        {
            "id": "agent-1",
            "connectTime": CREATED,
            "status": {
                "lastUpdateTime": "2026-09-21T14:13:21Z",
                "total": {},
                "cds": {},
                "eds": {},
                "lds": {},
                "rds": {},
            },
            "version": {"kumaDp": {"version": "0.1.0", "kumaCpCompatible": True}},
            "disconnectTime": "2026-09-21T14:13:21Z",
        }
    ]


async def test_a_zone_has_an_insight_once_it_was_heard_of() -> None:
    backend = with_mesh(FakeBackend(on_global=True, zone=""))
    backend.add("Zone", Key("", "", "", "west"), {})
    backend.add("Zone", Key("", "", "", "east"), {})
    backend.insights["west"] = {"subscriptions": [{"connectTime": CREATED}]}
    async with rest_client(backend) as client:
        listed = await (await client.get("/zone-insights")).json()
        west = await (await client.get("/zone-insights/west")).json()
        missing = await client.get("/zone-insights/east")

    assert [item["name"] for item in listed["items"]] == ["west"]
    assert (west["type"], west["subscriptions"]) == ("ZoneInsight", [{"connectTime": CREATED}])
    assert missing.status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/meshes/default/dataplane-insights/alone",
        "/meshes/default/dataplane-insights/nothing",
        "/meshes/default/service-insights/nothing",
        "/mesh-insights/nothing",
        "/meshes/nothing/service-insights",
    ],
)
async def test_what_nothing_is_known_of_is_not_found(path: str) -> None:
    async with rest_client(zone_west()) as client:
        assert (await client.get(path)).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        "/zone-insights/west",
        "/mesh-insights/default",
        "/meshes/default/dataplane-insights/good",
        "/meshes/default/service-insights/redis",
    ],
)
async def test_insights_are_not_written(method: str, path: str) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.request(method, path, json={})
        body = await answer.json()

    assert answer.status == 405
    assert (body["type"], body["title"]) == ("/std-errors", "Method not allowed")


async def test_a_line_of_a_bulk_cannot_write_one_either() -> None:
    line = b'{"type": "MeshInsight", "name": "default"}\n'
    async with rest_client(zone_west()) as client:
        answer = await client.post("/_bulk", data=line)

        assert (await answer.json(content_type=None))["status"] == 405


async def test_insights_are_in_the_catalogue_as_read_only() -> None:
    kinds = (await read(zone_west(), "/_resources"))["resources"]

    found = {kind["name"]: kind for kind in kinds if kind["name"].endswith("Insight")}
    assert set(found) == {"ZoneInsight", "DataplaneInsight", "MeshInsight", "ServiceInsight"}
    assert all(kind["readOnly"] and not kind["includeInFederation"] for kind in found.values())


async def test_insights_are_filtered_like_any_list() -> None:
    by_name = await read(zone_west(), "/mesh-insights?name=oth")
    params = "filter[labels.kuma.io/zone]=west&name=go"
    by_label = await read(zone_west(), f"/dataplane-insights?{params}")

    assert [item["name"] for item in by_name["items"]] == ["other"]
    assert [item["name"] for item in by_label["items"]] == ["gone", "good"]


OVERVIEWS = "/meshes/default/dataplanes/_overview"


async def test_a_dataplane_is_shown_with_its_insight() -> None:
    shown = await read(zone_west(), "/meshes/default/dataplanes/good/_overview")
    alone = await read(zone_west(), "/meshes/default/dataplanes/alone/_overview")

    assert list(shown) == [
        *("type", "mesh", "name", "creationTime", "modificationTime", "labels"),
        *("dataplane", "dataplaneInsight"),
    ]
    assert (shown["type"], shown["name"]) == ("DataplaneOverview", "good")
    assert shown["dataplane"]["networking"]["address"] == "10.0.0.1"
    assert "disconnectTime" not in shown["dataplaneInsight"]["subscriptions"][0]
    assert "dataplaneInsight" not in alone


@pytest.mark.parametrize(
    "path, found",
    [
        (OVERVIEWS, 6),
        ("/meshes/default/dataplanes+insights", 6),
        ("/dataplanes/_overview", 7),
        ("/dataplanes+insights", 7),
        (f"{OVERVIEWS}?name=go", 2),
        (f"{OVERVIEWS}?tag=kuma.io/service:web", 2),
        (f"{OVERVIEWS}?gateway=true", 1),
        (f"{OVERVIEWS}?gateway=false", 5),
        (f"{OVERVIEWS}?filter[labels.app]=redis", 3),
    ],
)
async def test_dataplanes_are_listed_with_their_insights(path: str, found: int) -> None:
    listed = await read(zone_west(), path)

    assert (listed["total"], len(listed["items"]), listed["next"]) == (found, found, None)
    assert {item["type"] for item in listed["items"]} == {"DataplaneOverview"}


async def test_overviews_have_pages() -> None:
    listed = await read(zone_west(), f"{OVERVIEWS}?size=4")

    assert len(listed["items"]) == 4
    assert listed["next"].startswith("http://")
    assert f"{OVERVIEWS}?" in listed["next"]
    assert "offset=4" in listed["next"]


async def test_an_older_path_of_one_overview_is_served_too() -> None:
    old = await read(zone_west(), "/meshes/default/dataplanes+insights/good")

    assert old == await read(zone_west(), "/meshes/default/dataplanes/good/_overview")


@pytest.mark.parametrize(
    "path, title",
    [
        ("/meshes/none/dataplanes/_overview", "Failed to retrieve Mesh"),
        ("/meshes/none/dataplanes/good/_overview", "Failed to retrieve Mesh"),
        ("/meshes/default/dataplanes/none/_overview", "Could not retrieve a resource"),
    ],
)
async def test_an_overview_of_nothing_is_not_found(path: str, title: str) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.get(path)

        assert (answer.status, (await answer.json())["title"]) == (404, title)


async def test_copies_have_one_name_in_overviews_and_insights() -> None:
    backend = with_mesh(FakeBackend(on_global=True, zone=""))
    add(backend, "redis-01", by=agent())
    copy = names.hashed_name("default", "redis-01", "west", "")

    overview = await read(backend, f"/meshes/default/dataplanes/{copy}/_overview")
    insight = await read(backend, f"/meshes/default/dataplane-insights/{copy}")

    assert overview["name"] == insight["name"] == copy
    assert overview["labels"]["kuma.io/zone"] == insight["labels"]["kuma.io/zone"] == "west"


async def test_everything_in_numbers() -> None:
    backend = with_mesh(FakeBackend(on_global=True, zone=""))
    for zone in ("east", "west"):
        backend.add("Zone", Key("", "", "", zone), {})
    backend.insights["west"] = {"subscriptions": [{"connectTime": CREATED}]}
    backend.insights["east"] = {"subscriptions": [{"connectTime": "x", "disconnectTime": "y"}]}
    add(backend, "one", by=agent())
    add(backend, "two")
    one = await read(backend, "/global-insight")
    all_ = await read(backend, "/global-insights")

    resources = {"Mesh": {"total": 1}, "Zone": {"total": 2}, "Dataplane": {"total": 2}}
    assert one.pop("createdAt").endswith("Z")
    assert one == {
        "dataplanes": {
            "standard": count(2, 1, 1),
            "gatewayBuiltin": count(),
            "gatewayDelegated": count(),
        },
        "meshes": {"total": 1},
        "policies": {"total": 0},
        "resources": resources,
        "services": {
            "internal": count(1, 0, 0, 1),
            "gatewayBuiltin": count(),
            "gatewayDelegated": count(),
            "external": {"total": 0},
        },
        "zones": {
            "controlPlanes": {"online": 1, "total": 2},
            "zoneIngresses": {"online": 0, "total": 0},
            "zoneEgresses": {"online": 0, "total": 0},
        },
    }
    assert (all_["type"], all_["resources"]) == ("GlobalInsights", resources)


async def test_there_are_no_policies() -> None:
    assert await read(zone_west(), "/policies") == {"policies": []}
