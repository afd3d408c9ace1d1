"""Insights are counted once for as long as nothing that they count changes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from globalcp.backend import GlobalBackend
from globalcp.state import GlobalState
from tests.builders import Chain, put_dataplane, rest_client
from tests.maps import record
from zonecp.backend import ZoneBackend
from zonecp.state import ZoneState
from zonemesh.agents import AGENT, AgentNote
from zonemesh.deciding import Put
from zonemesh.errors import UnavailableError
from zonemesh.members import Members
from zonemesh.model import Change, Key, Record
from zonemesh.registry import Registry
from zonemesh.resources.kind import Kind
from zonemesh.rest.counting import Latest
from zonemesh.settings import Settings
from zonemesh.travel import kept_by
from zonemesh.vipmap import VipMap

NOBODY = cast("Any", None)  # nothing here asks who leads
A = put_dataplane("a", "redis")


class Plane:
    """A control plane of which it is known how many Dataplanes were read."""

    def __init__(self, *, on_global: bool) -> None:
        self.reads = 0
        if on_global:
            state = GlobalState()
            self.log = Chain(state.registry)
            self.backend: Any = GlobalBackend(state, Members(), NOBODY, NOBODY, settings=Settings())
        else:
            here = ZoneState("west", federated=False)
            self.log = Chain(here.registry)
            copy = Registry(keeps=kept_by("west"))
            vipmap = VipMap("west", here.registry, copy, federated=False)
            self.backend = ZoneBackend(
                here, copy, vipmap, NOBODY, lag_s=lambda: 0.0, uplink_refused=lambda: None
            )
        get = self.backend.get

        def counted(kind: Kind, key: Key) -> Record | None:
            self.reads += kind.name == "Dataplane"
            return cast("Record | None", get(kind, key))

        self.backend.get = counted
        zone = "" if on_global else "west"
        self.log.commit(record(Put("Mesh", Key("", zone, "", "default"), {}, {})), record(A))

    async def asked(self, path: str) -> tuple[dict[str, Any], int]:
        """What is answered, and how many Dataplanes were read for it."""
        before = self.reads
        answer = await self.client.get(path)
        assert answer.status == 200, await answer.text()
        return await answer.json(), self.reads - before

    client: Any = None


@pytest.mark.parametrize("on_global", [True, False], ids=["global", "zone"])
async def test_dataplanes_are_counted_again_once_one_or_its_agent_has_changed(
    *, on_global: bool
) -> None:
    plane = Plane(on_global=on_global)
    async with rest_client(plane.backend) as plane.client:
        first, read = await plane.asked("/mesh-insights/default")
        assert (first["dataplanes"]["total"], read) == (1, 1)
        plane.log.commit()  # a heartbeat
        for path in ("/mesh-insights", "/service-insights", "/global-insight"):
            assert (await plane.asked(path))[1] == 0, path

        plane.log.commit(record(put_dataplane("b", "web")))
        found, read = await plane.asked("/meshes/default/service-insights")
        assert ([each["name"] for each in found["items"]], read) == (["redis", "web"], 2)

        online = AgentNote(since_ms=1, agent="agent", version="1").pack()
        plane.log.commit(Change(AGENT, A.key.packed, online))
        found, read = await plane.asked("/global-insight")
        assert (found["dataplanes"]["standard"]["online"], read) == (1, 2)
        assert found["services"]["internal"] == {
            "total": 2, "online": 1, "offline": 1, "partiallyDegraded": 0,
        }  # fmt: skip

        plane.log.commit(Change("Dataplane", A.key.packed, None))
        found, _ = await plane.asked("/mesh-insights/default")
        assert (found["dataplanes"]["total"], found["resources"]["Dataplane"]["total"]) == (1, 1)


async def test_a_value_is_made_by_one_asker_for_all_that_wait() -> None:
    latest: Latest[int] = Latest()
    state = made = 0
    go = asyncio.Event()

    async def make() -> int:
        nonlocal made
        made += 1
        await go.wait()
        return state

    askers = [asyncio.ensure_future(latest.get(lambda: state, make)) for _ in range(5)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*askers) == [0] * 5
    assert made == 1

    state = 1
    assert await latest.get(lambda: state, make) == 1
    assert made == 2


async def test_a_value_that_could_not_be_made_is_made_by_the_next() -> None:
    latest: Latest[str] = Latest()

    async def fails() -> str:
        raise UnavailableError("not now")

    async def works() -> str:
        return "made"

    with pytest.raises(UnavailableError):
        await latest.get(lambda: 1, fails)
    assert await latest.get(lambda: 1, works) == "made"
