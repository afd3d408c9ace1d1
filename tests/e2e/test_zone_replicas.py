"""Two control planes of zone west on one log in Redis, and an agent that knows both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import (
    AGENTS,
    HOST,
    PLANES,
    Mesh,
    Process,
    at_home,
    dataplane,
    elsewhere,
    eventually,
    in_east,
    program,
    watching,
)
from tests.ports import free
from zonemesh.travel import own_log

REPLICAS = ("west", "west-2")
SERVICES = ("one", "two")


class Replicated(Mesh):
    """A mesh whose zone west has two control planes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._diagnostics["west-2"] = next(self._numbers)
        self._add("west-2", "zonecp", {"multizone": {"zone": {"name": "west"}}})

    def config(self, name: str) -> dict[str, Any]:
        found = super().config(name)
        if name in REPLICAS:
            found["log"] = {"url": f"redis://{HOST}:{self.redis_port}/1"}
            found["meshService"] = {"deletionGracePeriod": "1s"}
        return found

    def agent_url(self, zone: str) -> str:
        if zone != "west":
            return super().agent_url(zone)
        if "west-2" not in self.ports:
            self.ports["west-2"] = next(self._numbers)
        return ",".join(f"http://{HOST}:{self.ports[name]}" for name in REPLICAS)

    def zone_leader(self) -> str | None:
        return next((name for name in REPLICAS if self.state(name).get("leader")), None)

    def zone_follower(self) -> str:
        return next(name for name in REPLICAS if name != self.zone_leader())

    def online(self, name: str) -> bool:
        """Whether a Dataplane has an agent, by whatever replica is asked."""
        _, found = self.call(name, "GET", "/meshes/default/dataplanes+insights/west-client")
        insight: Mapping[str, Any] = (found or {}).get("dataplaneInsight") or {}
        subscriptions = insight.get("subscriptions") or []
        return bool(subscriptions) and "disconnectTime" not in subscriptions[-1]


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Replicated]:
    with closing(Replicated(tmp_path)) as found:
        found.start()
        found.start("west-2", *AGENTS)
        eventually(lambda: found.zone_leader() is not None)
        yield found


@pytest.mark.timeout(90)
def test_after_the_zone_leaders_sudden_death_names_stay_and_new_ones_come(
    replicated: Replicated,
) -> None:
    addresses = replicated.registered(*SERVICES)
    leader, follower = replicated.zone_leader(), replicated.zone_follower()
    assert leader is not None
    names = in_east(addresses)
    names |= {("west", at_home(s)): a for s, a in addresses.items()}

    with watching(replicated, names):
        replicated[leader].kill()
        body = dataplane("new")
        path = "/meshes/default/dataplanes/new-1"
        eventually(
            lambda: replicated.call(follower, "PUT", path, body)[0] in (200, 201), 6, replicated
        )
        new = replicated.resolves("east", elsewhere("new"))
        assert replicated.resolves("west", at_home("new")) == new

    assert replicated.zone_leader() == follower
    assert replicated.metric(follower, "zonemesh_leader") == {"": 1.0}
    replicated.start(leader)
    for plane in (*PLANES, "west-2"):
        expected = {**addresses, "new": new}
        eventually(partial(replicated.holds, plane, expected), 5, replicated, plane)
    assert replicated.zone_leader() == follower


@pytest.mark.timeout(90)
def test_a_write_at_a_follower_can_be_read_there_at_once(replicated: Replicated) -> None:
    follower = replicated.zone_follower()
    for number in range(20):
        replicated.register(follower, f"s-{number}")
        assert (
            replicated.call(follower, "GET", f"/meshes/default/dataplanes/s-{number}-1")[0] == 200
        )
    replicated.remove(follower, "s-0")

    state = replicated.state(follower)
    assert state["leader"] is False
    assert state["leader_url"].endswith(str(replicated.ports[replicated.zone_leader() or ""]))
    assert state["own_lag_s"] < 5
    assert replicated.metric(follower, "zonemesh_leader") == {"": 0.0}
    assert replicated.metric(follower, "zonemesh_own_log_lag_seconds")[""] < 5
    (other,) = eventually(lambda: replicated.state(replicated.zone_leader() or "")["replicas"])
    assert other["url"].endswith(str(replicated.ports[follower]))


@pytest.mark.timeout(90)
def test_a_zone_leader_that_stops_hands_over_at_once_and_its_agents_were_never_gone(
    replicated: Replicated,
) -> None:
    addresses = replicated.registered(*SERVICES)
    assert replicated.call(
        "west",
        "PUT",
        "/meshes/default/dataplanes/west-client",
        dataplane("web", name="west-client"),
    )[0] in (200, 201)
    eventually(lambda: all(replicated.online(name) for name in REPLICAS))
    leader, follower = replicated.zone_leader(), replicated.zone_follower()
    assert leader is not None

    with watching(replicated, {("west", at_home(s)): a for s, a in addresses.items()}):
        old = f":{replicated.ports[leader]}"
        assert old in replicated.lease(own_log("west"), db=1)
        assert replicated[leader].stop() == 0
        held = replicated.lease(own_log("west"), db=1)
        eventually(lambda: replicated.zone_leader() == follower, 5, replicated, *REPLICAS)
        eventually(partial(replicated.resolves, "west", at_home("one")))
        assert replicated.online(follower)

    assert old not in held, "the lease of a dead leader would last for 2 s"


@pytest.mark.timeout(90)
def test_a_zone_is_taken_over_on_an_operators_word_and_global_shows_who_claimed_it(
    mesh: Mesh,
) -> None:
    mesh.start_all()
    addresses = mesh.registered(*SERVICES)
    old, new = mesh["west"], usurper(mesh)
    new.start()

    assert new.wait(25) == 2
    owner = zone_seen(mesh)["uid"]
    assert f"with UID {owner} is running under this name" in new.log.read_text()
    assert "--takeover" in new.log.read_text()
    claimed: dict[str, str] = eventually(lambda: zone_seen(mesh).get("claimedBy") or {})
    assert claimed["owner"] == owner
    assert claimed["uid"] in new.log.read_text()
    assert mesh.metric(mesh.leading(), "zonemesh_zone_claimed")['zone="west"'] == 1.0
    assert old.running

    with watching(mesh, in_east(addresses)):
        again = usurper(mesh, "--takeover")
        again.start()
        assert old.wait(25) == 2
        eventually(partial(mesh.is_ready, "west-2"), 20, mesh, "west-2")
        mesh.register("west-2", "new")
        mesh.resolves("east", elsewhere("new"))
    assert "has taken this zone over from this one" in old.log.read_text()
    for name in ("west-2", "east", "g1"):
        eventually(partial(mesh.holds, name, addresses), 5, mesh, name)


def usurper(mesh: Mesh, *flags: str) -> Process:
    """Another control plane under the name of zone west, with a data directory of its own."""
    if "west-2" not in mesh.ports:
        mesh.ports["west-2"], mesh._diagnostics["west-2"] = free(2)
        mesh._add("west-2", "zonecp", {"multizone": {"zone": {"name": "west"}}})
    command = [program("zonecp"), "run", "-c", str(mesh.directory / "west-2.yaml"), *flags]
    mesh.processes["west-2"] = Process("west-2", command, mesh.directory / "west-2.log")
    return mesh["west-2"]


def zone_seen(mesh: Mesh) -> dict[str, Any]:
    found: dict[str, Any] = mesh.get("g1", "/zones+insights/west")["zoneInsight"]["zonemesh"]
    return found
