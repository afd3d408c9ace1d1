"""Shell examples of the documents, run in a mesh of real processes, on its ports."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs import inventory
from tests.docs.documents import ROOT, Block, blocks, commands
from tests.e2e.mesh import AGENTS, Mesh, ipv6_of, request
from tests.patience import SLOWER
from tests.redis_deployments import Node, server, users_file
from tests.redis_server import needs_redis
from zonemesh.cli.demo.ports import Ports
from zonemesh.errors import UnavailableError
from zonemesh.log.redis import RedisStore
from zonemesh.runtime import config as configuration
from zonemesh.travel import up_log

DIG = """#!{python}
# What the examples use of dig, for machines without one; asks again, as a person would.
import sys, time
import dns.message, dns.query
server, _, port, _, name, kind = sys.argv[1:]
for _ in range(100):
    query = dns.message.make_query(name, kind)
    answer = dns.query.udp(query, server.removeprefix("@"), port=int(port), timeout=2).answer
    if answer:
        print(*(record for records in answer for record in records), sep="\\n")
        sys.exit()
    time.sleep(0.05)
sys.exit("no answer")
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with closing(Mesh(tmp_path_factory.mktemp("docs"))) as found:
        found.start_all()
        found.registered("redis")
        yield found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    directory = tmp_path_factory.mktemp("bin")
    dig = directory / "dig"
    dig.write_text(DIG.format(python=sys.executable))
    dig.chmod(0o755)
    (directory / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
    return os.environ | {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "CURL_HOME": str(directory),
        "no_proxy": "127.0.0.1",
    }


def diagnostics(mesh: Mesh, name: str) -> int:
    document = configuration.read_file(mesh.directory / f"{name}.yaml")
    port: int = (
        document["dataplane"]["readinessPort"]
        if name in AGENTS
        else document["diagnostics"]["port"]
    )
    return port


def in_mesh(block: Block, mesh: Mesh) -> str:
    ports = {
        5681: mesh.ports["g1"],
        5680: diagnostics(mesh, "g1"),
        6681: mesh.ports["west"],
        7681: mesh.ports["east"],
        16053: mesh.dns["west"],
        17053: mesh.dns["east"],
    }
    return re.sub(r"\b\d{4,5}\b", lambda m: str(ports.get(int(m[0]), m[0])), block.text)


def run(
    block: Block, mesh: Mesh, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-euc", in_mesh(block, mesh)],
        env=environment, capture_output=True, text=True, timeout=SLOWER * 20,
        check=False,
    )  # fmt: skip


def of_mesh(block: Block) -> bool:
    return re.search(r"^(curl|dig|printf)\b", block.text) is not None


RUNNABLE = [block for block in blocks("sh") if of_mesh(block)]


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_examples_run(block: Block, mesh: Mesh, environment: Mapping[str, str]) -> None:
    done = run(block, mesh, environment)

    if "DELETE http" in block.text and "/zones/" in block.text:  # which is online here
        assert "Zone CP is still connected" in done.stdout
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_example_shows_one_address_in_both_zones(
    mesh: Mesh, environment: Mapping[str, str]
) -> None:
    block = next(block for block in RUNNABLE if block.document.name == "README.md")

    done = run(block, mesh, environment)

    east, ipv6, west = re.findall(r"^(?:241\.|fd00).*$", done.stdout, re.MULTILINE)
    assert (west, ipv6) == (east, ipv6_of(east))
    assert '"name":"shop.svc.west.mesh.local"' in done.stdout


def test_metrics_that_are_there_are_described(mesh: Mesh) -> None:
    described = set(inventory.metrics())
    for name in mesh.processes:
        _, text = request(diagnostics(mesh, name), "GET", "/metrics")
        found = set(re.findall(r"^# TYPE ((?:zonemesh|zonedp)_\w+)", text, re.MULTILINE))
        assert found
        assert found <= described, name


def test_a_password_is_changed_as_the_operations_manual_says(tmp_path: Path) -> None:
    needs_redis(7)
    text = (ROOT / "docs" / "operations.md").read_text()
    lines = re.findall(r"^redis-cli (ACL .*)$", text, re.MULTILINE)

    with server(tmp_path / "node", ("aclfile", str(users_file(tmp_path)))) as node:
        given, taken, _ = [asyncio.run(said(node, line)) for line in lines]

    assert given == {"change-me-west": True, "new-password": True}
    assert taken == {"change-me-west": False, "new-password": True}
    saved = (tmp_path / "users.acl").read_text()
    assert "change-me" not in saved, "saved as hashes"


async def said(node: Node, line: str) -> dict[str, bool]:
    """Which passwords of west are let in after an administrator's command."""
    admin = RedisStore(node.url("admin"))
    await admin.commands.call(*(word.strip("'") for word in line.split()))
    await admin.close()
    found = {}
    for password in ("change-me-west", "new-password"):
        zone = RedisStore(f"redis://west:{password}@{node.address}")
        try:
            await zone.log(up_log("west")).head()
        except UnavailableError:
            found[password] = False
        else:
            found[password] = True
        await zone.close()
    return found


def test_what_is_not_run_here_is_known() -> None:
    others = {
        command.split()[0]
        for block in blocks("sh")
        if not of_mesh(block)
        for command in commands(block)
    }

    assert others <= {"make", "redis-cli", "globalcp", "zonecp", "zonedp", "zonemesh"}


def test_the_mesh_of_these_examples_is_the_demos() -> None:
    """Ports in documents are the demo's."""
    ports = Ports()
    assert (ports.global_1, ports.west, ports.east) == (5681, 6681, 7681)
    assert (ports.global_1_diagnostics, ports.west_dns, ports.east_dns) == (5680, 16053, 17053)
