"""Shell examples of the documents, run in a mesh of real processes, on its ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs import inventory
from tests.docs.documents import ROOT, Block, blocks, commands
from tests.e2e.mesh import AGENTS, Mesh, eventually, ipv6_of, program, request
from zonemesh.cli.demo.ports import Ports
from zonemesh.errors import UnavailableError
from zonemesh.log import backup as backups
from zonemesh.log import snapshotter
from zonemesh.log.appender import Appender
from zonemesh.log.clock import Clock
from zonemesh.log.port import Lease, Log, SnapshotInfo
from zonemesh.log.redis import RedisStore
from zonemesh.model import START, Position
from zonemesh.registry import Registry
from zonemesh.runtime import config as configuration
from zonemesh.travel import GLOBAL_LOG, up_log
from zonemesh.wire import NO_HASH, Entry, seal

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
    found = Mesh(tmp_path_factory.mktemp("docs"))
    try:
        found.start()
        found.start(*AGENTS)
        found.registered("redis")
        yield found
    finally:
        found.close()


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
        env=environment, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip


def of_mesh(block: Block) -> bool:
    return re.search(r"^(curl|dig|printf)\b", block.text) is not None


RUNNABLE = [block for block in blocks("sh") if of_mesh(block)]


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_examples_run(block: Block, mesh: Mesh, environment: Mapping[str, str]) -> None:
    done = run(block, mesh, environment)

    if "-X DELETE" in block.text:  # of a zone, which is online here
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


async def test_the_zones_user_of_the_operations_manual_suffices(redis_url: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (rules,) = re.findall(r"^redis-cli (ACL SETUSER west .*)$", text, re.MULTILINE)
    admin = RedisStore(redis_url)
    await admin.commands.call(*(rule.strip("'") for rule in rules.split()))
    zone = RedisStore(redis_url.replace("redis://", "redis://west:change-me@"))
    try:
        await founded(admin, GLOBAL_LOG)
        await zone.announce("west")
        await founded(zone, up_log("west"))
        assert len(await zone.log(GLOBAL_LOG).read(START)) == 1
        assert await zone.log(GLOBAL_LOG).snapshots() != ()
        assert await zone.log(GLOBAL_LOG).head() is not None
        assert (await zone.check_server()).version is not None
    finally:
        await admin.commands.call("ACL", "DELUSER", "west")
        await zone.close()
        await admin.close()


async def test_the_backup_user_of_the_operations_manual_suffices(redis_url: str) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (rules,) = re.findall(r"^redis-cli (ACL SETUSER backup .*)$", text, re.MULTILINE)
    admin = RedisStore(redis_url)
    await admin.commands.call(*(rule.strip("'") for rule in rules.split()))
    reader = RedisStore(redis_url.replace("redis://", "redis://backup:change-me@"))
    try:
        registry = Registry()
        await snapshotted(admin.log(GLOBAL_LOG))
        saved = await backups.save(reader.log(GLOBAL_LOG), registry, saved_ms=1, version="")
        assert saved.log == GLOBAL_LOG
        with pytest.raises(UnavailableError, match="ACL"):
            await reader.log(GLOBAL_LOG).acquire(Lease(writer="w", url=""))
    finally:
        await admin.commands.call("ACL", "DELUSER", "backup")
        await reader.close()
        await admin.close()


async def snapshotted(target: Log) -> None:
    """A log that goes on behind its snapshot."""
    registry = Registry()
    appender = Appender(target, writer="w", clock=Clock())
    registry.apply(await appender.create("inc", term=1))
    await snapshotter.write(target, registry.freeze())
    await appender.commit()


def test_the_backups_of_the_operations_manual_restore_a_mesh(
    tmp_path: Path, environment: Mapping[str, str]
) -> None:
    mesh = Mesh(tmp_path)
    save, ask, *restores = [
        block
        for block in blocks("sh")
        if "zonemesh snapshot" in block.text or "backup on" in block.text
    ]
    assert "backup on" in ask.text
    try:
        mesh.start_redis()
        mesh.start("g1", "west")
        assert mesh.register("west", "redis") == 201
        eventually(lambda: "west/redis" in mesh.vips("g1"), 10, mesh, "g1")
        before = mesh.vips("g1")
        _run_backup(save, mesh, environment)
        for name in ("g1", "west"):
            mesh[name].stop()
            mesh.forget(name)
        mesh.empty_redis()
        for block in restores:
            _run_backup(block, mesh, environment)
        mesh.start("g1", "west")

        eventually(lambda: mesh.vips("g1") == before, 20, mesh, "g1")
        assert mesh.vips("west") == before
    finally:
        mesh.close()


def _run_backup(block: Block, mesh: Mesh, environment: Mapping[str, str]) -> None:
    text = block.text.replace("/var/lib/zonemesh/west", str(mesh.data_dir("west")))
    text = text.replace("zonemesh snapshot", f"{program('zonemesh')} snapshot")
    done = subprocess.run(
        ["sh", "-euc", text.replace("6379", str(mesh.redis_port))],
        env=environment, cwd=mesh.directory, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


async def founded(store: RedisStore, name: str) -> None:
    """A log with one entry and its snapshot."""
    sealed = seal(
        Entry(
            incarnation="i",
            position=Position(1, 0),
            previous=START,
            writer="w",
            time_ms=1,
            mono_delta_ms=0,
            log_time_ms=0,
        ),
        NO_HASH,
    )
    log = store.log(name)
    await log.create(sealed)
    info = SnapshotInfo(incarnation="i", position=Position(1, 0), h=sealed.h, chunks=1)
    await log.put_snapshot(info, [b"chunk"])
    assert await log.load_snapshot(info) == [b"chunk"]


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
