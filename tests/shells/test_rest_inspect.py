"""What belongs to a service, over HTTP: its hostnames and its Dataplanes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from globalcp.backend import GlobalBackend
from globalcp.state import GlobalState
from tests.builders import Chain, FakeBackend, put_dataplane, rest_client, with_mesh
from tests.maps import binding, defaults, generator, record, service
from zonecp.backend import ZoneBackend
from zonecp.state import ZoneState
from zonemesh.deciding import Put
from zonemesh.ipam import Binding, vip_kind
from zonemesh.members import Members
from zonemesh.model import Change, Key, Record, ServiceRef
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.settings import Settings
from zonemesh.travel import SEEN, kept_by
from zonemesh.vipmap import VipMap

HOSTNAMES = "/meshes/default/meshservices/redis/_hostnames"
INSPECTED = "meshservices,meshexternalservices,meshmultizoneservices"
DATAPLANES = "/meshes/default/meshservices/redis/_dataplanes"


async def read(backend: Any, path: str) -> Any:
    async with rest_client(backend) as client:
        answer = await client.get(path)

        assert answer.status == 200, await answer.text()
        return await answer.json()


class Global:
    """Global's own backend, with the default generators, its own and those of each zone."""

    def __init__(self, *zones: str) -> None:
        state = GlobalState()
        self.log = Chain(state.registry)
        members = Members()
        state.registry.add_index(members)
        nobody = cast("Any", None)  # nothing here asks who leads
        self.backend = GlobalBackend(state, members, nobody, nobody, settings=Settings())
        self.log.commit(*defaults(""), Change("Mesh", Key("", "", "", "default").packed, EMPTY))
        for zone in zones:
            self.log.commit(
                *defaults(zone), Change("Zone", Key("", "", "", zone).packed, EMPTY), seen(zone)
            )

    async def hostnames(self, service: str = "redis") -> Any:
        listed = await read(self.backend, f"/meshservices?name={service}")
        return await read(self.backend, HOSTNAMES.replace("redis", str(listed["items"][0]["name"])))


EMPTY = Record(created_ms=1, modified_ms=1).pack()


def seen(zone: str) -> Change:
    record = Seen(uid=f"{zone}-uid", last_ms=1, online=True, connected_ms=1)
    return Change(SEEN, Key("", zone, "", "").packed, record.pack())


async def test_global_says_in_which_zones_a_service_has_each_name() -> None:
    plane = Global("west", "east", "north")
    plane.log.commit(service("redis"), binding("redis", 1, order=1))

    assert await plane.hostnames() == {
        "items": [
            {
                "hostname": "redis.svc.mesh.local",
                "zones": [{"name": "west"}],
                "zonemesh": {"zones": ["west"]},
            },
            {
                "hostname": "redis.svc.west.mesh.local",
                "zones": [{"name": "west"}],
                "zonemesh": {"zones": ["east", "north"]},
            },
        ],
        "total": 2,
    }


CONTESTED = [
    service("redis"),
    binding("redis", 1, order=1),
    service("redis", "east"),
    binding("redis", 300, "east", order=2),
    generator("anywhere", "{{ .DisplayName }}.any.mesh.local"),
]
"""Services of two zones that want one name: west's has it."""


async def test_global_says_who_holds_a_name_instead_in_which_zone() -> None:
    plane = Global("west", "east")
    plane.log.commit(*CONTESTED)
    found = await read(plane.backend, "/meshservices?filter[labels.kuma.io/zone]=east")
    name = found["items"][0]["name"]
    items = (await read(plane.backend, HOSTNAMES.replace("redis", name)))["items"]
    winner = "kri_msvc_default_west__redis_"

    assert items[0] == {
        "hostname": "redis.any.mesh.local",
        "zones": [{"name": "east"}],
        "zonemesh": {"zones": [], "winners": {"east": winner, "west": winner}},
    }
    conditions = {
        each["hostnameGeneratorRef"]["coreName"].split("-")[0]: each["conditions"][0]["reason"]
        for each in found["items"][0]["status"]["hostnameGenerators"]
    }
    assert conditions == {"anywhere": "Collision", "local": "Generated"}


async def test_the_services_of_a_disabled_zone_have_names_at_home_alone_and_hold_none() -> None:
    plane = Global("west", "east")
    disabled = Record(created_ms=1, modified_ms=1, spec={"enabled": False}).pack()
    plane.log.commit(
        *CONTESTED,
        Change("Zone", Key("", "", "", "west").packed, disabled),
    )
    found = await read(plane.backend, "/meshservices?filter[labels.kuma.io/zone]=east")
    name = found["items"][0]["name"]
    items = (await read(plane.backend, HOSTNAMES.replace("redis", name)))["items"]

    # West still receives east's services, and there its own one, which came first, has the name.
    assert items[0]["zonemesh"]["zones"] == ["east"]
    assert list(items[0]["zonemesh"]["winners"]) == ["west"]


async def test_global_leaves_out_what_no_template_makes() -> None:
    plane = Global("west")
    plane.log.commit(
        service("redis"),
        generator("label", "{{ label `no` }}.mesh"),
        generator("bad", "-bad-.mesh"),
        generator("open", "{{ .DisplayName"),
    )

    assert [each["hostname"] for each in (await plane.hostnames())["items"]] == [
        "redis.svc.mesh.local"
    ]


@pytest.mark.parametrize("mesh, named", [("default", True), ("other", False)])
async def test_a_generator_of_one_mesh_names_nothing_of_others(mesh: str, *, named: bool) -> None:
    plane = Global("west")
    spec = {"selector": {"meshExternalService": {}}, "template": "only.mesh.local", "mesh": mesh}
    only = Record(created_ms=1, modified_ms=1, spec=spec).pack()
    plane.log.commit(
        Change("MeshExternalService", Key("default", "", "", "db").packed, EMPTY),
        Change("HostnameGenerator", Key("", "", "", "only").packed, only),
    )
    found = await read(plane.backend, "/meshes/default/meshexternalservices/db/_hostnames")

    assert [each["hostname"] for each in found["items"]] == [
        "db.extsvc.mesh.local",
        *["only.mesh.local"] * named,
    ]


async def test_a_service_that_global_has_is_named_in_every_zone() -> None:
    plane = Global("west", "east")
    plane.log.commit(Change("MeshMultiZoneService", Key("default", "", "", "redis").packed, EMPTY))
    path = HOSTNAMES.replace("meshservices", "meshmultizoneservices")

    assert (await read(plane.backend, path))["items"] == [
        {
            "hostname": "redis.mzsvc.mesh.local",
            "zones": [{"name": "east"}, {"name": "west"}],
            "zonemesh": {"zones": ["east", "west"]},
        }
    ]


async def test_a_service_without_names_has_an_empty_list() -> None:
    backend = with_mesh(FakeBackend())
    backend.add("MeshService", Key("default", "west", "", "redis"), {})

    assert await read(backend, HOSTNAMES) == {"items": [], "total": 0}


class West:
    """A zone's own backend over the logs that it reads."""

    def __init__(self) -> None:
        state = ZoneState("west", federated=True)
        self.own = Chain(state.registry)
        self.copy = Chain(Registry(keeps=kept_by("west")))
        self.map = VipMap("west", state.registry, self.copy.registry)
        self.backend = ZoneBackend(
            state,
            self.copy.registry,
            self.map,
            cast("Any", None),
            lag_s=lambda: 0.0,
            uplink_refused=lambda: None,
        )
        mesh = Record(created_ms=1, modified_ms=1).pack()
        self.own.commit(*defaults("west"))
        self.copy.commit(*defaults(""), Change("Mesh", Key("", "", "", "default").packed, mesh))


async def test_a_zone_says_which_names_a_service_holds_and_who_holds_the_others() -> None:
    west = West()
    west.own.commit(service("redis"), binding("redis", 1), service("web"), binding("web", 2))
    west.copy.commit(generator("same", "same.mesh.local", app="x"))
    west.own.commit(service("redis", app="x"), service("web", app="x"))
    west.map.flush()
    holder = await read(west.backend, HOSTNAMES)
    loser = await read(west.backend, HOSTNAMES.replace("redis", "web"))

    held = {"held": True, "winner": None}
    here = [{"name": "west"}]
    assert holder["items"] == [
        {"hostname": "redis.svc.mesh.local", "zones": here, "zonemesh": held},
        {"hostname": "same.mesh.local", "zones": here, "zonemesh": held},
    ]
    assert loser["items"] == [
        {
            "hostname": "same.mesh.local",
            "zones": here,
            "zonemesh": {"held": False, "winner": "kri_msvc_default_west__redis_"},
        },
        {"hostname": "web.svc.mesh.local", "zones": here, "zonemesh": held},
    ]


async def test_a_copy_of_a_service_is_in_its_own_zone() -> None:
    west = West()
    west.copy.commit(
        Change(SEEN, Key("", "east", "", "").packed, b"\x80"),
        service("redis", "east"),
        binding("redis", 300, "east", order=1),
    )
    west.map.flush()
    name = (await read(west.backend, "/meshservices"))["items"][0]["name"]
    found = await read(west.backend, HOSTNAMES.replace("redis", name))

    (only,) = found["items"]
    assert only["hostname"] == "redis.svc.east.mesh.local"
    assert only["zones"] == [{"name": "east"}]


@pytest.mark.parametrize(
    "path, status, title",
    [
        ("/meshes/default/meshservices/none/_hostnames", 404, "could not retrieve service"),
        ("/meshes/none/meshservices/redis/_hostnames", 404, "Failed to retrieve Mesh"),
        (
            "/meshes/default/dataplanes/redis/_hostnames",
            400,
            f'only "{INSPECTED}" are available for inspection',
        ),
        ("/meshes/default/meshservices/none/_dataplanes", 404, "could not retrieve service"),
        ("/meshes/none/meshservices/redis/_dataplanes", 404, "Failed to retrieve Mesh"),
    ],
)
async def test_what_cannot_be_inspected_is_said_as_kuma_does(
    path: str, status: int, title: str
) -> None:
    async with rest_client(with_mesh(FakeBackend())) as client:
        answer = await client.get(path)

        assert (answer.status, (await answer.json())["title"]) == (status, title)


def with_instances() -> FakeBackend:
    backend = with_mesh(FakeBackend())
    selector = {"dataplaneTags": {"kuma.io/service": "redis"}}
    backend.add("MeshService", Key("default", "west", "", "redis"), {"selector": selector})
    for name, of in [("b", "redis"), ("a", "redis"), ("c", "web")]:
        item = put_dataplane(name, of)
        backend.add("Dataplane", item.key, item.spec, app=of)
    elsewhere = put_dataplane("d", "redis", zone="east")
    backend.add("Dataplane", elsewhere.key, elsewhere.spec)
    return backend


@pytest.mark.parametrize(
    "query, total, found",
    [
        ("", 2, ["a", "b"]),
        ("?size=1", 2, ["a"]),
        ("?size=1&offset=1", 2, ["b"]),
        ("?name=b", 1, ["b"]),
        ("?filter[labels.app]=web", 0, []),
    ],
)
async def test_the_dataplanes_of_a_service_are_a_list(
    query: str, total: int, found: list[str]
) -> None:
    listed = await read(with_instances(), f"{DATAPLANES}{query}")

    assert (listed["total"], [each["name"] for each in listed["items"]]) == (total, found)
    assert all(each["type"] == "Dataplane" for each in listed["items"])
    assert (listed["next"] is None) is (query != "?size=1")


async def test_a_service_that_selects_nothing_has_no_dataplanes() -> None:
    backend = with_instances()
    backend.add("MeshService", Key("default", "west", "", "redis"), {})

    assert (await read(backend, DATAPLANES))["items"] == []


async def test_the_dataplanes_of_a_copied_service_are_shown_in_its_own_zone_only() -> None:
    """As they are in every other list of a zone: they stand behind its outbounds all the same."""
    west = West()
    west.copy.commit(
        Change(SEEN, Key("", "east", "", "").packed, b"\x80"),
        service("redis", "east"),
        binding("redis", 1, "east"),
        record(put_dataplane("a", "redis", zone="east")),
    )
    west.map.flush()
    name = (await read(west.backend, "/meshservices"))["items"][0]["name"]
    shown = await read(west.backend, DATAPLANES.replace("redis", str(name)))

    assert (
        len(west.map.outbounds.members(ServiceRef("MeshService", service("redis", "east").key)))
        == 1
    )
    assert (shown["total"], shown["items"]) == (0, [])


async def test_how_many_dataplanes_have_an_agent_is_in_the_status() -> None:
    """Nobody has one yet; the members are counted by what the registry has."""
    west = West()
    west.own.commit(service("redis"), binding("redis", 1), record(put_dataplane("a", "redis")))
    west.map.flush()
    shown = await read(west.backend, "/meshes/default/meshservices/redis")

    assert shown["status"]["dataplaneProxies"] == {"connected": 0, "healthy": 1, "total": 1}


def change(kind: str, key: Key, spec: dict[str, Any]) -> Change:
    return Change(kind, key.packed, Record(created_ms=1, modified_ms=1, spec=spec).pack())


BY_LABEL = {"dataplaneLabels": {"matchLabels": {"app": "redis"}}}


@pytest.mark.parametrize("where", [West, Global], ids=["zone", "global"])
@pytest.mark.parametrize(
    "selector, total",
    [
        (BY_LABEL, 2),
        ({"dataplaneLabels": {}}, 3),
        ({"dataplaneRef": {"name": "a"}}, 1),
        ({"dataplaneTags": {"version": "v1"}}, 1),
        ({"dataplaneTags": {"kuma.io/service": "web"}}, 1),
        (None, 0),
    ],
    ids=["label", "everything", "one", "tag", "service tag", "nothing"],
)
async def test_what_a_service_selects_is_counted_alike_by_its_zone_and_by_global(
    where: type[West | Global], selector: dict[str, Any] | None, total: int
) -> None:
    plane = where()
    log = plane.own if isinstance(plane, West) else plane.log
    spec = {"selector": selector, "ports": [{"port": 80, "targetPort": 80}]}
    instances = [("a", "redis", "redis"), ("b", "redis", "redis"), ("c", "web", "web")]
    log.commit(
        change("MeshService", Key("default", "west", "", "s"), spec),
        *(instance(name, app, of, version=f"v{number}")
          for number, (name, app, of) in enumerate(instances)),
        instance("a", "redis", "redis", zone="east", version="v1"),
        instance("a", "redis", "redis", mesh="other", version="v1"),
    )  # fmt: skip
    if isinstance(plane, West):
        plane.map.flush()
    listed = await read(plane.backend, "/meshservices")
    proxies = [item["status"]["dataplaneProxies"] for item in listed["items"]]

    assert proxies == [{"connected": 0, "healthy": total, "total": total}]


def instance(
    name: str, app: str, of: str, *, zone: str = "west", mesh: str = "default", version: str
) -> Change:
    tags = {"kuma.io/service": of, "version": version}
    networking = {"address": "10.0.0.1", "inbound": [{"port": 80, "tags": tags}]}
    key = Key(mesh, zone, "", name)
    return record(Put("Dataplane", key, {"app": app}, {"networking": networking}))


ADDRESS = (242 << 24) + 7
EXTERNAL = {
    "match": {"type": "HostnameGenerator", "port": 443, "protocol": "tcp"},
    "endpoints": [{"address": "192.0.2.1", "port": 443}],
}
MULTI_ZONE = {
    "selector": {"meshService": {"matchLabels": {"kuma.io/display-name": "redis"}}},
    "ports": [{"port": 6379, "appProtocol": "tcp"}],
}


@pytest.mark.parametrize("where", [West, Global], ids=["zone", "global"])
async def test_a_multi_zone_services_status_lists_the_services_that_it_stands_for(
    where: type[West | Global],
) -> None:
    plane = where()
    log = plane.copy if isinstance(plane, West) else plane.log
    log.commit(
        change("MeshMultiZoneService", Key("default", "", "", "redis"), MULTI_ZONE),
        *(service("redis", zone) for zone in ("east", "north")),
        service("other", "east"),
    )
    if isinstance(plane, West):
        plane.map.flush()
    listed = await read(plane.backend, "/meshmultizoneservices")
    status = listed["items"][0]["status"]

    assert status["meshServices"] == [
        {"name": "redis", "namespace": "", "zone": zone, "mesh": "default"}
        for zone in ("east", "north")
    ]
    assert status["vips"] == []
    assert [(each["type"], each["reason"]) for each in status["conditions"]] == [
        ("MeshServicesMatched", "MatchesFound"),
        ("VIPAllocated", "Waiting"),
    ]
    hostnames = [each["hostname"] for each in status["addresses"]]
    assert hostnames == (["redis.mzsvc.mesh.local"] if isinstance(plane, West) else [])


async def test_a_multi_zone_service_without_labels_to_match_stands_for_none() -> None:
    plane = Global()
    spec = MULTI_ZONE | {"selector": {"meshService": {"matchLabels": {}}}}
    plane.log.commit(
        change("MeshMultiZoneService", Key("default", "", "", "all"), spec), service("redis")
    )
    shown = await read(plane.backend, "/meshes/default/meshmultizoneservices/all")

    assert shown["status"]["meshServices"] == []


@pytest.mark.parametrize("where", [West, Global], ids=["zone", "global"])
async def test_an_external_services_status_has_one_address(
    where: type[West | Global],
) -> None:
    plane = where()
    zone = "west" if isinstance(plane, West) else ""
    key = Key("default", zone, "", "api")
    bound = Change(
        vip_kind("MeshExternalService"), key.packed, Binding(ADDRESS, None, None, 1).pack()
    )
    log = plane.own if isinstance(plane, West) else plane.log
    log.commit(change("MeshExternalService", key, EXTERNAL), bound)
    if isinstance(plane, West):
        plane.map.flush()
    shown = await read(plane.backend, "/meshes/default/meshexternalservices/api")

    assert shown["status"]["vip"] == {"ip": "242.0.0.7"}
    assert "conditions" not in shown["status"]
