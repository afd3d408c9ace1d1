"""The data plane as it is meant to be used: networks of their own, the kernel's redirect, and a
program that knows nothing but a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.apart import EAST, WEST, ApartMesh, apart, why_not
from tests.e2e.envoys import AGENT, multi_zone
from tests.e2e.mesh import PLANES, elsewhere, eventually, ipv6_of
from zonecp.dataplane.cache import read_outbounds

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

ENDS = {
    "nat": ("RemoteDisconnected", "ConnectionResetError"),  # by Envoy
    "anyip": ("ConnectionRefusedError",),  # by the kernel
}
"""Of a connection to an address of the mesh that no service has; never a time-out."""


@pytest.fixture(scope="module", params=["nat", "anyip"])
def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApartMesh]:
    """One for tests that leave it as it was."""
    with apart(tmp_path_factory.mktemp("apart"), request.param) as found:
        yield found


def answers(mesh: ApartMesh, expected: str, name: str, port: int, how: str = "http") -> None:
    """Wait until a program gets this answer."""
    ask = partial(mesh.program, name, port, how=how)
    eventually(lambda: ask().answer == expected, 10, mesh, AGENT)


def test_a_program_that_knows_only_the_name_reaches_the_other_zone(mesh: ApartMesh) -> None:
    redis = elsewhere("redis")
    with closing(mesh.backend("west", 80, "west")), closing(mesh.echo("west", 7, "west")):
        mesh.put_workload("west", "redis", 80, address=WEST)
        mesh.put_workload("west", "echo", 7, protocol="tcp", address=WEST)
        answers(mesh, "west", redis, 80)
        answers(mesh, "west: hello", elsewhere("echo"), 7, "tcp")

        v4, v6 = (mesh.program(redis, 80, family=family) for family in (4, 6))
        assert (v4.answer, v6.answer) == ("west", "west")
        assert v6.addresses == [ipv6_of(v4.addresses[0])]
        assert v4.addresses[0].startswith("241.")
        for family in (4, 6):
            found = mesh.program(elsewhere("echo"), 7, how="tcp", family=family)
            assert found.answer == "west: hello"


def test_a_service_that_goes_leaves_no_name_and_no_connection_that_hangs(mesh: ApartMesh) -> None:
    brief = elsewhere("brief")
    with closing(mesh.backend("west", 8081, "west")):
        mesh.put_workload("west", "brief", 8081, address=WEST)
        answers(mesh, "west", brief, 8081)
        addresses = [*mesh.program(brief, 8081).addresses]

        mesh.remove("west", "brief")

        answers(mesh, "gaierror", brief, 8081)
        # Until its listener goes, 1 s after the name, the address still leads there.
        for address in addresses:
            eventually(partial(ended, mesh, address), 10, mesh, AGENT)
            assert mesh.program(address, 8081).answer in ENDS[mesh.mode]


def ended(mesh: ApartMesh, address: str) -> bool:
    answer = mesh.program(address, 8081).answer
    return answer != "west" and not answer.startswith("status")


def test_when_the_instance_here_dies_the_other_zones_takes_over(mesh: ApartMesh) -> None:
    with closing(mesh.backend("west", 8082, "west")):
        here = mesh.backend("east", 8082, "east")
        for zone, address in (("west", WEST), ("east", EAST)):
            mesh.put_workload(zone, "shop", 8082, address=address)
        leader = mesh.leading()
        path = "/meshes/default/meshmultizoneservices/shop"
        mesh.put(leader, path, multi_zone("shop", "http"))
        answers(mesh, "east", "shop.mzsvc.mesh.local", 18081)

        here.close()

        assert mesh.program("shop.mzsvc.mesh.local", 18081).answer == "west", "without a failure"


def test_with_no_control_plane_left_everything_here_can_start_again(tmp_path: Path) -> None:
    redis, later = elsewhere("redis"), elsewhere("later")
    with apart(tmp_path, "nat") as mesh, closing(mesh.backend("west", 80, "west")):
        mesh.put_workload("west", "redis", 80, address=WEST)
        answers(mesh, "west", redis, 80)
        eventually(partial(on_disk, mesh, "kri_msvc_default_west__redis_main"), 5, mesh, AGENT)
        for plane in PLANES:
            mesh[plane].kill()
        mesh.kill_redis()

        assert mesh.program(redis, 80).answer == "west"
        mesh.kill_envoy()
        answers(mesh, "west", redis, 80)
        mesh[AGENT].kill()
        mesh.kill_envoy()
        assert mesh.program(redis, 80).answer == "gaierror"
        mesh[AGENT].start()
        answers(mesh, "west", redis, 80)
        for family in (4, 6):
            assert mesh.program(redis, 80, family=family).answer == "west"

        mesh.start()
        mesh.put_workload("west", "later", 80, address=WEST)
        answers(mesh, "west", later, 80)
        mesh.remove("west", "redis")
        answers(mesh, "gaierror", redis, 80)


def on_disk(mesh: ApartMesh, outbound: str) -> bool:
    """Whether the agent's copy, at most a second behind, has what came last."""
    found = read_outbounds(mesh.data_dir(AGENT), "default") or ()
    return any(each.id == outbound and each.endpoints for each in found)
