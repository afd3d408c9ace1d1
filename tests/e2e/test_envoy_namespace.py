"""How connections reach Envoy, in a network namespace: rules of the kernel, and AnyIP routes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e import in_namespace
from zonecp.dataplane.envoy import bootstrap, files
from zonecp.dataplane.envoy.binary import find_envoy
from zonecp.dataplane.envoy.config import Envoy
from zonecp.dataplane.envoy.sidecar import shape_of
from zonecp.dataplane.envoy.store import CLUSTER, LISTENER
from zonecp.dataplane.outbounds import Endpoint, Outbound
from zonemesh.errors import UnavailableError

VIP, VIP6, UNKNOWN = "241.0.0.7", "fd00:fd00::f100:7", "241.0.0.8"
ANSWER = "from the workload"

REDIRECT = """
ip route add 241.0.0.0/8 dev lo src 127.0.0.1
ip -6 route add local fd00:fd00::/64 dev lo
iptables -t nat -A OUTPUT -p tcp -d 241.0.0.0/8 -j REDIRECT --to-ports 15001
ip6tables -t nat -A OUTPUT -p tcp -d fd00:fd00::/64 -j REDIRECT --to-ports 15001
"""
ANY_IP = """
ip route add local 241.0.0.0/8 dev lo
ip -6 route add local fd00:fd00::/64 dev lo
"""


def _why_not() -> str | None:
    """What this machine lacks for these tests."""
    try:
        find_envoy(None, os.environ)
    except UnavailableError:
        return "no Envoy for this platform"
    if any(shutil.which(each) is None for each in ("unshare", "ip", "iptables", "ip6tables")):
        return "needs unshare, ip and iptables"
    probe = "ip link set lo up && iptables -t nat -L && ip6tables -t nat -L"
    done = subprocess.run(["unshare", "-Urn", "sh", "-c", probe], capture_output=True, check=False)
    return None if done.returncode == 0 else "may not make a network namespace with rules"


WHY_NOT = _why_not()
pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]


def answers(directory: Path, arrangement: str, script: str) -> dict[str, str]:
    """What clients of a service's addresses, and of an unknown one, are answered."""
    service = Outbound(
        id="kri_msvc_default_west__redis_main",
        kind="MeshService",
        vips=(VIP, VIP6),
        port=80,
        name="redis",
        protocol="http",
        endpoints=(Endpoint(address="127.0.0.1", port=8080),),
    )
    envoy_config = Envoy(arrangement=arrangement, ip_family_mode="dualstack")
    shape = shape_of(envoy_config, ("241.0.0.0/8", "fd00:fd00::/64"), static=True)
    found = files.documents([service], shape, [])
    node = bootstrap.Node(mesh="default", dataplane="web-1")
    path = directory / "envoy.yaml"
    path.write_text(yaml.safe_dump(bootstrap.whole(node, found[LISTENER], found[CLUSTER])))
    envoy = find_envoy(None, os.environ)
    client = f"{sys.executable} {in_namespace.__file__} {envoy} {path} {VIP} {VIP6} {UNKNOWN}"
    output = subprocess.check_output(
        ["unshare", "-Urn", "sh", "-ec", f"ip link set lo up\n{script}\nexec {client}"], timeout=120
    )
    found_answers: dict[str, str] = json.loads(output)
    return found_answers


@pytest.mark.parametrize("arrangement", ["redirect", "redirect-single"])
def test_redirected_connections_find_their_destination(tmp_path: Path, arrangement: str) -> None:
    found = answers(tmp_path, arrangement, REDIRECT)

    assert (found[VIP], found[VIP6]) == (ANSWER, ANSWER)
    # not a time-out: nobody has that address, and Envoy knows
    assert "closed" in found[UNKNOWN] or "reset" in found[UNKNOWN]


def test_addresses_that_are_this_hosts_are_listened_on(tmp_path: Path) -> None:
    found = answers(tmp_path, "bound", ANY_IP)

    assert (found[VIP], found[VIP6]) == (ANSWER, ANSWER)
    assert "refused" in found[UNKNOWN]
