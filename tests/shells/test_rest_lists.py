"""Lists over HTTP: order, pages, filters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import FakeBackend, rest_client, with_mesh
from zonemesh import names
from zonemesh.model import Key

LIST = "/meshes/default/dataplanes"


def zone_west(count: int = 0) -> FakeBackend:
    backend = with_mesh(FakeBackend())
    for number in reversed(range(count)):
        backend.add("Dataplane", Key("default", "west", "", f"dp-{number:04}"), {})
    return backend


def shown(answer: dict[str, Any]) -> list[str]:
    return [item["name"] for item in answer["items"]]


async def test_an_empty_list_has_every_field() -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.get(LIST)

        assert await answer.text() == '{\n "total": 0,\n "items": [],\n "next": null\n}\n'


async def test_pages_follow_their_links_to_the_end() -> None:
    async with rest_client(zone_west(250)) as client:
        seen: list[str] = []
        sizes = []
        url: str | None = str(client.make_url(f"{LIST}?name=dp"))
        while url is not None:
            answer = await (await client.session.get(url)).json()
            sizes.append(len(answer["items"]))
            seen += shown(answer)
            url = answer["next"]

    assert sizes == [100, 100, 50]
    assert seen == [f"dp-{number:04}" for number in range(250)]


async def test_the_next_page_keeps_the_filter() -> None:
    async with rest_client(zone_west(3)) as client:
        params = {"size": "1", "name": "dp", "filter[labels.kuma.io/zone]": "west"}
        answer = await (await client.get(LIST, params=params)).json()

    assert answer["total"] == 3
    assert "offset=1" in answer["next"]
    assert "size=1" in answer["next"]
    assert "name=dp" in answer["next"]
    assert "labels.kuma.io" in answer["next"]


@pytest.mark.parametrize(
    "query, field, reason",
    [
        ("size=2000", "size", "invalid page size of 2000. Maximum page size is 1000"),
        ("size=many", "size", "invalid format"),
        ("size=0", "size", "must be greater than 0"),
        ("size=-1", "size", "must be greater than 0"),
        ("offset=x", "offset", "Invalid format"),
        ("offset=-1", "offset", "Invalid format"),
        ("filter[name]=x", "filter[name]", "filters are only supported on labels"),
        ("filter[labels.a][eq]=x", "filter[labels.a][eq]", "advanced filters are not supported"),
        ("gateway=maybe", "gateway", "must be one of: true, false, delegated, builtin"),
    ],
)
async def test_bad_parameters_are_named(query: str, field: str, reason: str) -> None:
    async with rest_client(zone_west()) as client:
        answer = await client.get(f"{LIST}?{query}")
        body = await answer.json()

    assert answer.status == 400
    assert body["title"] == "Could not retrieve resources"
    assert body["invalid_parameters"] == [{"field": field, "reason": reason}]
    if field == "size":
        assert body["detail"] == "Invalid page size"


async def test_a_last_page_that_is_full_has_no_next() -> None:
    async with rest_client(zone_west(4)) as client:
        answer = await (await client.get(f"{LIST}?offset=2&size=2")).json()

    assert (len(answer["items"]), answer["next"]) == (2, None)


async def test_an_offset_beyond_the_end_is_an_empty_page() -> None:
    async with rest_client(zone_west(2)) as client:
        answer = await (await client.get(f"{LIST}?offset=100")).json()

    assert (answer["total"], answer["items"], answer["next"]) == (2, [], None)


async def test_lists_across_meshes_are_sorted_by_mesh_then_name() -> None:
    backend = with_mesh(with_mesh(FakeBackend(), "a"), "b")
    for mesh, name in [("b", "x"), ("a", "y"), ("a", "x")]:
        backend.add("Dataplane", Key(mesh, "west", "", name), {})
    async with rest_client(backend) as client:
        everywhere = await (await client.get("/dataplanes")).json()
        one = await (await client.get("/meshes/b/dataplanes")).json()
        missing = await client.get("/meshes/c/dataplanes")

    assert [(item["mesh"], item["name"]) for item in everywhere["items"]] == [
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
    ]
    assert shown(one) == ["x"]
    assert missing.status == 404


async def test_a_name_filter_sees_the_hash_of_copies() -> None:
    backend = with_mesh(FakeBackend(on_global=True, zone=""))
    for zone in ("east", "west"):
        backend.add("MeshService", Key("default", zone, "", "redis"), {})
    copy = names.hashed_name("default", "redis", "east", "")
    async with rest_client(backend) as client:
        answer = await (await client.get("/meshservices", params={"name": copy[-12:]})).json()
        both = await (await client.get("/meshservices", params={"name": "edi"})).json()

    assert shown(answer) == [copy]
    assert both["total"] == 2


async def test_labels_are_matched_computed_ones_too() -> None:
    backend = zone_west()
    backend.add("Dataplane", Key("default", "west", "", "one"), {}, app="redis", tier="a")
    backend.add("Dataplane", Key("default", "west", "", "two"), {}, app="redis", tier="b")
    backend.add("Dataplane", Key("default", "east", "", "three"), {}, app="redis", tier="a")
    async with rest_client(backend) as client:
        query = "filter[labels.tier]=a&filter[labels.kuma.io/zone]=west"
        both = await (await client.get(f"{LIST}?{query}")).json()
        last = await (
            await client.get(f"{LIST}?filter[labels.tier]=a&filter[labels.tier]=b")
        ).json()

    assert shown(both) == ["one"]
    assert shown(last) == ["two"]


@pytest.mark.parametrize(
    "query, found",
    [
        ("tag=kuma.io/service:redis", ["tagged"]),
        ("tag=kuma.io/service:edi", ["tagged"]),
        ("tag=app:web", ["gateway"]),
        ("tag=app:web&tag=kuma.io/service:redis", []),
        ("tag=malformed", ["gateway", "tagged"]),
        ("gateway=true", ["gateway"]),
        ("gateway=delegated", ["gateway"]),
        ("gateway=builtin", []),
        ("gateway=false", ["tagged"]),
    ],
)
async def test_dataplanes_are_found_by_tag_and_gateway(query: str, found: list[str]) -> None:
    backend = zone_west()
    inbound = {"port": 1, "tags": {"kuma.io/service": "redis"}}
    backend.add(
        "Dataplane", Key("default", "west", "", "tagged"), {"networking": {"inbound": [inbound]}}
    )
    gateway = {"type": "DELEGATED", "tags": {"kuma.io/service": "web"}}
    backend.add(
        "Dataplane",
        Key("default", "west", "", "gateway"),
        {"networking": {"gateway": gateway}},
        app="web",
    )
    async with rest_client(backend) as client:
        assert shown(await (await client.get(f"{LIST}?{query}")).json()) == found


async def test_a_long_list_is_ordered_like_a_short_one() -> None:
    async with rest_client(zone_west(9_001)) as client:
        answer = await (await client.get(f"{LIST}?size=1000&offset=8500&name=dp-")).json()

    assert answer["total"] == 9_001
    assert shown(answer) == [f"dp-{number:04}" for number in range(8_500, 9_001)]
