"""`_layout` of a Dataplane: what its proxy listens for, told by its zone and by global alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from globalcp.backend import GlobalBackend
from globalcp.state import GlobalState
from tests.builders import NOW_MS, Chain, FakeBackend, rest_client, with_mesh
from tests.maps import (
    EXTERNAL,
    MULTI_ZONE,
    SERVICE,
    binding,
    bound,
    external,
    multi_zone,
    record,
    service,
    zone_record,
)
from zonecp.backend import ZoneBackend
from zonecp.state import ZoneState
from zonemesh import names
from zonemesh.deciding import Put
from zonemesh.labels import KDS_SYNC
from zonemesh.members import Members
from zonemesh.model import Change, Key, Record
from zonemesh.reach import reach_of
from zonemesh.registry import Registry
from zonemesh.seen import Seen
from zonemesh.settings import Settings, zone_key
from zonemesh.travel import SEEN, kept_by
from zonemesh.vipmap import VipMap

LAYOUT = "/meshes/default/dataplanes/shop-1/_layout"
AT_443 = {"match": {"port": 443}}
REDIS_OF_EAST = {"kuma.io/display-name": "redis", "kuma.io/zone": "east"}


def shop(*refs: Mapping[str, Any], trimmed: bool = True) -> Change:
    """A Dataplane of west; trimmed, it reaches what `refs` name."""
    networking: dict[str, Any] = {
        "address": "10.0.0.1",
        "inbound": [
            {"port": 8080, "name": "main", "tags": {"kuma.io/service": "shop"}},
            {"port": 9090, "protocol": "GRPC"},
        ],
    }
    if trimmed:
        networking["transparentProxying"] = {"reachableBackends": {"refs": list(refs)}}
    key = Key("default", "west", "", "shop-1")
    return record(Put("Dataplane", key, {"app": "shop"}, {"networking": networking}))


class Planes:
    """Global, and west behind it, over the same records; east is another zone."""

    def __init__(self) -> None:
        nobody = cast("Any", None)  # nothing here asks who leads
        state = GlobalState()
        members = Members()
        state.registry.add_index(members)
        self.log = Chain(state.registry)
        self.on_global = GlobalBackend(state, members, nobody, nobody, settings=Settings())
        here = ZoneState("west", federated=True)
        self.own = Chain(here.registry)
        self.copy = Chain(Registry(keeps=kept_by("west")))
        self.map = VipMap("west", here.registry, self.copy.registry)
        self.on_west = ZoneBackend(
            here, self.copy.registry, self.map, nobody, lag_s=lambda: 0.0,
            uplink_refused=lambda: None,
        )  # fmt: skip
        mesh = Record(created_ms=NOW_MS, modified_ms=NOW_MS, spec={}).pack()
        self.commit("", Change("Mesh", Key("", "", "", "default").packed, mesh))
        for zone in ("west", "east"):
            seen = Seen(uid="u", online=True, last_ms=0, connected_ms=0)
            self.commit("", Change(SEEN, zone_key(zone), seen.pack()))

    def commit(self, zone: str, *changes: Change) -> None:
        """What was made in a zone, or on global, is known wherever it travels."""
        self.log.commit(*changes)
        (self.own if zone == "west" else self.copy).commit(*changes)
        self.map.flush()

    @property
    def fed(self) -> list[str]:
        """Ids of the outbounds that the feed has for the Dataplane."""
        packed = self.own.registry.get("Dataplane", Key("default", "west", "", "shop-1").packed)
        assert packed is not None
        reach = reach_of("west", Record.unpack(packed))

        def labels(kind: str, key: str) -> Mapping[str, str]:
            return self.map.labels(next(r for r in refs if (r.kind, r.key) == (kind, key)))

        refs = self.map.addressed("default")
        return sorted(
            outbound["id"]
            for ref in refs
            for outbound in self.map.outbounds.of(ref)
            if reach is None or reach.allows(ref.kind, ref.key, labels, outbound["port"])
        )

    async def layouts(self) -> list[dict[str, Any]]:
        found = []
        copied = names.hashed_name("default", "shop-1", "west", "")
        for backend, name in ((self.on_west, "shop-1"), (self.on_global, copied)):
            async with rest_client(cast("Any", backend)) as client:
                answer = await client.get(LAYOUT.replace("shop-1", name))
                assert answer.status == 200, await answer.text()
                found.append(await answer.json())
        return found


@pytest.fixture
def planes() -> Planes:
    found = Planes()
    found.commit(
        "west", service("redis"), binding("redis", 1), service("waits"),
    )  # fmt: skip
    found.commit(
        "east", service("redis", "east"), binding("redis", 2, "east"),
        service("far", "east"), binding("far", 3, "east"),
    )  # fmt: skip
    found.commit(
        "",
        external("aurora", ("192.0.2.1", 5432)), bound(EXTERNAL, "aurora", 4),
        multi_zone("redis"), bound(MULTI_ZONE, "redis", 5),
    )  # fmt: skip
    return found


async def test_a_dataplane_is_laid_out_as_kuma_does(planes: Planes) -> None:
    planes.commit("west", shop({"kind": SERVICE, "name": "redis"}))

    here, there = await planes.layouts()

    assert here == {
        "kri": "kri_dp_default_west__shop-1_",
        "labels": {
            "app": "shop",
            "kuma.io/display-name": "shop-1",
            "kuma.io/env": "universal",
            "kuma.io/mesh": "default",
            "kuma.io/origin": "zone",
            "kuma.io/zone": "west",
        },
        "inbounds": [
            {
                "kri": "kri_dp_default_west__shop-1_main",
                "port": 8080,
                "protocol": "tcp",
                "proxyResourceName": "self_inbound_dp_main",
            },
            {
                "kri": "kri_dp_default_west__shop-1_9090",
                "port": 9090,
                "protocol": "grpc",
                "proxyResourceName": "self_inbound_dp_9090",
            },
        ],
        "outbounds": [
            {
                "kri": "kri_msvc_default_west__redis_80",
                "port": 80,
                "protocol": "tcp",
                "proxyResourceName": "kri_msvc_default_west__redis_80",
            }
        ],
    }
    assert there == here


@pytest.mark.parametrize(
    "dataplane, outbounds",
    [
        (shop(trimmed=False), 5),
        (shop(), 0),
        (shop({"kind": SERVICE, "labels": REDIS_OF_EAST}), 1),
        (shop({"kind": SERVICE, "labels": {}}), 3),
        (shop({"kind": SERVICE, "name": "redis", "port": 81}), 0),
        (shop({"kind": MULTI_ZONE, "name": "redis"}, {"kind": EXTERNAL, "name": "aurora"}), 2),
        (shop({"kind": SERVICE, "name": "far"}), 0),
    ],
    ids=["all", "none", "labels", "a kind", "another port", "global's", "a copy's name"],
)  # fmt: skip
async def test_outbounds_are_those_of_the_dataplanes_own_feed(
    planes: Planes, dataplane: Change, outbounds: int
) -> None:
    planes.commit("west", dataplane)

    for layout in await planes.layouts():
        kris = [outbound["kri"] for outbound in layout["outbounds"]]
        assert kris == planes.fed
        assert len(kris) == outbounds


async def test_what_a_zone_is_not_given_is_no_outbound(planes: Planes) -> None:
    planes.commit("west", shop(trimmed=False))
    planes.commit("", zone_record("east", enabled=False))
    planes.log.commit(
        record(Put(EXTERNAL, Key("default", "", "", "kept"), {KDS_SYNC: "disabled"}, AT_443)),
        bound(EXTERNAL, "kept", 9),
    )

    for layout in await planes.layouts():
        assert [outbound["kri"] for outbound in layout["outbounds"]] == planes.fed
        assert len(planes.fed) == 3


async def test_a_dataplane_that_is_not_there_has_no_layout() -> None:
    async with rest_client(with_mesh(FakeBackend())) as client:
        answer = await client.get(LAYOUT)
        nowhere = await client.get(LAYOUT.replace("default", "nowhere"))

        assert answer.status == nowhere.status == 404
        assert json.loads(await answer.text())["detail"] == "Not found"
